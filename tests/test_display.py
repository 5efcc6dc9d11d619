"""Windows: on a display that is there, and on one that has gone."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from commands import Place, wait_until
from pymongo.database import Database
from stored import CARTPOLE, Script, run_stored, without_display

from env.render import cli
from evolution.playback.show import has_display
from evolution.playback.subject import subject_of_run
from utils.display import missing_display

GONE = ":4242"
WIDTH, HEIGHT = 800, 600
PIXELS = WIDTH * HEIGHT * 4  # bytes that a picture of the screen ends with
MUJOCO = {**CARTPOLE, "env_name": "InvertedPendulum-v5", "hidden_sizes": []}
TASKS = {
    "cartpole": ("cartpole", CARTPOLE),
    "lander": ("lander", {**CARTPOLE, "env_name": "LunarLanderContinuous-v3"}),
    "mujoco": ("sphere", MUJOCO),
}


@pytest.fixture
def no_display(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    without_display(monkeypatch, tmp_path)


class Screen:
    """A display of a test's own, and what is to be seen on it."""

    def __init__(self, folder: Path) -> None:
        """Start its server, in a folder that is there."""
        self._file = folder / "Xvfb_screen0"
        ready, tell = os.pipe()
        words = ["Xvfb", "-displayfd", str(tell), "-nolisten", "tcp", "-fbdir", str(folder)]
        words += ["-screen", "0", f"{WIDTH}x{HEIGHT}x24"]
        self.server = subprocess.Popen(words, pass_fds=[tell], stderr=subprocess.DEVNULL)
        os.close(tell)
        with os.fdopen(ready) as told:
            self.name = f":{told.readline().strip()}"

    def picture(self) -> np.ndarray:
        """All its pixels: uint8[height, width, 4]."""
        return np.frombuffer(self._file.read_bytes()[-PIXELS:], np.uint8).reshape(HEIGHT, WIDTH, 4)

    def end(self) -> None:
        self.server.terminate()
        self.server.wait()


@pytest.fixture(scope="module")
def screen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Screen]:
    if shutil.which("Xvfb") is None:
        pytest.skip("a display is needed: apt-get install xvfb")
    made = Screen(tmp_path_factory.mktemp("screen"))
    yield made
    made.end()


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_a102_a_window_shows_what_happens(
    task: str, screen: Screen, store: Database, tmp_path: Path
) -> None:
    named_config, config = TASKS[task]
    run_id = run_stored(store, named_config, seed=2, **config)
    subject_of_run(store, run_id, None, False).write(tmp_path / "policy.json")
    assert not screen.picture()[..., :3].any()
    with Place() as place:
        place.env["DISPLAY"] = screen.name
        words = ("--num_episodes", "1000", "--sleep", "0.02")
        script = place.start("env/render.py", str(tmp_path / "policy.json"), *words)
        wait_until(lambda: np.count_nonzero(screen.picture()) > PIXELS / 8, script)
        first = screen.picture()
        wait_until(lambda: np.any(screen.picture() != first), script)
        script.says("episode 2: ")
        script.send(signal.SIGINT)
        assert script.end() == 1
        assert "Traceback" not in script.err
        assert list(place.folder.glob("*.mp4")) == []
    wait_until(lambda: not screen.picture()[..., :3].any(), "the window to close")


def test_a_display_that_is_there(
    screen: Screen, no_display: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISPLAY", screen.name)
    for _ in range(20):  # also again at once, when the server might be beginning anew
        assert missing_display() is None
        assert has_display()


def test_no_display(no_display: None) -> None:
    assert missing_display() == "no display here"
    assert not has_display()


def test_a_display_that_has_gone(no_display: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPLAY", GONE)
    assert missing_display() == f"DISPLAY={GONE} does not answer"
    assert not has_display()
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")  # the user knows better
    assert has_display()


def test_a_wayland_display(
    no_display: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("WAYLAND_DISPLAY", "wayland-0")
    assert missing_display() == "WAYLAND_DISPLAY=wayland-0 does not answer"
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as server:
        server.bind("wayland-0")  # in this folder; the whole path may be too long for a bind
        server.listen()
        assert missing_display() is None
    assert missing_display() == "WAYLAND_DISPLAY=wayland-0 does not answer"


def test_a103_a_film_where_the_display_has_gone(
    no_display: None, store: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = run_stored(store, "cartpole", seed=3, **CARTPOLE)
    monkeypatch.setenv("DISPLAY", GONE)
    output = Script(cli, store)(run_id, "--num_episodes", 1)
    assert f"DISPLAY={GONE} does not answer: making the film {run_id}-3.mp4" in output
    assert Path(f"{run_id}-3.mp4").exists()


def test_mujoco_without_a_display_is_told(
    no_display: None, store: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its window library would abort the program; SDL's drivers are of no use to it."""
    run_id = run_stored(store, "sphere", seed=3, **MUJOCO)
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    said = Script(cli, store).refuses(run_id)
    assert "InvertedPendulum-v5 needs a display for its window: no display here" in said
