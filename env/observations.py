"""From whatever an environment shows to the float32 array a policy sees."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Discrete, Space, Tuple

from env.errors import EnvError

Raw = np.ndarray | Sequence[Any]  # one observation per lane
Encode = Callable[[Raw], np.ndarray]


def encoder(space: Space) -> tuple[Box, Encode]:
    """Return the space a policy sees and the function that brings a batch there.

    | space | becomes |
    |---|---|
    | Box, any shape | float32, the same shape and the same numbers |
    | Discrete(n) | float32[n], one-hot |
    | Tuple of these, nested too | float32[sum of sizes], flattened and joined |

    Returns:
        The space after, and a function from one raw observation per lane (an array or a sequence)
        to float32[lanes, ...]. A float32 array passes through without a copy.

    Raises:
        EnvError: The space is, or holds, another kind.
    """
    if isinstance(space, Box):
        return _float32(space), _encode_box
    if isinstance(space, Discrete):
        return Box(0.0, 1.0, (int(space.n),), np.float32), _one_hot(int(space.n), int(space.start))
    if isinstance(space, Tuple) and len(space.spaces) > 0:
        return _joined(space)
    raise EnvError(
        f"observation space {space} is not served; Box, Discrete and Tuples of these are. "
        "Wrap the environment (gymnasium.wrappers.FlattenObservation serves most other spaces)"
    )


def _float32(space: Box) -> Box:
    with np.errstate(over="ignore"):  # the largest float64 becomes infinity, which is meant
        return Box(space.low.astype(np.float32), space.high.astype(np.float32), dtype=np.float32)


def _encode_box(raw: Raw) -> np.ndarray:
    return np.asarray(raw, dtype=np.float32)


def _one_hot(size: int, start: int) -> Encode:
    def encode(raw: Raw) -> np.ndarray:
        index = np.asarray(raw).reshape(len(raw)) - start
        batch = np.zeros((len(index), size), np.float32)
        batch[np.arange(len(index)), index] = 1.0
        return batch

    return encode


def _joined(space: gym.spaces.Tuple) -> tuple[Box, Encode]:
    parts = [encoder(part) for part in space.spaces]
    sizes = [math.prod(after.shape) for after, _ in parts]

    def encode(raw: Raw) -> np.ndarray:
        columns = [
            part([row[position] for row in raw]).reshape(len(raw), size)
            for position, ((_, part), size) in enumerate(zip(parts, sizes, strict=True))
        ]
        return np.concatenate(columns, axis=1)

    low = np.concatenate([after.low.ravel() for after, _ in parts])
    high = np.concatenate([after.high.ravel() for after, _ in parts])
    return Box(low, high, dtype=np.float32), encode
