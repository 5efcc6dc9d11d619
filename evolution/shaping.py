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
    if fitness.size < 2:
        raise ValueError(f"ranks need at least 2 values, got {fitness.size}")
    if np.isnan(fitness).any():
        raise ValueError("a fitness is NaN: it has no rank")
    _, group, counts = np.unique(fitness, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    mean_rank = last - (counts + 1) / 2  # ranks count from 0
    return (mean_rank[group] / (fitness.size - 1) - 0.5).astype(np.float32)
