"""A run whose head died goes on to the same end, as often as it takes."""

import contextlib
import os
import random
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import mongomock
import pytest
from commands import EXPERIMENT, Command, Place, setting, wait_until
from stores import connect, end_server

from store.embedded.start import embedded_url
from store.resume import ResumeError, run_to_resume

KILLS = int(os.environ.get("EVO_KILLS", "12"))  # of one run; `make nemesis` takes 30
SHORT = {"eval_episodes": 2, "final_episodes": 3, "evaluator": "local", "seed": 3}
# They tell how long something took, which nobody can repeat.
OF_THE_CLOCK = {
    *("time per gen", "total time elapsed", "time_to_eval", "steps/s"),
    "total core-seconds",
}


class Runs:
    """The runs of a place, and what its store has of them."""

    def __init__(self, place: Place) -> None:
        self.place, self.file = place, place.runs / "store.sqlite"
        self.client: Any = connect(embedded_url(self.file))
        self.db = self.client.sacred

    def start(self, **config: object) -> Command:
        return self.place.start(EXPERIMENT, "with", "sphere", *setting(**SHORT, **config))

    def resume(self, run_id: int) -> Command:
        return self.place.start(EXPERIMENT, "resume", "with", f"run_id={run_id}")

    def id_of(self, command: Command) -> int:
        """The id of the run that a process has begun."""
        pattern = r'Started run with ID "(\d+)"'
        match = wait_until(lambda: re.search(pattern, command.err), command)
        return int(match[1])

    def metrics(self, run_id: int) -> dict[str, Any]:
        """Steps and values of what does not depend on the clock."""
        return {
            metric["name"]: (metric["steps"], metric["values"])
            for metric in self.db.metrics.find({"run_id": run_id})
            if metric["name"] not in OF_THE_CLOCK
        }

    def checkpoints(self, run_id: int) -> list[Path]:
        """Of one run, oldest first."""
        return sorted(self.place.runs.glob(f"spool/sacred-{run_id}-*/checkpoints/*.npz"))

    def kill_when_checkpointed(self, command: Command) -> int:
        """Kill a head when it has more than one checkpoint; returns its run's id."""
        run_id = self.id_of(command)
        wait_until(lambda: len(self.checkpoints(run_id)) > 1, command)
        command.send(signal.SIGKILL)
        command.end()
        return run_id


@pytest.fixture
def runs() -> Iterator[Runs]:
    with Place(store=True) as place:
        made = Runs(place)
        yield made
        made.client.close()
        end_server(made.file)


def digest(printed: str) -> str:
    return printed.partition("theta sha256 ")[2].strip()


def check_equal(runs: Runs, one: int, other: int) -> None:
    """The same metrics, without a gap or a repeat, and the same policies."""
    expected, found = runs.metrics(one), runs.metrics(other)
    assert list(found) == list(expected)
    for name, values in expected.items():
        assert found[name] == values, name
    first, second = (runs.db.runs.find_one({"_id": run_id}) for run_id in (one, other))
    assert second["status"] == "COMPLETED"
    assert {**first["info"]["policies"], **second["info"]["policies"]} == second["info"]["policies"]
    names = {each["name"] for each in second["artifacts"]}
    assert names >= {each["name"] for each in first["artifacts"]}


@pytest.mark.slow
def test_a106_a_killed_run_goes_on_to_the_same_end(runs: Runs) -> None:
    config = {"num_generations": 300, "checkpoint_every": 0.1}
    reference = runs.start(**config)
    killed = runs.start(**config)
    run_id = runs.kill_when_checkpointed(killed)
    expected = digest(reference.succeed())
    (_, newest) = runs.checkpoints(run_id)
    newest.write_bytes(newest.read_bytes()[:-100])
    resumed = runs.resume(run_id)
    assert digest(resumed.succeed()) == expected
    assert f"{newest.name} is damaged" in resumed.err
    assert runs.id_of(resumed) == run_id
    check_equal(runs, runs.id_of(reference), run_id)
    console = runs.db.runs.find_one({"_id": run_id})["captured_out"]
    assert console.count("theta sha256") == 1
    assert list(runs.place.runs.glob("spool/*")) == []


