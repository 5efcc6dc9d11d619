"""Named configs of the experiment, and workers for them, as a run has them."""

import contextlib
import secrets
from collections.abc import Iterator
from typing import Any

from sacred import Experiment

from es.experiment import ex as es
from evolution.evaluation import Evaluator
from evolution.noise import NoiseTable
from evolution.problem import Problem
from evolution.ray_cluster import open_cluster
from evolution.workplace import open_private_workplace


def named_config(name: str, seed: int, experiment: Experiment = es) -> dict[str, Any]:
    """All settings of `python es/experiment.py with NAME seed=SEED`, or of another experiment."""
    defaults: dict[str, Any] = {}
    for scope in experiment.configurations:
        defaults |= scope(preset=defaults)
    return {**defaults, **experiment.named_configs[name](preset=defaults), "seed": seed}


@contextlib.contextmanager
def redis_workers(
    count: int, problem: Problem, noise: NoiseTable, min_seconds: float
) -> Iterator[Evaluator]:
    """Workers at a server of our own, whatever else runs on this machine."""
    run_id = f"bench-{secrets.token_hex(4)}"
    with (
        open_private_workplace(count, problem.engine) as workplace,
        workplace.evaluator(problem, noise, run_id, min_seconds) as evaluator,
    ):
        yield evaluator


@contextlib.contextmanager
def ray_workers(
    count: int, problem: Problem, noise: NoiseTable, min_seconds: float
) -> Iterator[Evaluator]:
    """Actors of a private Ray; needs requirements-ray.txt."""
    with open_cluster(None, count):
        from evolution.ray_evaluator import RayEvaluator

        with RayEvaluator(problem, noise, num_workers=count, min_seconds=min_seconds) as actors:
            yield actors
