"""Two workers against one: steps per second of an experiment with its messages and its waiting.

    python benchmarks/workers.py [--quick] [--json FILE]

Each round evolves the same generations of the named config `lander` with one worker and with two.
One generation ends before the next begins, as in every run.
"""

import contextlib
import time
from collections.abc import Callable

from common import machine, parser, show, take_turns, write_json
from crew import named_config, redis_workers

from es.experiment import make_strategy
from evolution.evaluation import Evaluator
from evolution.loop import evolve
from evolution.noise import NoiseTable
from evolution.problem import Problem, problem_of
from evolution.settings import RunSettings

CREWS = (1, 2)


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--config", default="lander", help="a named config of es/experiment.py")
    chosen = options.parse_args()
    print(machine())
    config = named_config(chosen.config, seed=1)
    settings, problem = RunSettings.from_config(config), problem_of(config)
    generations, rounds = (8, 4) if chosen.quick else (20, 9)
    with contextlib.ExitStack() as stack:
        noise = stack.enter_context(settings.noise_table())
        contenders = {}
        for count in CREWS:
            crew = redis_workers(count, problem, noise, settings.min_task_runtime)
            evaluator = stack.enter_context(crew)
            work = _evolution(config, problem, noise, evaluator, generations)
            work()  # the workers come up
            contenders[str(count)] = work
        found = take_turns(contenders, rounds, time.perf_counter)
    rows = [
        {
            "task": chosen.config,
            "workers": count,
            "steps_per_second": round(found.rate(str(count))),
            "times_one_worker": round(found.ratio(str(count), "1"), 3),
        }
        for count in CREWS
    ]
    show(f"{chosen.config} on {problem.engine}, {generations} generations a round", rows)
    write_json(chosen.json, rows)


def _evolution(
    config: dict, problem: Problem, noise: NoiseTable, evaluator: Evaluator, generations: int
) -> Callable[[], float]:
    settings = RunSettings.from_config(config)
    policy, seeding = problem.make_policy(), settings.seeding()

    def work() -> float:
        metrics: dict[str, float] = {}
        for generation in evolve(
            make_strategy(config, policy, noise, seeding),
            evaluator,
            generations=generations,
            episodes=settings.num_episodes,
            eval_episodes=settings.eval_episodes,
            seeding=seeding,
        ):
            metrics = generation.metrics
        return metrics["total sim steps"]

    return work


if __name__ == "__main__":
    main()
