"""Algorithms on the tasks of distributed_es: learning curves, and what came of each run.

    python benchmarks/compare_algorithms.py lander pendulum_partial ant [--seeds 1..5] [--jobs 2]

Every contender is run by its experiment with its named config, one worker a run; a run that is
done is not done again. Who has `tries` gets the best of them, found by short runs with two other
seeds, as the settings of ES were once found. All runs are kept in FOLDER/runs, where
`EVO_RUNS=FOLDER/runs python store/compare.py --list` finds them; `--done` shows what there is and
runs nothing. A study leaves FOLDER/STUDY.png, curves of `current fitness` on fresh episodes
against generations, environment steps and core-seconds, and a table:

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
from pymongo.database import Database

from cluster.jobs import DONE, JobFolder
from evolution.loop import confidence_interval
from store.comparison.curves import BANDS, ESTIMATES
from store.comparison.figures import draw_axes
from store.comparison.learning import CORE_SECONDS, STEPS, Learning, learn, read_curve
from store.embedded.start import embedded_url
from store.location import open_store
from store.reader import RunReader

METRIC, SMOOTH = "current fitness", 20
AXES = ("generation", "steps", "core-seconds")
IDLE_SECONDS = 2.0  # after which the server of the store ends


@dataclass(frozen=True)
class Contender:
    """An algorithm with its settings."""

    label: str
    experiment: str
    config: str
    published: str = ""
    tries: tuple[str, ...] = ()

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
WIDE = "lander_original pop_size=200 num_generations=150"
PARTIAL = f"pendulum_partial {WHOLE}"
FIVE, THIRTY = (f"{PARTIAL} num_generations=300 num_episodes={count}" for count in (5, 30))
ANT = "ant n_tsteps=3000000"
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
            Contender("ES, our settings", "es", PARTIAL),
            Contender("CMA, 5 episodes", "nevergrad_es", FIVE, "-490", SIGMAS),
            Contender("CMA, 30 episodes", "nevergrad_es", THIRTY, "-335", SIGMAS),
            Contender(
                "GA", "ga", f"{PARTIAL} num_generations=300", "", ("sigma=0.03", *SIGMAS[:2])
            ),
        ),
        short="num_generations=60",
    ),
    "ant": Study(
        (
            Contender("ES", "es", ANT, "480 with 5 episodes"),
            Contender("DiagonalCMA", "nevergrad_es", f"{ANT} num_episodes=1", "560 (CMA)"),
            Contender("Nevergrad's ES", "nevergrad_es", f"{ANT} num_episodes=1 tool=ES", "330"),
        ),
        seeds="1..3",
    ),
}
SEARCH_SEEDS = "101,102"


def main() -> None:
    options = parser(__doc__)
    options.add_argument("studies", nargs="*", metavar="STUDY", help=", ".join(STUDIES))
    options.add_argument("--seeds", help="1..5; of the ant 1..3")
    options.add_argument("--jobs", default="2", help="runs at once")
    options.add_argument("--done", action="store_true", help="run nothing: show what is done")
    options.add_argument("--folder", type=Path, default=ROOT / "runs" / "comparison")
    chosen = options.parse_args()
    if unknown := set(chosen.studies) - set(STUDIES):
        options.error(f"no study {min(unknown)!r}; known: {', '.join(STUDIES)}")
    print(machine())
    if chosen.quick:
        chosen.folder /= "quick"
    rows: list[Row] = []
    for name in chosen.studies or STUDIES:
        study, folder = STUDIES[name], chosen.folder / name
        seeds = chosen.seeds or study.seeds
        settings = dict[Contender, str]()
        for each in study.contenders:
            settings[each] = find_settings(each, study.short, folder, chosen)
            run(each, f"{each.config} {settings[each]}", seeds, folder / each.name, chosen)
        rows += conclude(name, settings, chosen.folder)
    write_json(chosen.json, rows)


def find_settings(contender: Contender, short: str, folder: Path, chosen: Any) -> str:
    """Of those that it may try, the one with the best last policies; all are tried equally."""
    if not contender.tries:
        return ""
    found = {}
    for words in contender.tries:
        grid = folder / f"{contender.name}-{words}"
        run(contender, f"{contender.config} {words} {short}", SEARCH_SEEDS, grid, chosen)
        store = open_store(embedded_url(chosen.folder / "runs" / "store.sqlite", IDLE_SECONDS))
        if results := [float(each.result) for each in runs_of(grid, store)]:
            found[words] = float(np.mean(results))
        store.client.close()
    show(f"{contender.label}: {short}, seeds {SEARCH_SEEDS}", [dict(found)])
    return max(found, key=found.__getitem__, default="")


def run(contender: Contender, config: str, seeds: str, grid: Path, chosen: Any) -> None:
    """All its runs that are not done, by the command that users have for a grid of runs."""
    if chosen.done:
        return
    if chosen.quick:
        config, seeds = f"{config} num_generations=2 final_episodes=10", "1,2"
    launch = [sys.executable, ROOT / "cluster" / "launch_multi.py", "--yes", "--hours=12"]
    what = [f"--experiment={contender.experiment}", f"--config={config}", f"--seeds={seeds}"]
    where = [f"--folder={grid.parent}", f"--name={grid.name}", f"--jobs={chosen.jobs}"]
    env = {**os.environ, "EVO_RUNS": str(chosen.folder / "runs")}
    subprocess.run([*launch, *what, *where], env=env, check=True)


def conclude(study: str, settings: Mapping[Contender, str], folder: Path) -> list[Row]:
    """The table and the figure of a study."""
    store = open_store(embedded_url(folder / "runs" / "store.sqlite", IDLE_SECONDS))
    found = {each: runs_of(folder / study / each.name, store) for each in settings}
    if not (runs := {each: done for each, done in found.items() if done}):
        store.client.close()
        return []
    rows = [row(study, each, settings[each], found) for each, found in runs.items()]
    curves = {
        axis: [learning(each.label, found, axis) for each, found in runs.items()] for axis in AXES
    }
    caption = "line: mean over the runs; band: its 95 % bootstrap interval"
    draw_axes(curves, folder / f"{study}.png", caption, metric=METRIC)
    store.client.close()
    show(study, rows)
    return rows


def runs_of(grid: Path, store: Database) -> list[RunReader]:
    """Those of a contender that are done."""
    jobs = [JobFolder(path) for path in sorted(grid.glob("*/"))]
    done = [each.state() for each in jobs if each.status == DONE]
    return [RunReader(store, int(each["run"])) for each in done]


def learning(label: str, runs: Sequence[RunReader], axis: str) -> Learning:
    """The curves of a contender against generations, steps or core-seconds."""
    found = [read_curve(each, METRIC, axis, SMOOTH) for each in runs]
    return learn(label, found, axis, ESTIMATES["mean"], BANDS["ci"])


def row(study: str, contender: Contender, settings: str, runs: Sequence[RunReader]) -> Row:
    """What it cost, and what came of it."""
    fresh = np.array([float(each.result) for each in runs])
    smoothed = [read_curve(each, METRIC, "generation", SMOOTH).values[-1] for each in runs]
    spent = {
        name: [each.metric(name).values[-1] for each in runs] for name in (STEPS, CORE_SECONDS)
    }
    return {
        "study": study,
        "contender": contender.label,
        "runs": len(runs),
        "fresh": f"{fresh.mean():.1f} ± {confidence_interval(fresh):.1f}",
        "lowest": round(float(fresh.min()), 1),
        "highest": round(float(fresh.max()), 1),
        "smoothed": round(float(np.mean(smoothed)), 1),
        "settings": settings,
        "published": contender.published,
        "generations": int(runs[0].metric(METRIC).steps[-1]),
        "million_steps": round(float(np.mean(spent[STEPS])) / 1e6, 1),
        "core_seconds": round(float(np.mean(spent[CORE_SECONDS]))),
    }


if __name__ == "__main__":
    main()
