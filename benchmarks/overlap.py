"""Generations asked ahead: how busy that keeps the workers, and what it costs in learning.

    python benchmarks/overlap.py [--quick] [--json FILE]

First 64 simulated workers (see `simulated.py`) at the real head, 64 candidates that are evaluated
one by one, with measured lengths of lander episodes: the share of the workers' time in which they
are at work, and the most that is possible: a generation is told at the earliest when its longest
episode ends, so that with overlap k no worker can be busy for more than (k + 1) · mean / longest.
Then the config `lander`: generations until the mean return of theta over 10 of them is 200, which
workers do not change.
"""

import secrets
import statistics
import time

import numpy as np
from common import Row, machine, parser, show, write_json
from crew import named_config
from simulated import IN_TRAINING, LENGTHS, UNTRAINED, Crowd, simulated

from cluster.redis_server import connect, start_server
from es.experiment import make_strategy
from evolution.evaluation import LocalEvaluator, Part
from evolution.loop import evolve
from evolution.noise import NoiseTable
from evolution.population import Dense
from evolution.problem import choose_problem, problem_of
from evolution.redis_evaluator import RedisEvaluator
from evolution.settings import RunSettings

WORKERS = 64
OVERLAPS = (0, 1, 2)
SECONDS_PER_STEP = 1e-3
GOAL = 200.0
SEEDS = range(1, 6)
MOST_GENERATIONS = 300


def main() -> None:
    chosen = parser(__doc__).parse_args()
    print(machine())
    phases = (IN_TRAINING,) if chosen.quick else (UNTRAINED, IN_TRAINING)
    generations = 5 if chosen.quick else 25
    busy = [
        busy_row(phase, overlap, relays, generations)
        for phase in phases
        for relays in ((0,) if chosen.quick else (0, 8))
        for overlap in OVERLAPS
    ]
    show(f"share of {WORKERS} workers' time at work, population {WORKERS}", busy)
    learnt: list[Row] = []
    if not chosen.quick:
        learnt = [learning_row(seed) for seed in SEEDS]
        times = statistics.median(row["times"] for row in learnt)
        learnt.append({"seed": "median", "times": times})
        show(f"lander: generations until a mean of {GOAL:.0f} over 10", learnt)
    write_json(chosen.json, busy + learnt)


def busy_row(phase: str, overlap: int, relays: int, generations: int) -> Row:
    """How busy the workers are in the middle of a run."""
    problem = choose_problem(env_name="Sphere-v0", policy_kwargs={"hidden_sizes": []})
    crowd = Crowd(relays or WORKERS, WORKERS // (relays or WORKERS), SECONDS_PER_STEP, phase)
    task = [Part(Dense(np.zeros((WORKERS, 20), np.float32)), np.zeros((WORKERS, 1), np.int64))]
    with (
        NoiseTable(1000, 1) as noise,
        start_server() as server,
        simulated(server.url, crowd),
        RedisEvaluator(
            connect(server.url), problem, noise, run_id=f"1-{secrets.token_hex(4)}"
        ) as evaluator,
    ):
        for _ in range(overlap):
            evaluator.submit(task)
        worked, longest, steps = 0.0, list[int](), list[float]()
        started = time.perf_counter()
        for number in range(generations + 2):
            if number == 2:  # by now it goes on evenly
                worked, started = 0.0, time.perf_counter()
            evaluator.submit(task)
            (got,) = evaluator.gather()
            worked += sum(answer.seconds.sum() for answer in evaluator.answers())
            longest.append(int(got.steps.max()))
            steps.append(float(got.steps.mean()))
        wall = time.perf_counter() - started
        evaluator.discard()
    most = (overlap + 1) * statistics.mean(steps) / statistics.mean(longest)
    return {
        "lengths": phase,
        "longest_over_mean": round(LENGTHS[phase].max() / LENGTHS[phase].mean(), 2),
        "relays": relays,
        "overlap": overlap,
        "busy": round(worked / (WORKERS * wall), 3),
        "possible": round(min(most, 1.0), 3),
        "generations_per_second": round(generations / wall, 3),
    }


def learning_row(seed: int) -> Row:
    """Generations that a run needs, with every update in time and with each one late."""
    needed = {overlap: generations_to_goal(seed, overlap) for overlap in (0, 1)}
    named = {f"overlap {overlap}": count for overlap, count in needed.items()}
    return {"seed": seed, **named, "times": round(needed[1] / needed[0], 3)}


def generations_to_goal(seed: int, overlap: int) -> int:
    """Until "current fitness", averaged over 10 generations, is at the goal."""
    config = named_config("lander", seed)
    settings, problem = RunSettings.from_config(config), problem_of(config)
    policy, seeding = problem.make_policy(), settings.seeding()
    number = 0
    with settings.noise_table() as noise, LocalEvaluator(problem, noise) as evaluator:
        for generation in evolve(
            make_strategy(config, policy, noise, seeding),
            evaluator,
            generations=MOST_GENERATIONS,
            episodes=settings.num_episodes,
            eval_episodes=settings.eval_episodes,
            seeding=seeding,
            stop_fitness=GOAL,
            overlap=overlap,
        ):
            number = generation.number + 1
    return number


if __name__ == "__main__":
    main()
