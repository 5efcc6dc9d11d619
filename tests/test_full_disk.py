"""A run whose disk becomes full goes on; what the store or the memory can hold is not lost."""

import contextlib
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import EXPERIMENT, Command, Place, setting, wait_until
from stores import connect, end_server
from test_disk import fill, small_disk

from store.embedded.start import embedded_url
from store.experiment import LEFT_BEHIND

pytestmark = pytest.mark.slow
CONFIG = {"eval_episodes": 2, "final_episodes": 3, "evaluator": "local", "seed": 3}
CONFIG |= {"checkpoint_every": 0.1, "num_serializations": 100}
REFUSED, WRITTEN = "cannot be written to: ", "can be written to again, and has everything"


class Scene:
    """A run whose folder is on a small disk, and its store on a large one."""

    def __init__(self, place: Place, disk: Path, large: Path) -> None:
        self.place, self.disk, self.file = place, disk, large / "store.sqlite"
        place.env |= {"EVO_RUNS": str(disk), "MONGO_URL": embedded_url(self.file)}

    def start(self, generations: int) -> Command:
        config = setting(**CONFIG, num_generations=generations)
        return self.place.start(EXPERIMENT, "with", "sphere", *config)

    def fill_in_mid_run(self, head: Command) -> Path:
        """Fill the disk of a run that has written a checkpoint, and wait until it says so."""
        wait_until(lambda: list(self.disk.glob("spool/*/checkpoints/*.npz")), head)
        filler = fill(self.disk)
        head.says(REFUSED)
        return filler

    def check(self, generations: int) -> None:
        """All values and all policies are in the store."""
        with connect(self.place.env["MONGO_URL"]) as client:
            run: Any = client.sacred.runs.find_one({})
            assert run["status"] == "COMPLETED"
            metrics = {each["name"]: each for each in client.sacred.metrics.find({"run_id": 1})}
            assert metrics["current fitness"]["steps"] == list(range(generations + 1))
            assert metrics["mean fitness"]["steps"] == list(range(generations))
            files = [each["file_id"] for each in run["artifacts"]]
            assert len(files) == len(run["info"]["policies"])
            assert client.sacred.fs.files.count_documents({"_id": {"$in": files}}) == len(files)


@pytest.fixture
def scene() -> Iterator[Scene]:
    large = Path(tempfile.mkdtemp(prefix="evo-large-", dir="/tmp"))
    with Place(store=True) as place, small_disk(place.folder / "disk", "16m") as disk:
        made = Scene(place, disk, large)
        yield made
        end_server(made.file)
    shutil.rmtree(large)


def test_a105_a_run_goes_on_while_its_disk_is_full(scene: Scene) -> None:
    head = scene.start(800)
    filler = scene.fill_in_mid_run(head)
    head.says("no checkpoint is written: ")
    filler.unlink()
    head.says(WRITTEN)
    head.says("checkpoints are written again")
    assert "theta sha256" in head.succeed()
    assert head.err.count(REFUSED) == head.err.count(WRITTEN) == 1
    assert "Traceback" not in head.err
    scene.check(800)
    assert list(scene.disk.glob("spool/*")) == []


def test_a105_a_disk_that_stays_full_is_done_without(scene: Scene) -> None:
    head = scene.start(300)
    scene.fill_in_mid_run(head)
    assert "theta sha256" in head.succeed()
    assert head.err.count(REFUSED) == 1
    scene.check(300)


def test_a105_a_killed_run_goes_on_from_the_store_if_its_disk_was_full(scene: Scene) -> None:
    """It begins from a checkpoint that only the store had room for."""
    head = scene.start(1000)
    filler = scene.fill_in_mid_run(head)
    on_disk = max(int(each.stem) for each in scene.disk.glob("spool/*/checkpoints/*.npz"))
    with connect(scene.place.env["MONGO_URL"]) as client:
        newer = {"metadata.generation": {"$gt": on_disk}}
        wait_until(lambda: client.sacred.fs.files.count_documents(newer) == 2, head)
    head.send(signal.SIGKILL)
    head.end()
    filler.unlink()
    resumed = scene.place.start(EXPERIMENT, "resume", "with", "run_id=1")
    resumed.succeed()
    assert "run 1 goes on from what the store has of it" in resumed.err
    scene.check(1000)


def test_a105_with_a_full_disk_and_no_store_it_is_told_what_is_lost(scene: Scene) -> None:
    head = scene.start(400)
    scene.fill_in_mid_run(head)
    end_server(scene.file, signal.SIGKILL)
    assert head.end() == LEFT_BEHIND
    assert "theta sha256" in head.out
    assert "lost of run 1 for want of room: " in head.err
    assert "the newest values of" in head.err
    assert "Policy_ep_400.model" in head.err
    assert "Traceback" not in head.err
    with contextlib.suppress(FileNotFoundError):
        (scene.disk / "filler").unlink()
    assert embedded_url(scene.file) == scene.place.env["MONGO_URL"]
    scene.place.run("store/replay.py")
    with connect(scene.place.env["MONGO_URL"]) as client:
        metric: Any = client.sacred.metrics.find_one({"name": "mean fitness"})
        assert metric["steps"] == list(range(len(metric["steps"])))


def test_a_run_does_not_begin_on_a_full_disk(scene: Scene) -> None:
    fill(scene.disk)
    head = scene.start(5)
    assert head.end() == 1
    assert "the run cannot be kept there: No space left on device" in head.err
    assert "Traceback" not in head.err
    with connect(scene.place.env["MONGO_URL"]) as client:
        assert client.sacred.runs.count_documents({}) == 0
