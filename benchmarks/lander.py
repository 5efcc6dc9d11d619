"""What it takes to land the lunar lander, with the settings and the workers that users have.

    python benchmarks/lander.py [--quick] [--json FILE]

"Reached 200" is said of the first theta whose current fitness is 200 or more, and whose mean on 100
fresh episodes is too. The time for these 100 episodes is not counted; everything else is, from the
start of the server and the workers on. Core-seconds are CPU time of head, workers and server.
Every run goes to the last generation; where the config's stop_fitness would have ended it, the mean
on 100 fresh episodes is noted as well.
"""

import functools
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from common import Row, cpu_seconds, machine, parser, show, write_json
from crew import named_config, redis_workers

from es.experiment import make_strategy
from evolution.limits import Limits
from evolution.loop import History, assess, evolve
from evolution.problem import problem_of
from evolution.seeding import Seeding
from evolution.settings import RunSettings

GOAL, GOOD = 200.0, 240.0
FRESH = 100  # episodes
CONFIGS = ("lander", "lander_original")
SEEDS = range(1, 6)


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--config", action="append", help=f"default: {' and '.join(CONFIGS)}")
    chosen = options.parse_args()
    print(machine())
    rows: list[Row] = []
    for name in chosen.config or CONFIGS:
        runs = []
        for seed in SEEDS[:1] if chosen.quick else SEEDS:
            runs.append(run(name, seed, generations=60 if chosen.quick else None))
            print(f"{name} seed {seed}: final mean {runs[-1]['final_mean']}", flush=True)
        show(f"{name}: until a mean of {GOAL:.0f} on {FRESH} fresh episodes, and to the end", runs)
        rows += [*runs, summary(name, runs)]
    show("medians", [row for row in rows if row["seed"] == "median"])
    write_json(chosen.json, rows)


@dataclass
class Meter:
    """Wall and CPU time without what was spent while it stood still."""

    wall: float = 0.0
    cpu: float = 0.0

    def __post_init__(self) -> None:
        self.wall, self.cpu = time.perf_counter() - self.wall, cpu_seconds() - self.cpu

    def read(self) -> tuple[float, float]:
        """Seconds on the wall, and of all cores together."""
        return time.perf_counter() - self.wall, cpu_seconds() - self.cpu

    def without(self, work: Callable[[], float]) -> float:
        """Do something that is not to be counted."""
        wall, cpu = self.read()
        result = work()
        self.wall, self.cpu = time.perf_counter() - wall, cpu_seconds() - cpu
        return result


def run(name: str, seed: int, generations: int | None) -> Row:
    """One run of a named config, with the fresh episodes that tell how good it is."""
    config = named_config(name, seed)
    settings, problem = RunSettings.from_config(config), problem_of(config)
    seeding, fresh = settings.seeding(), Seeding(1_000_000 + seed)
    meter, reached, stopped = Meter(), Row(), Row()
    history = History()
    count, cut_off = settings.num_workers, settings.min_task_runtime
    with (
        settings.noise_table() as noise,
        redis_workers(count, problem, noise, cut_off) as evaluator,
    ):
        strategy = make_strategy(config, problem.make_policy(), noise, seeding)

        def mean(theta: np.ndarray, number: int, seeding: Seeding = fresh) -> float:
            final = assess(theta, evaluator, number=number, episodes=FRESH, seeding=seeding)
            return final.fitness

        limits = Limits(sys.maxsize, settings.stop_fitness)
        for generation in evolve(
            strategy,
            evaluator,
            generations=generations or settings.num_generations,
            episodes=settings.num_episodes,
            eval_episodes=settings.eval_episodes,
            seeding=seeding,
            history=history,
        ):
            theta, number = generation.theta, generation.number
            steps = int(generation.metrics["total sim steps"])
            if not reached and generation.fitness >= GOAL:
                wall, cpu = meter.read()
                if meter.without(functools.partial(mean, theta, number)) >= GOAL:
                    reached = _cost("to_200", number, steps, wall, cpu)
            if history.has_ended(limits) and not stopped:
                wall, cpu = meter.read()
                at_stop = meter.without(functools.partial(mean, strategy.theta, number + 1))
                stopped = _cost("to_stop", number + 1, steps, wall, cpu)
                stopped["mean_at_stop"] = round(at_stop, 1)
        end = _cost("in_all", number + 1, steps, *meter.read())
        final = mean(strategy.theta, number + 1, seeding)
    never = _never(_cost("to_200", 0, 0, 0.0, 0.0))
    no_stop = _never({**_cost("to_stop", 0, 0, 0.0, 0.0), "mean_at_stop": 0.0})
    found = {**(reached or never), **(stopped or no_stop), **end}
    return {"task": name, "seed": seed, **found, "final_mean": round(final, 1)}


def _never(row: Row) -> Row:
    return dict.fromkeys(row)


def _cost(when: str, generations: int, steps: int, wall: float, cpu: float) -> Row:
    return {
        f"generations_{when}": generations,
        f"steps_{when}": steps,
        f"wall_seconds_{when}": round(wall, 1),
        f"core_seconds_{when}": round(cpu, 1),
    }


def summary(name: str, runs: list[Row]) -> Row:
    """The medians of the runs; those of what it took to reach the goal over the runs that did."""
    row: Row = {"task": name, "seed": "median"}
    for column in runs[0]:
        values = [one[column] for one in runs if one[column] is not None]
        if column not in row:
            row[column] = statistics.median(values) if values else None
    row["runs"] = len(runs)
    row["runs_that_reached_200"] = sum(one["steps_to_200"] is not None for one in runs)
    row["runs_that_ended_above_240"] = sum(one["final_mean"] >= GOOD for one in runs)
    return row


if __name__ == "__main__":
    main()
