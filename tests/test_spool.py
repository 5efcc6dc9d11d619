"""What a run logs, on its way to a store that fails now and then."""

import itertools
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import gridfs
import mongomock
import mongomock.gridfs
import numpy as np
import pytest
from pymongo.errors import AutoReconnect, PyMongoError

from store.shipper import MOST_POINTS, Shipper, full_series, stride
from store.spool import Spool, spools

mongomock.gridfs.enable_gridfs_integration()
START = datetime(2026, 1, 2, 3, 4, 5, 678000)


@pytest.fixture
def database() -> Any:
    return mongomock.MongoClient().sacred


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    made = Spool(tmp_path / "sacred-1")
    made.put_run(entry())
    return made


def entry(**changes: Any) -> dict[str, Any]:
    return {"_id": 1, "start_time": START, "info": {"a": 1}, "status": "RUNNING", **changes}


def log(spool: Spool, name: str, steps: range) -> None:
    times = [START + timedelta(seconds=step) for step in steps]
    spool.add_points(name, steps, [step / 8 for step in steps], times)


def stored(database: Any, name: str) -> dict[str, Any]:
    (metric,) = database.metrics.find({"run_id": 1, "name": name})
    return metric


class Failing:
    """A collection, some calls of which fail: before they were carried out, or after."""

    def __init__(self, inner: Any, fails: Iterator[str]) -> None:
        self._inner, self._fails = inner, fails

    def update_one(self, *args: Any, **kwargs: Any) -> Any:
        how = next(self._fails, "")
        if how == "before":
            raise AutoReconnect("the request was lost")
        result = self._inner.update_one(*args, **kwargs)
        if how == "after":
            raise AutoReconnect("the answer was lost")
        return result

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


# --- the spool


def test_points_come_back_as_they_went(spool: Spool) -> None:
    log(spool, "loss", range(3))
    log(spool, "gain", range(1))
    log(spool, "loss", range(3, 5))
    points = spool.points("loss")
    assert points["step"].tolist() == [0, 1, 2, 3, 4]
    assert points["value"].tolist() == [0, 0.125, 0.25, 0.375, 0.5]
    assert spool.points("loss", 3, 4)["step"].tolist() == [3]
    assert spool.count("gain") == 1


def test_another_process_finds_all_of_it(spool: Spool, tmp_path: Path) -> None:
    log(spool, "a name/with: signs", range(4))
    (tmp_path / "file").write_text("text")
    spool.add_artifact("x.txt", tmp_path / "file", {"k": 1}, "text/plain")
    (folder,) = spools(tmp_path)
    again = Spool(folder)
    assert again.run()[0] == entry()
    assert again.count("a name/with: signs") == 4
    assert again.artifacts() == spool.artifacts()
    assert again.metrics() == spool.metrics()


def test_one_process_writes_at_a_time(spool: Spool) -> None:
    assert spool.take()
    other = Spool(spool.folder)
    assert not other.take()
    spool.release()
    assert other.take()


def test_values_that_are_no_numbers_survive(spool: Spool, database: Any) -> None:
    values = [float("nan"), float("inf"), -float("inf"), 1e308]
    spool.add_points("odd", range(4), values, [START] * 4)
    Shipper(spool, database).ship()
    assert np.array_equal(stored(database, "odd")["values"], values, equal_nan=True)


# --- what the store gets


def test_a_store_has_what_sacred_would_have_written(
    spool: Spool, database: Any, tmp_path: Path
) -> None:
    shipper = Shipper(spool, database)
    log(spool, "loss", range(3))
    shipper.ship()
    log(spool, "loss", range(3, 5))
    (tmp_path / "file").write_bytes(b"content")
    spool.add_artifact("policy", tmp_path / "file", {"k": 1}, "text/plain")
    shipper.ship()
    metric = stored(database, "loss")
    assert metric["steps"] == [0, 1, 2, 3, 4]
    assert all(type(step) is int for step in metric["steps"])
    assert metric["values"] == [0, 0.125, 0.25, 0.375, 0.5]
    assert metric["timestamps"] == [START + timedelta(seconds=s) for s in range(5)]
    run = database.runs.find_one({"_id": 1})
    assert run["info"] == {"a": 1, "metrics": [{"name": "loss", "id": str(metric["_id"])}]}
    ((artifact),) = run["artifacts"]
    file = gridfs.GridFS(database).get(artifact["file_id"])
    assert (artifact["name"], file.read()) == ("policy", b"content")
    assert (file.filename, file.metadata) == ("artifact://runs/1/policy", {"k": 1})
    assert spool.is_shipped
    assert list((spool.folder / "artifacts").iterdir()) == []


@pytest.mark.parametrize("shipped_between", [True, False])
def test_a_file_takes_the_place_of_one_of_its_name(
    shipped_between: bool, spool: Spool, database: Any, tmp_path: Path
) -> None:
    shipper = Shipper(spool, database)
    for content in (b"old", b"new"):
        (tmp_path / "file").write_bytes(content)
        spool.add_artifact("best", tmp_path / "file", None, "text/plain")
        if shipped_between:
            shipper.ship()
    Shipper(Spool(spool.folder), database).ship()
    (artifact,) = database.runs.find_one({"_id": 1})["artifacts"]
    assert gridfs.GridFS(database).get(artifact["file_id"]).read() == b"new"
    assert database.fs.files.count_documents({}) == 1
    assert list((spool.folder / "artifacts").iterdir()) == []


