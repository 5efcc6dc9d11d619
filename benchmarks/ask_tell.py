"""What Nevergrad's asking and telling, and bringing candidates to workers, add to a generation.

    python benchmarks/ask_tell.py [--tool CMA] [--ray] [--quick] [--json FILE]

A whole run of the named config `lander` of nevergrad_es, once with each evaluator.

| column | share of the generations' time in which |
|---|---|
| ask_tell | the head asks and tells; workers wait |
| transport | the head waits for workers, longer than the busiest of them works; or does its sums |
| waiting | a worker waits, on average, for the busiest of them |
"""

import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from common import Row, machine, parser, show, write_json
from crew import named_config, ray_workers, redis_workers

from evolution.evaluation import Evaluations, Evaluator
from evolution.loop import evolve
from evolution.noise import NoiseTable
from evolution.population import Population
from evolution.problem import Problem, problem_of
from evolution.settings import RunSettings
from evolution.strategy import Strategy
from nevergrad_es.experiment import ex, make_strategy

WORKERS = 2
CREWS = {"redis": redis_workers, "ray": ray_workers}


class Timed:
    """A strategy, and the seconds that it takes."""

    def __init__(self, strategy: Strategy) -> None:
        self._strategy = strategy
        self.roles, self.seconds = strategy.roles, 0.0

    @property
    def theta(self) -> np.ndarray:
        return self._strategy.theta

    def ask(self, rng: np.random.Generator) -> Sequence[Population]:
        with self._taking_time():
            return self._strategy.ask(rng)

    def tell(
        self, populations: Sequence[Population], evaluations: Sequence[Evaluations]
    ) -> dict[str, float]:
        with self._taking_time():
            return self._strategy.tell(populations, evaluations)

    def state(self) -> dict[str, Any]:
        return self._strategy.state()

    def restore(self, state: dict[str, Any]) -> None:
        self._strategy.restore(state)

    @contextlib.contextmanager
    def _taking_time(self) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - began


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--tool", default="CMA", help="of Nevergrad's registry")
    options.add_argument("--ray", action="store_true", help="a private Ray, too")
    chosen = options.parse_args()
    print(machine())
    config = named_config("lander", 1, ex) | {"tool": chosen.tool}
    config["num_generations"] = 10 if chosen.quick else 100
    settings, problem = RunSettings.from_config(config), problem_of(config)
    rows = []
    with settings.noise_table() as noise:
        for name, workers in CREWS.items() if chosen.ray else [("redis", redis_workers)]:
            with workers(WORKERS, problem, noise, settings.min_task_runtime) as each:
                rows.append({"evaluator": name} | measure(config, problem, noise, each))
    show(f"lander, {chosen.tool}, {config['num_generations']} generations", rows)
    write_json(chosen.json, rows)


def measure(
    config: dict[str, Any], problem: Problem, noise: NoiseTable, evaluator: Evaluator
) -> Row:
    """Where the time of a run goes, without its first generation, in which workers get ready."""
    settings = RunSettings.from_config(config)
    strategy = Timed(make_strategy(config, problem.make_policy(), noise, settings.seeding()))
    run = evolve(
        strategy,
        evaluator,
        generations=config["num_generations"],
        episodes=settings.num_episodes,
        eval_episodes=settings.eval_episodes,
        seeding=settings.seeding(),
    )
    next(run)
    began, strategy.seconds = time.perf_counter(), 0.0
    busiest = busy = 0.0
    for generation in run:
        work = seconds_of_workers([*generation.told.values(), generation.current])
        busiest, busy = busiest + work.max(), busy + work.sum() / WORKERS
    whole = time.perf_counter() - began
    return {
        "workers": WORKERS,
        "ms_per_generation": round(1000 * whole / (config["num_generations"] - 1), 1),
        "ask_tell": round(strategy.seconds / whole, 3),
        "transport": round((whole - strategy.seconds - busiest) / whole, 3),
        "waiting": round((busiest - busy) / whole, 3),
    }


def seconds_of_workers(evaluations: Sequence[Evaluations]) -> np.ndarray:
    """float64[workers]: seconds that each of them worked."""
    who = np.concatenate([each.worker for each in evaluations])
    seconds = np.concatenate([each.seconds for each in evaluations])
    return np.bincount(np.unique(who, return_inverse=True)[1], seconds)


if __name__ == "__main__":
    main()
