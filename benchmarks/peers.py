"""EvoTorch's evaluation of the same candidates, one core; needs `requirements-bench.txt`."""

import logging
from collections.abc import Callable, Sequence

import numpy as np
import torch

HOW = "EvoTorch is not installed: pip install -r requirements-bench.txt adds it to this table"
ENVIRONMENTS = 64  # that VecGymNE steps together


def evotorch(
    env_id: str, hidden_sizes: Sequence[int], thetas: np.ndarray
) -> dict[str, Callable[[], float]]:
    """VecGymNE and GymNE on one task with tanh layers.

    Args:
        thetas: float32[candidates, dim].
    Returns:
        By name, functions that evaluate all candidates and return the number of steps.
    """
    from evotorch.neuroevolution import GymNE, VecGymNE

    logging.getLogger("evotorch").setLevel(logging.WARNING)  # its import has set it to INFO

    layers, width = [], "obs_length"
    for size in hidden_sizes:
        layers += [f"Linear({width}, {size})", "Tanh()"]
        width = str(size)
    network = " >> ".join([*layers, f"Linear({width}, act_length)"])
    problems = {
        "evotorch VecGymNE": VecGymNE(env_id, network, max_num_envs=ENVIRONMENTS),
        "evotorch GymNE": GymNE(env_id, network),
    }
    return {name: _evaluation(problem, thetas) for name, problem in problems.items()}


def _evaluation(problem: object, thetas: np.ndarray) -> Callable[[], float]:
    def play() -> float:
        before = problem.interaction_count
        batch = problem.generate_batch(len(thetas))
        batch.set_values(torch.from_numpy(thetas))
        problem.evaluate(batch)
        return problem.interaction_count - before

    return play
