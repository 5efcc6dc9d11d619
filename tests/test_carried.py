"""A run goes on on another machine: another folder for what is kept, and the same store."""

import signal
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import mongomock
import mongomock.gridfs
import pytest
from commands import Command, Place, wait_until
from stores import end_server
from test_resume import Runs, check_equal, digest

from store.carried import KEPT, StoredCheckpoints
from store.checkpoint import CheckpointError, encoded
from store.embedded.start import embedded_url
from store.shipper import Shipper
from store.spool import Spool
from store.takeover import new_mark

mongomock.gridfs.enable_gridfs_integration()
START = datetime(2026, 1, 2, 3, 4, 5, 678000)
REPLAY = "store/replay.py"


# --- real runs


class Machines(Runs):
    """Runs from several folders, as if each were another machine."""

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        place.env["MONGO_URL"] = embedded_url(self.file)

    def move(self, name: str) -> None:
        """What starts from now on starts on that machine."""
        self.place.env["EVO_RUNS"] = str(self.place.folder / name)

    def carried(self, run_id: int) -> list[int]:
        """The generations of the checkpoints in the store, ascending."""
        found = self.db.fs.files.find({"filename": f"checkpoint://runs/{run_id}"})
        return sorted(each["metadata"]["generation"] for each in found)

    def kill_when_carried(self, command: Command, after: int) -> int:
        """Kill a head when the store has two later checkpoints; returns the newest one's."""
        run_id = self.id_of(command)

        def carried() -> bool:
            assert command.process.poll() is None, command
            return sum(each > after for each in self.carried(run_id)) == KEPT

        wait_until(carried, command)
        command.send(signal.SIGKILL)
        command.end()
        return self.carried(run_id)[-1]


@pytest.fixture
def machines() -> Iterator[Machines]:
    with Place(store=True) as place:
        made = Machines(place)
        yield made
        made.client.close()
        end_server(made.file)


@pytest.mark.slow
def test_a106_a_killed_run_goes_on_on_another_machine(machines: Machines) -> None:
    config = {"num_generations": 800, "checkpoint_every": 0.1}
    reference = machines.start(**config)
    expected = digest(reference.succeed())
    killed = machines.start(**config)
    run_id = machines.id_of(killed)
    machines.kill_when_carried(killed, -1)
    machines.move("elsewhere")
    resumed = machines.resume(run_id)
    assert digest(resumed.succeed()) == expected
    assert f"run {run_id} goes on from what the store has of it" in resumed.err
    check_equal(machines, machines.id_of(reference), run_id)
    assert machines.carried(run_id) == []
    files = {each["_id"] for each in machines.db.fs.files.find({"filename": {"$regex": "^ar"}})}
    noted = [each["artifacts"] for each in machines.db.runs.find({})]
    assert files == {each["file_id"] for artifacts in noted for each in artifacts}
    chunks = set(machines.db.fs.chunks.distinct("files_id"))
    assert chunks <= set(machines.db.fs.files.distinct("_id"))
    # what lies on the first machine is out of date, and does no harm
    machines.place.env["EVO_RUNS"] = str(machines.place.runs)
    said = machines.place.start(REPLAY)
    said.succeed()
    assert f"run {run_id} has gone on elsewhere" in said.err
    check_equal(machines, machines.id_of(reference), run_id)


@pytest.mark.slow
def test_a106_a_run_goes_back_and_forth_between_machines(machines: Machines) -> None:
    config = {"num_generations": 1500, "checkpoint_every": 0.1}
    reference = machines.start(**config)
    expected = digest(reference.succeed())
    machines.move("machine 0")
    head = machines.start(**config)
    run_id, reached = machines.id_of(head), -1
    for number in (1, 2, 3, 4):
        reached = machines.kill_when_carried(head, reached)
        machines.move(f"machine {number % 2}")
        head = machines.resume(run_id)
    assert digest(head.succeed()) == expected
    check_equal(machines, machines.id_of(reference), run_id)
    assert machines.carried(run_id) == []


@pytest.mark.slow
def test_a_damaged_checkpoint_of_the_store_is_passed_over(machines: Machines) -> None:
    config = {"num_generations": 800, "checkpoint_every": 0.1}
    expected = digest(machines.start(**config).succeed())
    killed = machines.start(**config)
    run_id = machines.id_of(killed)
    newest = machines.kill_when_carried(killed, -1)
    file = machines.db.fs.files.find_one({"metadata.generation": newest})
    chunk = machines.db.fs.chunks.find_one({"files_id": file["_id"], "n": 0})
    data = bytes(chunk["data"])
    damaged = data[:200] + bytes([data[200] ^ 1]) + data[201:]
    machines.db.fs.chunks.update_one({"_id": chunk["_id"]}, {"$set": {"data": damaged}})
    machines.move("elsewhere")
    resumed = machines.resume(run_id)
    assert digest(resumed.succeed()) == expected
    assert f"the store's checkpoint of generation {newest} is damaged" in resumed.err


