"""Algorithms on the tasks of distributed_es: learning curves, and what came of each run.

    python benchmarks/compare_algorithms.py lander pendulum_partial ant [--jobs 2] [--done]

Every contender is run by its experiment with its named config, one worker a run. Who has `tries`
gets the best of them, found by short runs with two other seeds, as the settings of ES were once
found. All runs are kept in FOLDER/runs, where `EVO_RUNS=FOLDER/runs python store/compare.py --list`
finds them, and their curves in CURVES/STUDY.jsonl. What is kept there is not run again: name
another folder of curves to have all of it anew; `--done` shows what there is and runs nothing. A
study leaves FOLDER/STUDY.png, curves of `current fitness` on fresh episodes against generations,
environment steps and core-seconds, and a table:

| column | means |
|---|---|
| runs | that are done |
| fresh | mean return of the last policy on fresh episodes: mean over the runs, and 95 % interval |
| smoothed | the last `current fitness`, averaged over 20 generations as in the published figures |
| settings | what the search has chosen |
| published | what distributed_es's figures show there, read off by eye |
"""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common import ROOT, Row, machine, parser, show, write_json
from curves import AXES, METRIC, CurveFile, KeptRun, kept

from cluster.grid import parse_seeds
from cluster.jobs import DONE, JobFolder
from evolution.loop import confidence_interval
from store.comparison.curves import BANDS, ESTIMATES
from store.comparison.figures import draw_axes
from store.comparison.learning import Learning, learn
from store.embedded.start import embedded_url
from store.location import open_store
from store.reader import RunReader

IDLE_SECONDS = 2.0  # after which the server of the store ends


@dataclass(frozen=True)
class Contender:
    """An algorithm with its settings."""

    label: str
    experiment: str
    config: str
    published: str = ""
    tries: tuple[str, ...] = ()
    seeds: str = ""  # none: those of the study

    @property
    def name(self) -> str:
        """Of its folder."""
        return "".join(letter if letter.isalnum() else "-" for letter in self.label)


@dataclass(frozen=True)
class Study:
    """Contenders on a task."""

    contenders: tuple[Contender, ...]
    short: str = ""  # what ends the runs of a search
    seeds: str = "1..5"


WHOLE = "stop_fitness=None"  # each run goes to its last generation
LANDER = f"lander {WHOLE} num_generations=300"
SHORT = f"lander {WHOLE} num_generations=100"
WIDE = "lander_original pop_size=200 num_generations=150"
PARTIAL = f"pendulum_partial {WHOLE}"
FIVE, THIRTY = (f"{PARTIAL} num_generations=300 num_episodes={count}" for count in (5, 30))
CENTRED = "shaping=centered_ranks lr_decay=0.997 num_generations=500"  # before log_ranks
UNUSED = "31..35"  # when log_ranks was chosen
ANT = "ant n_tsteps=2000000"
ONE = f"{ANT} num_episodes=1"
NARROW = ("sigma=0.02", "sigma=0.05")  # with 0.1 the ant thrashes
SIGMAS = ("sigma=0.1", "sigma=0.3", "sigma=1.0")
STUDIES = {
    "lander": Study(
        (
            Contender("ES, 1 episode, 20", "es", "lander_original", "200, wide band"),
            Contender("ES, 1 episode, 200", "es", WIDE, "255 by 95"),
            Contender("ES, 5 episodes, 20", "es", "lander_original num_episodes=5", "270 by 150"),
            Contender("ES, our settings", "es", LANDER),
            Contender("CMA, 1 episode", "nevergrad_es", f"{LANDER} num_episodes=1", "0"),
            Contender("CMA, 5 episodes", "nevergrad_es", LANDER, "265 by 55"),
            Contender("CMA, 5, 100 generations", "nevergrad_es", SHORT, "265 by 55"),
            Contender(
                "Nevergrad's ES, 1", "nevergrad_es", f"{LANDER} tool=ES num_episodes=1", "60"
            ),
            Contender(
                "Nevergrad's ES, 5", "nevergrad_es", f"{LANDER} tool=ES", "270 by 150 to 180"
            ),
            Contender("GA", "ga", f"lander {WHOLE} num_generations=100"),
        )
    ),
    "pendulum_partial": Study(
        (
            Contender("ES, their settings", "es", "pendulum_partial_original", "-720 to -745"),
            Contender("ES, centred ranks", "es", f"{PARTIAL} {CENTRED}"),
            Contender("ES, our settings", "es", PARTIAL, seeds=UNUSED),
            Contender("CMA, 5 episodes", "nevergrad_es", FIVE, "-490", SIGMAS),
            Contender("CMA, 30 episodes", "nevergrad_es", THIRTY, "-335", SIGMAS),
            Contender(
                "CMA, 30, same starts", "nevergrad_es", f"{THIRTY} env_seed=None", "", SIGMAS
            ),
            Contender(
                "GA", "ga", f"{PARTIAL} num_generations=300", "", ("sigma=0.03", *SIGMAS[:2])
            ),
        ),
        short="num_generations=60",
        seeds="6..10",
    ),
    "ant": Study(
        (
            Contender(
                "ES, their settings",
                "es",
                "ant_original n_tsteps=4000000",
                "900 by 980",
                seeds="1..2",
            ),
            Contender("ES, our settings", "es", ANT),
            Contender("DiagonalCMA", "nevergrad_es", ONE, "560, CMA", NARROW),
            Contender("Nevergrad's ES", "nevergrad_es", f"{ONE} tool=ES", "330", NARROW),
        ),
        short="n_tsteps=500000",
        seeds="1..4",
    ),
}
SEARCH_SEEDS = "101,102"
QUICK = "num_generations=2 final_episodes=10"


