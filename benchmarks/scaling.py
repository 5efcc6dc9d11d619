"""Generations per second over the number of workers, and from how many on a head saturates.

    python benchmarks/scaling.py [--quick] [--json FILE] [--plot FILE]

One and two real workers, in turns, on the lander and on HalfCheetah. Then simulated ones (see
`simulated.py`), which spend the seconds of measured lander episodes without using a core: one
population of 2,000 for all of them, from 1 to 1,000 workers behind relays of up to 50. Amdahl's
law, seconds(workers) = serial + parallel / workers, is fitted to them by least squares of the
relative error; beyond parallel / serial workers less than half of them is of use.
"""

import contextlib
import functools
import secrets
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from common import Row, machine, parser, show, take_turns, write_json
from crew import named_config, redis_workers
from simulated import Crowd, simulated

from cluster.redis_server import connect, start_server
from es.experiment import make_strategy
from evolution.evaluation import Evaluator, Part
from evolution.loop import evolve
from evolution.noise import NoiseTable
from evolution.population import Mirrored
from evolution.problem import Problem, choose_problem, problem_of
from evolution.redis_evaluator import RedisEvaluator
from evolution.settings import RunSettings

CREWS = (1, 2)
WORKERS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
PER_RELAY = 50
POPULATION = 2000
LONGEST_SECONDS = 0.02  # of a candidate's episodes


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--plot", type=Path, metavar="FILE", help="draw the simulated ones")
    chosen = options.parse_args()
    print(machine())
    tasks: dict[str, Callable[[], dict]] = {"lander": lambda: named_config("lander", 1)}
    if not chosen.quick:
        tasks["HalfCheetah"] = half_cheetah
    real: list[Row] = []
    for name, config in tasks.items():
        pair = real_rows(name, config(), chosen.quick)
        show(f"{name}, real workers", pair)
        real += pair
    workers = WORKERS[3::2] if chosen.quick else WORKERS
    rows = [simulated_row(count, 2 if chosen.quick else 4) for count in workers]
    serial, parallel = amdahl(rows)
    for row in rows:
        row["fitted"] = round(1 / (serial + parallel / row["workers"]), 3)
        row["efficiency"] = round(row["generations_per_second"] * parallel / row["workers"], 3)
    show(f"simulated workers, population {POPULATION}", rows)
    fit: Row = {
        "serial_seconds": round(serial, 4),
        "parallel_seconds": round(parallel, 2),
        "serial_share": round(serial / (serial + parallel), 5),
        "half_of_use_at_workers": round(parallel / serial) if serial else None,
    }
    show("Amdahl's law", [fit])
    write_json(chosen.json, [*real, *rows, fit])
    if chosen.plot:
        plot(rows, serial, parallel, chosen.plot)


def half_cheetah() -> dict:
    """A task of long episodes, all of them as long."""
    config = {**named_config("lander", 1), "env_name": "HalfCheetah-v5", "engine": "gymnasium"}
    return {**config, "hidden_sizes": [64, 64], "max_ep_length": 200, "num_episodes": 1}


def real_rows(name: str, config: dict, quick: bool) -> list[Row]:
    """One worker and two, by turns."""
    settings, problem = RunSettings.from_config(config), problem_of(config)
    generations, rounds = 5, 2 if quick else 5
    with contextlib.ExitStack() as stack:
        noise = stack.enter_context(settings.noise_table())
        contenders = {}
        for count in CREWS:
            crew = redis_workers(count, problem, noise, settings.min_task_runtime)
            evaluator = stack.enter_context(crew)
            work = functools.partial(evolved, config, problem, noise, evaluator, generations)
            work()  # the workers come up
            contenders[str(count)] = work
        found = take_turns(contenders, rounds, time.perf_counter)
    return [
        {
            "task": name,
            "workers": count,
            "generations_per_second": round(found.rate(str(count)), 3),
            "times_one_worker": round(found.ratio(str(count), "1"), 3),
        }
        for count in CREWS
    ]


def evolved(
    config: dict, problem: Problem, noise: NoiseTable, evaluator: Evaluator, generations: int
) -> float:
    """Evolve; returns how many generations that were."""
    settings = RunSettings.from_config(config)
    policy, seeding = problem.make_policy(), settings.seeding()
    for _ in evolve(
        make_strategy(config, policy, noise, seeding),
        evaluator,
        generations=generations,
        episodes=settings.num_episodes,
        eval_episodes=settings.eval_episodes,
        seeding=seeding,
    ):
        pass
    return generations


def simulated_row(workers: int, generations: int) -> Row:
    """Generations per second of a crowd."""
    relays = max(1, workers // PER_RELAY) if workers > PER_RELAY else 0
    machines = relays or workers
    crowd = Crowd(machines, workers // machines, LONGEST_SECONDS / 1000)
    problem = choose_problem(env_name="Sphere-v0", policy_kwargs={"hidden_sizes": []})
    pairs = POPULATION // 2
    population = Mirrored(np.zeros(20, np.float32), 0.1, np.arange(pairs))
    task = [Part(population, np.zeros((pairs, 1), np.int64))]
    with (
        NoiseTable(1000, 1) as noise,
        start_server() as server,
        simulated(server.url, crowd),
        RedisEvaluator(
            connect(server.url), problem, noise, run_id=f"1-{secrets.token_hex(4)}"
        ) as evaluator,
    ):
        if workers > 2:
            evaluator.evaluate(task)
        wall, head, worked = time.perf_counter(), time.process_time(), 0.0
        count = generations if workers > 2 else 1
        for _ in range(count):
            evaluator.evaluate(task)
            worked += sum(answer.seconds.sum() for answer in evaluator.answers())
        wall, head = time.perf_counter() - wall, time.process_time() - head
    return {
        "workers": workers,
        "relays": relays,
        "generations_per_second": round(count / wall, 3),
        "busy": round(worked / (workers * wall), 3),
        "head_of_wall": round(head / wall, 3),
    }


def amdahl(rows: list[Row]) -> tuple[float, float]:
    """Serial and parallel seconds of a generation."""
    seconds = np.array([1 / row["generations_per_second"] for row in rows])
    workers = np.array([row["workers"] for row in rows])
    sides = np.stack([np.ones(len(rows)), 1 / workers], axis=1) / seconds[:, None]
    (serial, parallel), *_ = np.linalg.lstsq(sides, np.ones(len(rows)), rcond=None)
    return max(float(serial), 0.0), float(parallel)


def plot(rows: list[Row], serial: float, parallel: float, file: Path) -> None:
    """Measured generations per second, the fit, and what no overhead would give."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 3.6), dpi=110)
    workers = np.array([row["workers"] for row in rows])
    many = np.geomspace(workers[0], workers[-1], 100)
    measured = [row["generations_per_second"] for row in rows]
    axes.loglog(workers, measured, "o", label="measured")
    axes.loglog(many, 1 / (serial + parallel / many), "-", label="Amdahl's law, fitted")
    axes.loglog(many, many / parallel, ":", color="0.5", label="nothing serial")
    axes.set(xlabel="simulated workers", ylabel="generations per second")
    axes.legend(fontsize=8)
    axes.grid(alpha=0.25)
    figure.tight_layout()
    figure.savefig(file)


if __name__ == "__main__":
    main()