@pytest.mark.slow
def test_a_head_that_was_thought_dead_ends(machines: Machines) -> None:
    """It was stopped, as a laptop is that sleeps, and the run has gone on elsewhere since."""
    head = machines.start(num_generations=100_000, checkpoint_every=0.1)
    run_id = machines.id_of(head)
    wait_until(lambda: machines.carried(run_id), head)
    head.send(signal.SIGSTOP)
    long_ago = datetime.utcnow() - timedelta(minutes=5)
    change = {"heartbeat": long_ago, "spool.host": "elsewhere", "info.head.host": "elsewhere"}
    machines.db.runs.update_one({"_id": run_id}, {"$set": change})
    machines.move("elsewhere")
    other = machines.resume(run_id)
    other.says("goes on from what the store has")
    machines.id_of(other)
    head.send(signal.SIGCONT)
    assert head.end() == 1
    assert f"run {run_id} has gone on elsewhere" in head.err
    assert "Traceback" not in head.err
    assert other.process.poll() is None
    mark = machines.db.runs.find_one({"_id": run_id})["spool"]
    assert mark["folder"] == f"{machines.place.folder}/elsewhere/spool"
    other.send(signal.SIGKILL)


@pytest.mark.slow
def test_of_two_folders_of_one_machine_one_is_at_work(machines: Machines) -> None:
    head = machines.start(num_generations=100_000, checkpoint_every=0.1)
    run_id = machines.id_of(head)
    wait_until(lambda: machines.carried(run_id), head)
    machines.move("elsewhere")
    refused = machines.resume(run_id)
    assert refused.end() == 1
    assert f"run {run_id} is at work, in another process of this machine" in refused.err
    assert "Traceback" not in refused.err
    assert not (machines.place.folder / "elsewhere" / "spool").exists()
    head.send(signal.SIGKILL)


# --- checkpoints in a store


@pytest.fixture
def database() -> Any:
    return mongomock.MongoClient().sacred


def entry(**changes: Any) -> dict[str, Any]:
    changed = {"_id": 1, "start_time": START, "info": {}, "status": "RUNNING", "artifacts": []}
    return changed | changes


def a_run(spools: Path, database: Any, points: int = 10) -> tuple[Spool, Shipper]:
    """A run that has logged a metric, in its spool."""
    spool = Spool(spools / "sacred-1-20260102T030405")
    assert spool.take()
    log(spool, range(points))
    spool.put_run(entry(spool=new_mark(spools)))
    return spool, Shipper(spool, database)


def log(spool: Spool, steps: range) -> None:
    times = [START + timedelta(seconds=step) for step in steps]
    spool.add_points("loss", steps, [step / 8 for step in steps], times)


def stored_run(database: Any) -> dict[str, Any]:
    return database.runs.find_one({"_id": 1})


def test_the_newest_two_are_kept_and_read(database: Any) -> None:
    stored = StoredCheckpoints(database, entry())
    for number in (3, 7, 20, 21, 50):
        assert stored.wants(number)
        stored.send(number, encoded({"number": number}))
        assert not stored.wants(number)
    assert sorted(stored.generations()) == [21, 50]
    assert stored.read(50)[1] == {"number": 50}
    assert StoredCheckpoints(database, entry()).read(21)[1] == {"number": 21}
    assert set(database.fs.chunks.distinct("files_id")) == set(stored.generations().values())
    stored.remove()
    assert database.fs.files.count_documents({}) == 0
    assert database.fs.chunks.count_documents({}) == 0


def test_half_a_checkpoint_of_a_killed_process_is_written_over(database: Any) -> None:
    stored = StoredCheckpoints(database, entry())
    for number in range(4):
        stored.send(number, encoded({"number": number}))
        for free in set(stored._places) - set(stored.generations().values()):
            half = {"files_id": free, "n": 0}
            database.fs.chunks.update_one(half, {"$set": {"data": b"half"}}, upsert=True)
    assert stored.read(3)[1] == {"number": 3}
    assert stored.read(2)[1] == {"number": 2}


def test_those_of_an_earlier_run_of_that_id_are_none(database: Any) -> None:
    StoredCheckpoints(database, entry(start_time=datetime(2020, 1, 1))).send(9, encoded({}))
    stored = StoredCheckpoints(database, entry())
    assert stored.generations() == {}
    assert stored.wants(0)


@pytest.mark.parametrize("damage", ["chunk lost", "byte changed", "cut", "no sha256"])
def test_a_damaged_one_is_noticed(damage: str, database: Any) -> None:
    stored = StoredCheckpoints(database, entry())
    stored.send(5, encoded({"number": 5}))
    chunks, files = database.fs.chunks, database.fs.files
    data = bytes(chunks.find_one({})["data"])
    if damage == "chunk lost":
        chunks.delete_many({})
    elif damage == "no sha256":
        files.update_one({}, {"$unset": {"metadata.sha256": ""}})
    else:
        changed = data[:-1] if damage == "cut" else data[:50] + b"\xff\xff" + data[52:]
        chunks.update_one({}, {"$set": {"data": changed}})
    with pytest.raises(CheckpointError, match="the store's checkpoint of generation 5 is damaged"):
        stored.read(5)


def test_large_ones_are_sent_seldom(tmp_path: Path, database: Any) -> None:
    spool, shipper = a_run(tmp_path, database)
    spool.checkpoints.save(1, {"number": 1})
    shipper.ship()
    stored = shipper._checkpoints
    assert stored is not None
    assert sorted(stored.generations()) == [1]
    stored._not_before = float("inf")  # as after one that took very long
    spool.checkpoints.save(2, {"number": 2})
    shipper.ship()
    assert sorted(stored.generations()) == [1]
    shipper.ship(last=True)
    assert sorted(stored.generations()) == [1, 2]


def test_a_complete_run_leaves_none(tmp_path: Path, database: Any) -> None:
    spool, shipper = a_run(tmp_path, database)
    spool.checkpoints.save(1, {"number": 1})
    shipper.ship()
    spool.put_run(spool.run()[0] | {"status": "COMPLETED"})
    shipper.ship(last=True)
    assert database.fs.files.count_documents({}) == 0
