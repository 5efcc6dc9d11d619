"""Environment seeds: the check that every engine makes before it plays."""

import numpy as np

from env.errors import EnvError

SEED_LIMIT = 2**31  # EnvPool holds a seed in a C++ int


def checked_seeds(seeds: np.ndarray) -> list[int]:
    """Return the seeds as Python ints.

    Args:
        seeds: int64[lanes], each in [0, 2**31).

    Raises:
        EnvError: There is no seed, or one is out of range.
    """
    array = np.asarray(seeds)
    if array.ndim != 1 or array.size == 0 or not np.issubdtype(array.dtype, np.integer):
        raise EnvError(
            f"environment seeds have shape {array.shape} and type {array.dtype}; "
            "a reset needs int64[lanes] with at least one lane"
        )
    if array.min() < 0 or array.max() >= SEED_LIMIT:
        raise EnvError(
            f"environment seeds span {array.min()} to {array.max()}; "
            "every one must be in [0, 2**31)"
        )
    return [int(seed) for seed in array]