def main() -> None:
    chosen = options()
    print(machine())
    rows: list[Row] = []
    for name in chosen.studies or STUDIES:
        rows += Comparison(name, chosen).rows()
    write_json(chosen.json, rows)


def options() -> Any:
    """What the command line says, checked."""
    found = parser(__doc__)
    found.add_argument("studies", nargs="*", metavar="STUDY", help=", ".join(STUDIES))
    found.add_argument("--seeds", help="such as 1..5; else each study has its own")
    found.add_argument("--jobs", default="2", help="runs at once")
    found.add_argument("--done", action="store_true", help="run nothing: show what is done")
    found.add_argument("--folder", type=Path, default=ROOT / "runs" / "comparison")
    found.add_argument("--curves", type=Path, default=ROOT / "benchmarks" / "curves")
    chosen = found.parse_args()
    if unknown := set(chosen.studies) - set(STUDIES):
        found.error(f"no study {min(unknown)!r}; known: {', '.join(STUDIES)}")
    if chosen.quick:
        chosen.folder /= "quick"
        chosen.curves = chosen.folder
    return chosen


class Comparison:
    """A study on its way: runs what is not done, and keeps the curves of what is."""

    def __init__(self, name: str, chosen: Any) -> None:
        """Begin with the curves that were kept."""
        self._name, self._study, self._chosen = name, STUDIES[name], chosen
        self._curves = CurveFile(chosen.curves / f"{name}.jsonl")

    def rows(self) -> list[Row]:
        """Run all that is wanted; the table, and a figure beside it."""
        settings = dict[Contender, str]()
        for each in self._study.contenders:
            settings[each] = self._search(each)
            seeds = self._chosen.seeds or each.seeds or self._study.seeds
            self._run(each, settings[each], seeds, each.name)
        runs = {each: self._kept(each, words) for each, words in settings.items()}
        if not (done := {each: found for each, found in runs.items() if found}):
            return []
        self._draw(done)
        rows = [row(self._name, each, settings[each], found) for each, found in done.items()]
        show(self._name, rows)
        return rows

    def _search(self, contender: Contender) -> str:
        """Of those that it may try, the one with the best last policies; all tried equally."""
        found = {}
        for words in contender.tries:
            trial = f"{words} {self._study.short}"
            self._run(contender, trial, SEARCH_SEEDS, f"{contender.name}-{words}")
            if runs := self._kept(contender, trial):
                found[words] = float(np.mean([each.fresh for each in runs]))
        if found:
            title = f"{contender.label}: {self._study.short}, seeds {SEARCH_SEEDS}"
            show(title, [dict(found)])
        return max(found, key=found.__getitem__, default="")

    def _config(self, contender: Contender, more: str) -> str:
        """The words behind ``with``, without the seed."""
        return " ".join([contender.config, more, QUICK if self._chosen.quick else ""])

    def _kept(self, contender: Contender, more: str) -> list[KeptRun]:
        return self._curves.of(contender.experiment, self._config(contender, more))

    def _run(self, contender: Contender, more: str, seeds: str, name: str) -> None:
        """All its runs that are not kept, by the command that users have for a grid of runs."""
        folder = self._chosen.folder / self._name
        self._keep(folder / name)  # what was done when this was interrupted
        there = {run.line["seed"] for run in self._kept(contender, more)}
        left = [str(seed) for seed in parse_seeds(seeds) if seed not in there]
        if left and not self._chosen.done:
            config = self._config(contender, more)
            launch = [sys.executable, ROOT / "cluster" / "launch_multi.py", "--yes", "--hours=12"]
            what = [f"--experiment={contender.experiment}", f"--config={config}"]
            where = [f"--folder={folder}", f"--name={name}", f"--jobs={self._chosen.jobs}"]
            env = {**os.environ, "EVO_RUNS": str(self._chosen.folder / "runs")}
            subprocess.run(
                [*launch, *what, f"--seeds={','.join(left)}", *where], env=env, check=True
            )
            self._keep(folder / name)

    def _keep(self, grid: Path) -> None:
        """Keep the curves of the runs that are done."""
        jobs = [JobFolder(path) for path in sorted(grid.glob("*/"))]
        if not (done := [each for each in jobs if each.status == DONE]):
            return
        file = self._chosen.folder / "runs" / "store.sqlite"
        store = open_store(embedded_url(file, IDLE_SECONDS))
        for job in done:
            described, run = job.read(), RunReader(store, int(job.state()["run"]))
            self._curves.add(kept(run, described["experiment"], described["config"]))
        store.client.close()
        self._curves.write()

    def _draw(self, runs: Mapping[Contender, Sequence[KeptRun]]) -> None:
        """The figure: against generations, steps and core-seconds."""
        lines = {axis: [learning(each, runs[each], axis) for each in runs] for axis in AXES}
        caption = "line: mean over the runs; band: its 95 % bootstrap interval"
        self._chosen.folder.mkdir(parents=True, exist_ok=True)
        file = self._chosen.folder / f"{self._name}.png"
        draw_axes(lines, file, caption, metric=METRIC)


def learning(contender: Contender, runs: Sequence[KeptRun], axis: str) -> Learning:
    """The curves of a contender against generations, steps or core-seconds."""
    found = [each.curve(axis) for each in runs]
    return learn(contender.label, found, axis, ESTIMATES["mean"], BANDS["ci"])


def row(study: str, contender: Contender, settings: str, runs: Sequence[KeptRun]) -> Row:
    """What it cost, and what came of it."""
    fresh = np.array([each.fresh for each in runs])
    last = {name: np.mean([each.last(name) for each in runs]) for name in (*AXES, "fitness")}
    return {
        "study": study,
        "contender": contender.label,
        "runs": len(runs),
        "fresh": f"{fresh.mean():.1f} ± {confidence_interval(fresh):.1f}",
        "lowest": round(float(fresh.min()), 1),
        "highest": round(float(fresh.max()), 1),
        "smoothed": round(float(last["fitness"]), 1),
        "settings": settings,
        "published": contender.published,
        "generations": round(float(last["generation"])),
        "million_steps": round(float(last["steps"]) / 1e6, 1),
        "core_seconds": round(float(last["core-seconds"])),
    }


if __name__ == "__main__":
    main()