def test_what_a_user_wrote_meanwhile_stays(spool: Spool, database: Any) -> None:
    shipper = Shipper(spool, database)
    shipper.ship()
    database.runs.update_one({"_id": 1}, {"$set": {"omniboard": {"tags": ["good"]}}})
    spool.put_run(entry(status="COMPLETED"))
    shipper.ship()
    run = database.runs.find_one({"_id": 1})
    assert run["omniboard"] == {"tags": ["good"]}
    assert run["status"] == "COMPLETED"


@pytest.mark.parametrize("failures", list(itertools.product(["", "before", "after"], repeat=3)))
def test_a105_everything_arrives_once(
    failures: tuple[str, ...], spool: Spool, database: Any, tmp_path: Path
) -> None:
    """Whether a request or its answer is lost, and whichever process tries again."""
    fails = iter(failures)

    class Away:
        metrics = Failing(database.metrics, fails)
        runs = Failing(database.runs, fails)

        def __getattr__(self, name: str) -> Any:
            return getattr(database, name)

    (tmp_path / "file").write_bytes(b"content")
    for part in range(4):
        for name in ("one", "two"):
            log(spool, name, range(5 * part, 5 * part + 5))
        spool.add_artifact(f"file {part}", tmp_path / "file", None, "text/plain")
        shipper = Shipper(Spool(spool.folder), database)
        shipper._database = Away()  # type: ignore[assignment]
        try:
            shipper.ship()
        except AutoReconnect:
            assert not spool.is_shipped
        spool = Spool(spool.folder)
    Shipper(spool, database).ship()
    for name in ("one", "two"):
        assert stored(database, name)["steps"] == list(range(20))
    names = [each["name"] for each in database.runs.find_one({"_id": 1})["artifacts"]]
    assert names == [f"file {part}" for part in range(4)]
    assert database.fs.files.count_documents({}) == 4


def test_a_run_of_that_id_in_a_database_made_anew_is_left_alone(
    spool: Spool, database: Any
) -> None:
    database.runs.insert_one(entry(start_time=datetime(2020, 1, 1), status="COMPLETED"))
    with pytest.raises(PyMongoError):
        Shipper(spool, database).ship()
    assert database.runs.find_one({"_id": 1})["status"] == "COMPLETED"


# --- long series


@pytest.mark.parametrize(
    ("count", "every"),
    [(0, 1), (MOST_POINTS, 1), (MOST_POINTS + 1, 2), (2 * MOST_POINTS, 2), (10**6, 64)],
)
def test_of_long_series_a_part_is_shown(count: int, every: int) -> None:
    assert stride(count) == every


def test_a_long_series_is_thinned_evenly_and_kept_whole(spool: Spool, database: Any) -> None:
    shipper = Shipper(spool, database)
    for start in range(0, 50_000, 7_001):
        log(spool, "long", range(start, min(start + 7_001, 50_000)))
        shipper.ship()
        every = stride(spool.count("long"))
        shown = stored(database, "long")
        assert shown["steps"] == list(range(0, spool.count("long"), every))
        assert shown["values"] == [step / 8 for step in shown["steps"]]
    log(spool, "short", range(3))
    assert {name: len(points) for name, points in full_series(spool).items()} == {"long": 50_000}


# --- going on


def test_a106_what_came_after_the_checkpoint_is_logged_again(spool: Spool, database: Any) -> None:
    log(spool, "loss", range(10))
    log(spool, "rare", range(0, 10, 5))
    Shipper(spool, database).ship()
    again = Spool(spool.folder)
    again.truncate(6)
    log(again, "loss", range(6, 8))
    Shipper(again, database).ship()
    assert stored(database, "loss")["steps"] == list(range(8))
    assert stored(database, "rare")["steps"] == [0, 5]


def test_a_metric_of_which_a_killed_process_wrote_the_name_alone(
    spool: Spool, database: Any
) -> None:
    log(spool, "loss", range(1))
    (file,) = (spool.folder / "metrics").iterdir()
    file.unlink()
    again = Spool(spool.folder)
    again.truncate(0)
    log(again, "loss", range(2))
    Shipper(again, database).ship()
    assert stored(database, "loss")["steps"] == [0, 1]


def test_half_a_point_of_a_killed_process_does_no_harm(spool: Spool, database: Any) -> None:
    log(spool, "loss", range(4))
    (file,) = (spool.folder / "metrics").iterdir()
    with file.open("ab") as opened:
        opened.write(b"half a po")
    again = Spool(spool.folder)
    again.truncate(4)
    log(again, "loss", range(4, 6))
    Shipper(again, database).ship()
    assert stored(database, "loss")["steps"] == list(range(6))
