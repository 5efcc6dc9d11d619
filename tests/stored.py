"""Runs of the experiment that go to a store, made inside this process."""

import contextlib
import re
import shlex
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from click import Command
from click.testing import CliRunner
from commands import ROOT
from pymongo.database import Database
from sacred import Experiment

from es.experiment import ex
from store.location import runs_folder
from store.observer import SpoolingObserver

LANDER = {
    **{"num_generations": 3, "num_serializations": 3, "pop_size": 8, "num_episodes": 1},
    **{"eval_episodes": 4, "final_episodes": 6, "noise_size": 100_000, "evaluator": "local"},
}
CARTPOLE = {**LANDER, "engine": "gymnasium", "max_ep_length": 30}
SPHERE = {**LANDER, "num_generations": 6, "num_serializations": 3}


@contextlib.contextmanager
def observed(store: Database, experiment: Experiment = ex) -> Iterator[SpoolingObserver]:
    """Let an experiment write into a store, and nowhere else."""
    observer = SpoolingObserver(lambda: store, runs_folder() / "spool")
    chosen, experiment.option_hooks = experiment.option_hooks, []
    handler = signal.getsignal(signal.SIGTERM)
    experiment.observers.append(observer)
    try:
        yield observer
    finally:
        experiment.observers.remove(observer)
        experiment.option_hooks = chosen
        signal.signal(signal.SIGTERM, handler)


def run_stored(
    store: Database, named_config: str, *, experiment: Experiment = ex, **config: Any
) -> int:
    """Run an experiment into a store; returns the run's id."""
    with observed(store, experiment) as observer:
        experiment.run(named_configs=[named_config], config_updates=config)
    return observer.run_entry["_id"]


class Script:
    """A click script, called in this process."""

    def __init__(self, command: Command, store: Database) -> None:
        self._command, self._store = command, store

    def __call__(self, *words: object) -> str:
        """Its output; it must end well."""
        done = CliRunner().invoke(self._command, list(map(str, words)), obj=lambda: self._store)
        assert done.exit_code == 0, done.output
        return done.output

    def refuses(self, *words: object) -> str:
        """The one line in which it says what is wrong."""
        done = CliRunner().invoke(self._command, list(map(str, words)), obj=lambda: self._store)
        assert done.exit_code not in (0, None)
        assert isinstance(done.exception, SystemExit), done.exception
        assert "Traceback" not in done.stderr
        lines = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
        assert len(lines) == 1, done.stderr
        return lines[0]


def commands_of_readme(script: str) -> list[list[str]]:
    """What the README tells a user to type behind the name of a script."""
    readme = (ROOT / "README.md").read_text()
    found = re.findall(rf"^python {re.escape(script)}(.*)$", readme, re.MULTILINE)
    return [shlex.split(words, comments=True) for words in found]


def without_display(patch: Any, folder: Path) -> None:
    """Take the display away, and go to a folder where films may be left."""
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
        patch.delenv(name, raising=False)
    for name in ("SDL_VIDEODRIVER", "SDL_AUDIODRIVER", "MUJOCO_GL"):
        patch.setenv(name, "")  # so that what the script sets is taken back
        patch.delenv(name)
    patch.chdir(folder)
