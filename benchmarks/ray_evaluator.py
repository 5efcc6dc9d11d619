"""Ray's actors against workers at a redis server, on the same work: generations per second.

    python benchmarks/ray_evaluator.py [--quick] [--json FILE]

Each round evolves the same generations of the named config `lander` with each of them; both have
two processes on this machine, and take turns. Needs requirements-ray.txt.
"""

import contextlib
import time
from collections.abc import Callable

from common import Rounds, Row, cpu_seconds, machine, parser, show, take_turns, write_json
from crew import named_config, ray_workers, redis_workers

from es.experiment import make_strategy
from evolution.evaluation import Evaluator
from evolution.loop import evolve
from evolution.noise import NoiseTable
from evolution.problem import Problem, problem_of
from evolution.settings import RunSettings

WORKERS = 2
SIZES = (50, 200)  # candidates


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--config", default="lander", help="a named config of es/experiment.py")
    chosen = options.parse_args()
    print(machine())
    config = named_config(chosen.config, seed=1)
    generations, rounds = (6, 4) if chosen.quick else (15, 9)
    rows: list[Row] = []
    with contextlib.ExitStack() as stack:
        settings, problem = RunSettings.from_config(config), problem_of(config)
        noise = stack.enter_context(settings.noise_table())
        evaluators = _evaluators(stack, problem, noise, settings.min_task_runtime)
        for pop_size in SIZES:
            sized = {**config, "pop_size": pop_size}
            work = {
                name: _evolution(sized, problem, noise, evaluator, generations)
                for name, evaluator in evaluators.items()
            }
            for each in work.values():
                each()  # they come up
            found = take_turns(work, rounds, time.perf_counter)
            rows += _rows(found, pop_size, {name: _cost(each) for name, each in work.items()})
    show(f"{chosen.config} on {problem.engine}, {generations} generations a round", rows)
    write_json(chosen.json, rows)


def _evaluators(
    stack: contextlib.ExitStack, problem: Problem, noise: NoiseTable, min_seconds: float
) -> dict[str, Evaluator]:
    redis = stack.enter_context(redis_workers(WORKERS, problem, noise, min_seconds))
    ray = stack.enter_context(ray_workers(WORKERS, problem, noise, min_seconds))
    return {"redis": redis, "ray": ray}


def _evolution(
    config: dict, problem: Problem, noise: NoiseTable, evaluator: Evaluator, generations: int
) -> Callable[[], float]:
    settings = RunSettings.from_config(config)
    policy, seeding = problem.make_policy(), settings.seeding()

    def work() -> float:
        run = evolve(
            make_strategy(config, policy, noise, seeding),
            evaluator,
            generations=generations,
            episodes=settings.num_episodes,
            eval_episodes=settings.eval_episodes,
            seeding=seeding,
        )
        return float(sum(1 for _ in run))

    return work


def _cost(work: Callable[[], float]) -> float:
    """CPU seconds of all processes for a generation."""
    before = cpu_seconds()
    return work() / max(cpu_seconds() - before, 1e-9)


def _rows(found: Rounds, pop_size: int, cost: dict[str, float]) -> list[Row]:
    return [
        {
            "evaluator": name,
            "workers": WORKERS,
            "pop_size": pop_size,
            "generations_per_second": round(found.rate(name), 2),
            "times_redis": round(found.ratio(name, "redis"), 3),
            "core_seconds_per_generation": round(1 / cost[name], 3),
        }
        for name in cost
    ]


if __name__ == "__main__":
    main()
