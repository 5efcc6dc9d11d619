"""A store that goes away while a run is at work: nothing is lost, nobody waits."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from commands import EXPERIMENT, ROOT, Command, Place, record, setting, wait_until
from stores import connect, end_server

from store.embedded.note import read_note, running_server
from store.embedded.start import embedded_url
from store.experiment import LEFT_BEHIND

pytestmark = pytest.mark.slow  # each waits until somebody notices
CONFIG = {"eval_episodes": 2, "final_episodes": 3, "evaluator": "local", "seed": 3}
REPLAY = "store/replay.py"


class Scene:
    """A run whose store can be killed, and started again at the same address."""

    def __init__(self, place: Place) -> None:
        self.place, self.file = place, place.runs / "store.sqlite"
        self.url = embedded_url(self.file)

    def start(self, generations: int) -> Command:
        """Start a run that knows the store by its address alone, and so cannot start it again."""
        self.place.env["MONGO_URL"] = self.url
        config = setting(**CONFIG, num_generations=generations)
        return self.place.start(EXPERIMENT, "with", "sphere", *config)

    def kill(self) -> None:
        end_server(self.file, signal.SIGKILL)

    def revive(self) -> None:
        assert embedded_url(self.file) == self.url

    def check(self, generations: int) -> None:
        """All values and all policies are in the store."""
        with connect(self.url) as client:
            run = client.sacred.runs.find_one({})
            assert run["status"] == "COMPLETED"
            metrics = {each["name"]: each for each in client.sacred.metrics.find({"run_id": 1})}
            assert metrics.pop("current fitness")["steps"] == list(range(generations + 1))
            assert metrics.pop("current fitness ci")["steps"] == list(range(generations + 1))
            for name, metric in metrics.items():
                assert metric["steps"] == list(range(generations)), name
            files = [each["file_id"] for each in run["artifacts"]]
            assert len(files) == len(run["info"]["policies"])
            assert client.sacred.fs.files.count_documents({"_id": {"$in": files}}) == len(files)
        assert list(self.place.runs.glob("spool/*")) == []


@pytest.fixture
def scene() -> Iterator[Scene]:
    with Place(store=True) as place:
        made = Scene(place)
        yield made
        end_server(made.file)


def test_a105_a_store_that_comes_back_gets_everything(scene: Scene) -> None:
    head = scene.start(1500)
    head.says("generation 1/")
    scene.kill()
    wait_until(lambda: "the store is away" in head.err, head)
    assert head.process.poll() is None
    scene.revive()
    head.succeed()
    assert "the store is back and has everything" in head.err
    scene.check(1500)


def test_a105_the_embedded_store_is_started_again_by_the_run(scene: Scene) -> None:
    config = setting(**CONFIG, num_generations=1500)
    head = scene.place.start(EXPERIMENT, "with", "sphere", *config)
    head.says("generation 1/")
    before = running_server(scene.file)
    scene.kill()
    head.succeed()
    after = read_note(scene.file)
    assert before
    assert after
    assert before.pid != after.pid
    scene.check(1500)


def test_a105_what_a_lost_store_missed_is_replayed(scene: Scene) -> None:
    head = scene.start(600)
    head.says("generation 1/")
    scene.kill()
    assert head.end() == LEFT_BEHIND
    assert "theta sha256" in head.out
    assert "python -m store.replay" in head.err
    (spool,) = scene.place.runs.glob("spool/*")
    assert str(spool) in head.err
    assert "python -m store.replay" not in head.out
    failed = scene.place.start(REPLAY)
    assert failed.end() == 1
    assert spool.exists()
    scene.revive()
    scene.place.run(REPLAY)
    scene.check(600)


def test_a005_without_a_store_the_way_out_is_told(scene: Scene) -> None:
    scene.kill()
    head = scene.start(5)
    assert head.end() == 1
    assert "no MongoDB answers at" in head.err
    assert "unset MONGO_URL to use the embedded store" in head.err
    assert "Traceback" not in head.err
    assert scene.url.partition("@")[0].rpartition(":")[2] not in head.err  # the password
    assert "'docker compose up -d' in the folder sacred/" in head.err
    assert "with '-F FOLDER' the run is kept in files" in head.err
    assert len([line for line in head.err.splitlines() if "no MongoDB" in line]) == 1


def test_a005_without_a_store_a_run_goes_into_files_when_asked(scene: Scene) -> None:
    scene.kill()
    scene.place.env["MONGO_URL"] = scene.url
    folder = scene.place.folder / "files"
    config = setting(**CONFIG, num_generations=5)
    head = scene.place.start(EXPERIMENT, "with", "sphere", *config, "-F", str(folder))
    assert "theta sha256" in head.succeed()
    assert record(folder / "1", "run")["status"] == "COMPLETED"
    assert record(folder / "1", "metrics")["current fitness"]["steps"] == list(range(6))
    assert (folder / "1" / "Policy_ep_5.model").exists()
    assert list(scene.place.runs.glob("spool/*")) == []


def test_replay_lists_what_there_is(scene: Scene) -> None:
    head = scene.start(100_000)
    head.says("generation 1/")
    assert " (RUNNING): " in scene.place.run(REPLAY, "--list")
    scene.place.run(REPLAY)  # leaves alone what is being written to
    head.send(signal.SIGKILL)
    head.end()
    scene.place.run(REPLAY)
    assert " 0 values, 0 files to send" in scene.place.run(REPLAY, "--list")


def test_the_loop_does_not_wait_for_a_store_that_hangs(scene: Scene) -> None:
    """A stopped process keeps its connections open and says nothing."""
    head = scene.start(1500)
    head.says("generation 1/")
    server = running_server(scene.file)
    assert server
    os.kill(server.pid, signal.SIGSTOP)
    try:
        head.says("theta sha256")
    finally:
        os.kill(server.pid, signal.SIGCONT)
    head.succeed()
    with connect(scene.url) as client:
        seconds: Any = client.sacred.metrics.find_one({"name": "time per gen"})
    assert len(seconds["values"]) == 1500
    scene.check(1500)


def test_the_module_can_be_run_by_name(scene: Scene) -> None:
    command = [sys.executable, "-m", "store.replay", "--list"]
    env = scene.place.env | {"PYTHONPATH": str(ROOT)}
    subprocess.run(command, check=True, env=env, cwd=scene.place.folder)
