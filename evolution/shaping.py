"""Fitness shaping: from raw fitness to utilities."""

import numpy as np


def centered_ranks(fitness: np.ndarray) -> np.ndarray:
    """Replace each value by its rank, scaled to [-0.5, 0.5].

    Ties share their mean rank, so that equal candidates pull equally hard. Salimans et al. 2017,
    section 2.1.

    Args:
        fitness: float32[n] with n >= 2.
    Returns:
        float32[n]; a lone worst is -0.5, a lone best 0.5; the sum is 0.
    Raises:
        ValueError: fewer than two values, or one that is not a number.
    """
    group, counts = _ties(fitness)
    last = np.cumsum(counts)
    mean_rank = last - (counts + 1) / 2  # ranks count from 0
    return (mean_rank[group] / (fitness.size - 1) - 0.5).astype(np.float32)


def log_ranks(fitness: np.ndarray) -> np.ndarray:
    """Let the best count most, and the worse half all alike.

    The utilities of natural evolution strategies, max(0, ln(n/2 + 1) - ln(k)) for the k-th best,
    less their mean. Wierstra et al. 2014, section 3.1. Theirs sum up to 1 before; here their
    standard deviation is that of ``centered_ranks``, so that a weight decay goes with either.
    Ties share their mean utility.

    Args:
        fitness: float32[n] with n >= 2.
    Returns:
        float32[n]; the sum is 0.
    Raises:
        ValueError: fewer than two values, or one that is not a number.
    """
    group, counts = _ties(fitness)
    size = fitness.size
    steps = np.log(size / 2 + 1) - np.log(np.arange(size, 0, -1))  # of the worst first
    utilities = np.maximum(0.0, steps)
    utilities -= utilities.mean()
    utilities *= np.sqrt(1 / 12) / utilities.std()
    shared = np.add.reduceat(utilities, np.cumsum(counts) - counts) / counts
    if len(counts) == 1:
        shared = np.zeros(1)  # all alike: exactly nothing to choose
    return shared[group].astype(np.float32)


SHAPINGS = {"centered_ranks": centered_ranks, "log_ranks": log_ranks}


def _ties(fitness: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which group of equals each belongs to, the worst first, and how many each has."""
    if fitness.size < 2:
        raise ValueError(f"ranks need at least 2 values, got {fitness.size}")
    if np.isnan(fitness).any():
        raise ValueError("a fitness is NaN: it has no rank")
    _, group, counts = np.unique(fitness, return_inverse=True, return_counts=True)
    return group, counts