@pytest.mark.slow
def test_a082_an_interrupted_run_goes_on(runs: Runs) -> None:
    head = runs.start(num_generations=100_000, checkpoint_every=1000.0)
    head.says("generation 1/")
    head.send(signal.SIGTERM)
    assert head.end() == 128 + signal.SIGTERM
    run = runs.db.runs.find_one({})
    assert run["status"] == "INTERRUPTED"
    (checkpoint,) = runs.checkpoints(run["_id"])  # written at the end, however seldom they are
    again = runs.resume(run["_id"])
    again.says("generation")
    shown = re.search(r"generation (\d+)/", again.out)
    assert shown
    assert int(shown[1]) > int(checkpoint.stem)
    twice = runs.resume(run["_id"])
    assert twice.end() == 1
    assert "is at work" in twice.err
    assert "Traceback" not in twice.err
    again.send(signal.SIGINT)
    again.end()
    runs.place.env["EVO_RUNS"] = str(runs.place.folder / "elsewhere")
    runs.place.env["MONGO_URL"] = embedded_url(runs.file)
    runs.db.fs.files.delete_many({"filename": f"checkpoint://runs/{run['_id']}"})
    elsewhere = runs.resume(run["_id"])
    assert elsewhere.end() == 1
    assert "no checkpoint in the store: resume it on the machine" in elsewhere.err
    assert "Traceback" not in elsewhere.err
    assert runs.db.runs.find_one({})["status"] == "INTERRUPTED"


@pytest.mark.slow
def test_a106_many_kills_at_any_moment(runs: Runs) -> None:
    rng = random.Random(7)
    config = {"num_generations": 60 * KILLS, "checkpoint_every": 0.1}
    reference = runs.start(**config)
    expected = digest(reference.succeed())
    head = runs.start(**config)
    run_id = runs.id_of(head)
    kills = 0
    while kills < KILLS:
        runs.id_of(head)
        with contextlib.suppress(subprocess.TimeoutExpired):
            head.process.wait(rng.uniform(0.0, 1.2))
        if head.process.poll() is None:
            head.send(signal.SIGKILL)
        if head.end() == 0:
            break
        kills += 1
        head = runs.resume(run_id)
    assert digest(head.succeed()) == expected
    check_equal(runs, runs.id_of(reference), run_id)


# --- what cannot be resumed


@pytest.fixture
def database() -> Any:
    made = mongomock.MongoClient().sacred
    beat = datetime.utcnow()
    for run_id, changes in enumerate(
        (
            {"status": "COMPLETED"},
            {"status": "INTERRUPTED"},
            {"status": "RUNNING", "host": "elsewhere", "heartbeat": beat},
            {"status": "RUNNING", "host": "elsewhere", "heartbeat": beat - timedelta(minutes=2)},
            {"status": "RUNNING", "host": socket.gethostname(), "pid": os.getppid()},
            {"status": "FAILED", "name": "GA"},
        ),
        start=1,
    ):
        known = {"pid": 1, "host": "h", "heartbeat": beat, "name": "ES", **changes}
        made.runs.insert_one(
            {
                "_id": run_id,
                "status": known["status"],
                "experiment": {"name": known["name"]},
                "heartbeat": known["heartbeat"],
                "info": {"head": {"host": known["host"], "pid": known["pid"]}},
                "config": {"seed": 4, "lr": 0.1, "num_workers": None, "__doc__": "a lander"},
            }
        )
    return made


@pytest.mark.parametrize(
    ("updates", "words"),
    [
        ({"run_id": 99}, "no run 99 in the store. The newest are 6, 5, 4, 3, 2"),
        ({}, "say 'resume with run_id=NUMBER'"),
        ({"run_id": "last"}, "run_id='last'"),
        ({"run_id": 1}, "run 1 is complete; begin a new one with load_from=1"),
        ({"run_id": 3}, "run 3 is at work: process 1 on elsewhere"),
        ({"run_id": 6}, "run 6 is of experiment GA, this is ES"),
        ({"run_id": 2, "lr": 0.5}, "lr cannot be changed when a run is resumed"),
    ],
)
def test_a007_what_cannot_be_resumed(updates: dict, words: str, database: Any) -> None:
    with pytest.raises(ResumeError, match=re.escape(words)):
        run_to_resume(database, updates, "ES")


@pytest.mark.parametrize("run_id", [2, 4, 5])  # of 5 the lock decides
def test_the_config_is_the_runs_own(run_id: int, database: Any) -> None:
    found = run_to_resume(database, {"run_id": run_id, "num_workers": 7}, "ES")
    assert found == (run_id, {"seed": 4, "lr": 0.1, "num_workers": 7})


def test_in_an_empty_store_there_is_nothing_to_resume() -> None:
    with pytest.raises(ResumeError, match="There are none yet"):
        run_to_resume(mongomock.MongoClient().sacred, {"run_id": 1}, "ES")
