"""From the numbers a policy puts out to the actions an environment takes."""

import math
from collections.abc import Callable

import numpy as np
from gymnasium.spaces import Box, Discrete, Space

from env.errors import EnvError
from utils.names import did_you_mean

SCALINGS = ("none", "clip", "tanh")
Decode = Callable[[np.ndarray], np.ndarray]


def num_outputs(action_space: Space) -> int:
    """Return how many numbers a policy puts out per action: one per choice, or one per component.

    Raises:
        EnvError: The action space is neither Discrete nor a Box of floats.
    """
    if isinstance(action_space, Discrete):
        return int(action_space.n)
    if isinstance(action_space, Box) and np.issubdtype(action_space.dtype, np.floating):
        return math.prod(action_space.shape)
    raise EnvError(
        f"action space {action_space} is not served; Discrete and Box of floats are. "
        "Wrap the environment to offer one of them"
    )


def decoder(action_space: Space, scaling: str = "none") -> Decode:
    """Return the function from float32[lanes, outputs] to one action per lane.

    Discrete actions are the position of the largest output (the first of equals), whatever the
    scaling. For a Box:

    | scaling | action |
    |---|---|
    | none | the outputs as they are; the environment deals with what is out of bounds |
    | clip | the outputs, cut to the bounds |
    | tanh | low + (tanh(output) + 1) / 2 * (high - low) |

    Returns:
        A function to int64[lanes] (Discrete) or float32[lanes, ...] (Box).

    Raises:
        EnvError: The scaling or the action space is not served, or tanh lacks a finite bound.
    """
    num_outputs(action_space)
    if scaling not in SCALINGS:
        raise EnvError(
            f"no action scaling {scaling!r}; choose from {', '.join(SCALINGS)}."
            f"{did_you_mean(scaling, SCALINGS)}"
        )
    if isinstance(action_space, Discrete):
        return _argmax(int(action_space.start))
    assert isinstance(action_space, Box)
    return _box_decoder(action_space, scaling)


def _argmax(start: int) -> Decode:
    if start == 0:
        return lambda outputs: outputs.argmax(axis=1)
    return lambda outputs: outputs.argmax(axis=1) + start


def _box_decoder(space: Box, scaling: str) -> Decode:
    shape = space.shape
    low, high = space.low.astype(np.float32), space.high.astype(np.float32)
    if scaling == "none":
        return lambda outputs: outputs.reshape(len(outputs), *shape)
    if scaling == "clip":
        if low.size and (low == low.flat[0]).all() and (high == high.flat[0]).all():
            # One bound for all components: the same result in a quarter of the time.
            low, high = np.array(low.flat[0]), np.array(high.flat[0])
        if len(shape) == 1:
            return lambda outputs: outputs.clip(low, high)
        return lambda outputs: outputs.reshape(len(outputs), *shape).clip(low, high)
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise EnvError(f"action scaling 'tanh' needs finite bounds, {space} has none: use 'none'")
    half = (high - low) / np.float32(2)

    def squash(outputs: np.ndarray) -> np.ndarray:
        unit = np.tanh(outputs.reshape(len(outputs), *shape)) + np.float32(1)
        # Rounding may step over the bound by one unit in the last place.
        return np.clip(low + unit * half, low, high)

    return squash
