"""Sacred's own observer, GridFS and incense on every kind of store."""

import io
import threading
from pathlib import Path
from typing import Any

import bson
import gridfs
import numpy as np
import pytest
from sacred import SETTINGS, Experiment
from sacred.observers import MongoObserver
from stores import TestDatabase

POINTS = 400


def experiment(database: TestDatabase) -> Experiment:
    ex = Experiment("stored", save_git_info=False, interactive=True)
    ex.observers.append(MongoObserver(client=database.client, db_name=database.name))
    return ex


@pytest.fixture
def stored(database: TestDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TestDatabase:
    """A database with one run in it."""
    monkeypatch.setattr(SETTINGS, "CAPTURE_MODE", "sys")
    ex = experiment(database)
    artifact = tmp_path / "policy.bin"
    artifact.write_bytes(bytes(range(256)) * 3000)

    @ex.config
    def config() -> None:
        lr = 0.1  # noqa: F841
        layers = [8, 4]  # noqa: F841

    @ex.main
    def main(_run: Any) -> float:
        for step in range(POINTS):
            _run.log_scalar("loss", 1 / (step + 1), step)
            _run.log_scalar("val.reward", float(step), 2 * step)
            if step == POINTS // 2:
                _run._emit_heartbeat()
        _run.info["theta"] = {"norm": 2.5}
        _run.add_artifact(str(artifact))
        print("said this")  # noqa: T201
        return 0.25

    ex.run()
    return database


def test_a_run_of_sacreds_observer(stored: TestDatabase) -> None:
    run = stored.runs.find_one()
    assert run is not None
    assert (run["_id"], run["status"], run["result"]) == (1, "COMPLETED", 0.25)
    assert run["config"]["layers"] == [8, 4]
    assert "said this" in run["captured_out"]
    assert run["info"]["theta"] == {"norm": 2.5}
    assert {m["name"] for m in run["info"]["metrics"]} == {"loss", "val.reward"}
    for noted in run["info"]["metrics"]:
        found = stored.metrics.find_one({"_id": bson.ObjectId(noted["id"])})
        assert found is not None
        assert (found["run_id"], found["name"]) == (1, noted["name"])
        assert len(found["values"]) == len(found["timestamps"]) == POINTS
    loss = stored.metrics.find_one({"run_id": 1, "name": "loss"})
    assert loss is not None
    assert loss["steps"] == list(range(POINTS))
    assert np.allclose(loss["values"], 1 / np.arange(1, POINTS + 1))
    (artifact,) = run["artifacts"]
    assert artifact["name"] == "policy.bin"
    data = gridfs.GridFS(stored).get(artifact["file_id"]).read()
    assert data == bytes(range(256)) * 3000


def test_incense_reads_the_run_back(stored: TestDatabase, store_address: str) -> None:
    incense = pytest.importorskip("incense", reason="incense is not installed")
    loader = incense.ExperimentLoader(store_address, stored.name)
    run = loader.find_by_id(1)
    assert (run.status, run.config.lr, run.result) == ("COMPLETED", 0.1, 0.25)
    assert np.allclose(run.metrics["loss"].to_numpy(), 1 / np.arange(1, POINTS + 1))
    assert [each.id for each in loader.find_by_name("stored")] == [1]
    assert [each.id for each in loader.find({"config.lr": {"$lt": 1}})] == [1]
    assert run.artifacts["policy.bin"].file.read() == bytes(range(256)) * 3000


def test_simultaneous_starts_get_ids_of_their_own(database: TestDatabase) -> None:
    barrier, ids, count = threading.Barrier(8), list[int](), 8

    def start() -> None:
        observer = MongoObserver(client=database.client, db_name=database.name)
        barrier.wait()
        info = {"name": "n", "sources": [], "base_dir": ".", "dependencies": []}
        now = bson.ObjectId().generation_time
        ids.append(observer.started_event(info, "main", {}, now, {}, {}, None))

    threads = [threading.Thread(target=start) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ids) == list(range(1, count + 1))
    assert sorted(database.runs.distinct("_id")) == sorted(ids)


def test_a_failed_run_is_told(database: TestDatabase) -> None:
    ex = experiment(database)

    @ex.main
    def main() -> None:
        raise ArithmeticError("no")

    with pytest.raises(ArithmeticError):
        ex.run()
    run = database.runs.find_one()
    assert run is not None
    assert run["status"] == "FAILED"
    assert "ArithmeticError: no\n" in run["fail_trace"]


@pytest.mark.parametrize("size", [0, 1, 255 * 1024, 2_000_000])
def test_files_come_back(database: TestDatabase, size: int) -> None:
    data = np.random.default_rng(size).bytes(size)
    files = gridfs.GridFSBucket(database)
    for version in range(2):
        identity = files.upload_from_stream("a/b.bin", data, metadata={"version": version})
    files.upload_from_stream("a/c.bin", b"other")
    out = io.BytesIO()
    files.download_to_stream_by_name("a/b.bin", out)
    assert out.getvalue() == data
    with files.open_download_stream(identity) as stream:
        assert (stream.length, stream.metadata) == (size, {"version": 1})
        stream.seek(size // 2)
        assert stream.read() == data[size // 2 :]
    assert gridfs.GridFS(database).list() == ["a/b.bin", "a/c.bin"]
    files.rename(identity, "a/d.bin")
    files.delete(identity)
    assert database["fs.chunks"].count_documents({"files_id": identity}) == 0
    assert sorted(d["filename"] for d in database["fs.files"].find()) == ["a/b.bin", "a/c.bin"]
