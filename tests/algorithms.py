"""Every experiment, small: what one process finds alone, all others must find too."""

import functools
from typing import Any

from commands import run_here
from sacred import Experiment

from es.experiment import ex as es
from ga.experiment import ex as ga
from nevergrad_es.experiment import ex as nevergrad

COMMON = {
    **{"seed": 3, "num_generations": 3, "max_ep_length": 60, "noise_size": 100_000},
    **{"eval_episodes": 3, "final_episodes": 4, "min_task_runtime": 0.0},
}
PARENTS = {"n_parents": 4, "champions": 2, "n_elite_candidates": 3, "n_evals": 2}
# One line for each experiment: itself, and what its config has beside the common things.
EXPERIMENTS: dict[str, tuple[Experiment, dict[str, Any]]] = {
    "es": (es, {"pop_size": 20}),
    "ga": (ga, {"pop_size": 20, **PARENTS}),
    "nevergrad": (nevergrad, {"pop_size": 20, "num_episodes": 1}),
}


def found(name: str, **where: Any) -> str:
    """The sha256 of the theta to which the lander's config comes.

    Args:
        name: of the experiment.
        where: config keys that say who evaluates.
    """
    experiment, own = EXPERIMENTS[name]
    run = run_here("lander", experiment=experiment, **{**COMMON, **own, **where})
    return run.info["theta sha256"]


@functools.cache
def found_alone(name: str) -> str:
    """Likewise, in this process alone."""
    return found(name, evaluator="local")
