"""Learning curves that are kept in the repository, so that a figure outlives the runs it shows.

A file holds one run a line, as JSON:

| name | what |
|---|---|
| experiment, config, seed | what was run: the words behind ``with``, without the seed |
| fresh | mean return of the last policy on fresh episodes |
| theta sha256 | of that policy |
| generation, steps, core-seconds | where the points of the curve are |
| fitness | `current fitness` there, a trailing mean over generations |
"""

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from store.comparison.curves import smoothed
from store.comparison.learning import CORE_SECONDS, STEPS, Curve
from store.reader import RunReader

METRIC, SMOOTH = "current fitness", 20  # generations, as in the published figures
EVERY = 5  # generations, of the points that are kept
AXES = ("generation", "steps", "core-seconds")


@dataclass(frozen=True)
class KeptRun:
    """A line of a file."""

    line: dict[str, Any]

    @property
    def what(self) -> tuple[str, ...]:
        """Was run: no other run that is kept has the same."""
        return self.line["experiment"], *self.line["config"], f"seed={self.line['seed']}"

    @property
    def fresh(self) -> float:
        return float(self.line["fresh"])

    def last(self, name: str) -> float:
        """The last value of a column."""
        return float(self.line[name][-1])

    def curve(self, axis: str) -> Curve:
        """Its part in a figure."""
        x, values = (np.array(self.line[name], np.float64) for name in (axis, "fitness"))
        return Curve(self.line["seed"], self.line["experiment"], x, values, float(values[-1]))


def kept(run: RunReader, experiment: str, words: Sequence[str]) -> KeptRun:
    """What is kept of a run that is done.

    Args:
        words: behind ``with``, the seed last.
    """
    fitness = run.metric(METRIC)
    values = smoothed(fitness.values, SMOOTH)
    rows = np.unique([*range(0, len(values), EVERY), len(values) - 1])
    generations = fitness.steps[rows]
    spent = {}
    for axis, name in (("steps", STEPS), ("core-seconds", CORE_SECONDS)):
        logged = run.metric(name)
        # The policy behind the last generation has cost what all generations have.
        spent[axis] = np.interp(generations, logged.steps, logged.values).round().astype(int)
    line = {
        "experiment": experiment,
        "config": list(words[:-1]),
        "seed": int(words[-1].removeprefix("seed=")),
        "fresh": round(float(run.result), 3),
        "theta sha256": run.info.get("theta sha256"),
        "generation": generations.tolist(),
        **{axis: each.tolist() for axis, each in spent.items()},
        "fitness": values[rows].round(2).tolist(),
    }
    return KeptRun(line)


class CurveFile:
    """The runs of a study; ``add`` replaces what was kept of an equal run."""

    def __init__(self, path: Path) -> None:
        """Read the file, if it is there."""
        self._path = path
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        self._runs = {run.what: run for run in (KeptRun(json.loads(line)) for line in lines)}

    def add(self, run: KeptRun) -> None:
        self._runs[run.what] = run

    def write(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        lines = [json.dumps(self._runs[what].line) for what in sorted(self._runs)]
        self._path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")

    def of(self, experiment: str, config: str) -> list[KeptRun]:
        """All seeds of a config, ascending."""
        what = (experiment, *shlex.split(config))
        found = [run for each, run in self._runs.items() if each[:-1] == what]
        return sorted(found, key=lambda run: run.line["seed"])
