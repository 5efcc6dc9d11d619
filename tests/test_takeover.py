"""A run that goes on: what it takes from the store, and what it forgets."""

import logging
from pathlib import Path
from typing import Any

import gridfs
import mongomock
import mongomock.gridfs
import pytest
from commands import wait_until
from sacred import Experiment
from sacred.run import Run
from test_carried import a_run, entry, log, stored_run

from store.observer import SpoolingObserver
from store.replay import replay
from store.shipper import MOST_POINTS, Shipper, TakenOverError
from store.spool import REWRITE
from store.takeover import SpoolError, take_up

mongomock.gridfs.enable_gridfs_integration()


@pytest.fixture
def database() -> Any:
    return mongomock.MongoClient().sacred


def test_a_spool_is_made_from_the_store(tmp_path: Path, database: Any) -> None:
    first, shipper = a_run(tmp_path / "a", database)
    (tmp_path / "file").write_bytes(b"content")
    first.add_artifact("policy", tmp_path / "file", None, "text/plain")
    first.checkpoints.save(8, {"number": 8})
    shipper.ship()
    found = stored_run(database)
    second, checkpoint, mark = take_up(tmp_path / "b", database, found)
    assert checkpoint == (8, {"number": 8})
    assert stored_run(database)["spool"] == mark
    assert second.metrics() == first.metrics()
    assert (second.points("loss") == first.points("loss")).all()
    assert [(each.name, each.id) for each in second.artifacts()] == [
        (each.name, each.id) for each in first.artifacts()
    ]
    assert second.waiting_artifacts() == []
    second.truncate(8)
    log(second, range(8, 12))
    second.put_run(entry(spool=mark))
    Shipper(second, database).ship()
    assert database.metrics.find_one({"name": "loss"})["steps"] == list(range(12))
    (artifact,) = stored_run(database)["artifacts"]
    assert gridfs.GridFS(database).get(artifact["file_id"]).read() == b"content"
    with pytest.raises(TakenOverError):
        shipper.ship()
    first.release()
    assert replay(first, database)
    assert first.folder.exists()
    assert database.metrics.find_one({"name": "loss"})["steps"] == list(range(12))


def test_after_work_elsewhere_the_stores_checkpoint_counts(tmp_path: Path, database: Any) -> None:
    """Also if the one that was left here is newer: what it stands on is not in the store."""
    first, shipper = a_run(tmp_path / "a", database)
    first.checkpoints.save(4, {"number": 4})
    shipper.ship()
    first.checkpoints.save(9, {"number": 9})
    second, _, mark = take_up(tmp_path / "b", database, stored_run(database))
    second.put_run(entry(spool=mark))
    first.release()
    again, checkpoint, _ = take_up(tmp_path / "a", database, stored_run(database))
    assert checkpoint == (4, {"number": 4})
    assert again.checkpoints.numbers() == [4]


def test_on_the_same_machine_the_newest_counts(tmp_path: Path, database: Any) -> None:
    first, shipper = a_run(tmp_path, database)
    first.checkpoints.save(4, {"number": 4})
    shipper.ship()
    first.checkpoints.save(9, {"number": 9})
    first.release()
    _, checkpoint, _ = take_up(tmp_path, database, stored_run(database))
    assert checkpoint == (9, {"number": 9})
    assert stored_run(database)["spool"]["id"] == first.run()[0]["spool"]["id"]


def test_with_a_full_disk_the_stores_may_be_newer(tmp_path: Path, database: Any) -> None:
    first, shipper = a_run(tmp_path, database)
    first.checkpoints.save(4, {"number": 4})
    first.checkpoints.hold(9, {"number": 9})
    shipper.ship()
    first.release()
    again, checkpoint, _ = take_up(tmp_path, database, stored_run(database))
    assert checkpoint == (9, {"number": 9})
    assert again.checkpoints.numbers() == [9]


def test_without_a_whole_checkpoint_anywhere_nothing_is_changed(
    tmp_path: Path, database: Any
) -> None:
    first, shipper = a_run(tmp_path / "a", database)
    first.checkpoints.save(4, {"number": 4})
    shipper.ship()
    database.fs.chunks.delete_many({})
    before = stored_run(database)
    with pytest.raises(SpoolError, match="no whole checkpoint in the store"):
        take_up(tmp_path / "b", database, before)
    assert stored_run(database) == before
    assert list((tmp_path / "b").iterdir()) == []


def test_only_one_process_takes_up_a_run(tmp_path: Path, database: Any) -> None:
    first, shipper = a_run(tmp_path / "a", database)
    first.checkpoints.save(4, {"number": 4})
    shipper.ship()
    seen = stored_run(database)
    take_up(tmp_path / "b", database, seen)
    with pytest.raises(SpoolError, match="is being resumed by another process"):
        take_up(tmp_path / "c", database, seen)


def test_of_a_thinned_metric_it_is_said(
    tmp_path: Path, database: Any, caplog: pytest.LogCaptureFixture
) -> None:
    first, shipper = a_run(tmp_path / "a", database, points=MOST_POINTS + 10)
    first.checkpoints.save(4, {"number": 4})
    shipper.ship()
    with caplog.at_level(logging.WARNING):
        second, _, _ = take_up(tmp_path / "b", database, stored_run(database))
    assert "only every second value, or fewer, is left: loss" in caplog.text
    assert second.points("loss", 0, 3)["step"].tolist() == [0, 2, 4]


def test_all_is_rewritten_that_a_run_forgets_as_it_goes_on(
    tmp_path: Path, database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has forgotten before the store is asked for anything."""
    first, shipper = a_run(tmp_path / "a", database)
    first.checkpoints.save(8, {"number": 8})
    shipper.ship()
    observer = SpoolingObserver(lambda: database, tmp_path / "b", resume=1)
    known = list[int]()
    ask = Shipper._ask_what_is_there

    def asking(shipper: Shipper, names: dict[str, str]) -> None:
        known.append(observer.spool.shipped_points("loss"))
        ask(shipper, names)

    monkeypatch.setattr(Shipper, "_ask_what_is_there", asking)
    experiment = Experiment("late", interactive=True, save_git_info=False)
    experiment.observers.append(observer)

    @experiment.main
    def run(_run: Run) -> None:
        wait_until(lambda: known, "the store's thread")
        assert observer.go_on() == {"number": 8}
        for step in range(8, 12):
            _run.log_scalar("loss", step / 8, step)

    experiment.run()
    assert known[0] == REWRITE
    assert database.metrics.find_one({"name": "loss"})["steps"] == list(range(12))
