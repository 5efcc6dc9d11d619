"""What a policy is: one object that computes many parameter vectors side by side.

A *lane* is one running episode. The simulator loads one parameter vector per lane, and then asks
for the actions of whichever lanes are still running::

    policy.load(thetas, owners)            # lane i computes with thetas[owners[i]]
    policy.reset(lanes, seeds)             # these lanes begin an episode
    outputs = policy.act(observations, lanes)
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import gymnasium as gym
import numpy as np

from utils.names import did_you_mean

if TYPE_CHECKING:
    import torch


class PolicyError(ValueError):
    """A policy cannot be made or used as asked; the message is one line for the user."""


class Policy(Protocol):
    """A network evaluated for many lanes at once, each with parameters of its own.

    The result for a lane is the same bits whatever the other lanes are, however many there are
    and in which order they come. Parameters travel as one flat ``theta``: the parameters of
    ``module()`` in PyTorch's order, each flattened row by row.
    """

    num_params: int

    def initial_theta(self, rng: np.random.Generator) -> np.ndarray:
        """Draw float32[num_params] as PyTorch initialises the module, from `rng` alone."""

    def load(self, thetas: np.ndarray, owners: np.ndarray | None = None) -> None:
        """Let lane i compute with thetas[owners[i]] from now on; lanes forget what they knew.

        Args:
            thetas: float32[n, num_params]; copied.
            owners: int64[lanes], each below n; without it, lane i has thetas[i].
        """

    def reset(self, lanes: np.ndarray, seeds: np.ndarray | None = None) -> None:
        """Begin an episode in these lanes: forget recurrent state, start the noise anew.

        Args:
            lanes: int64[n].
            seeds: int64[n], what a Gaussian output draws its noise from; without it, 0 for all.
        """

    def act(self, observations: np.ndarray, lanes: np.ndarray) -> np.ndarray:
        """Compute one step of these lanes.

        Args:
            observations: float32[n, ...]; row r belongs to lane lanes[r].
            lanes: int64[n], without repeats. Passing the same array object again is the fast
                path, so a caller never changes such an array in place.
        Returns:
            float32[n, outputs] after the output activation. The next call may overwrite it.
        """

    def state_dict(self, theta: np.ndarray) -> dict[str, "torch.Tensor"]:
        """Write `theta` as the state_dict of ``module()``."""

    def theta_from_state_dict(self, state_dict: dict[str, "torch.Tensor"]) -> np.ndarray:
        """Read float32[num_params] back from a state_dict; exact inverse of `state_dict`."""

    def module(self) -> "torch.nn.Module":
        """Make the same network as a torch module in eval mode, with parameters of its own."""


METHODS = ("initial_theta", "load", "reset", "act", "state_dict", "theta_from_state_dict", "module")


def sizes(observation_space: gym.Space, action_space: gym.Space) -> tuple[int, int]:
    """Count the network's inputs and outputs.

    Args:
        observation_space: Box, Discrete (fed one-hot) or MultiBinary.
        action_space: Discrete(n) has n outputs, Box as many as it has entries.
    Raises:
        PolicyError: for spaces that are not one array of numbers.
    """
    if not isinstance(
        observation_space, gym.spaces.Box | gym.spaces.Discrete | gym.spaces.MultiBinary
    ):
        raise PolicyError(
            f"observations are {observation_space}; a policy reads a Box, Discrete or "
            "MultiBinary space: flatten them, e.g. with gymnasium's FlattenObservation"
        )
    inputs = gym.spaces.flatdim(observation_space)
    if isinstance(action_space, gym.spaces.Discrete):
        return inputs, int(action_space.n)
    if isinstance(action_space, gym.spaces.Box):
        return inputs, int(np.prod(action_space.shape, dtype=np.int64))
    raise PolicyError(f"actions are {action_space}; a policy drives a Discrete or Box space")


def checked_hidden_sizes(hidden_sizes: Sequence[int]) -> tuple[int, ...]:
    """Return the sizes as a tuple, or say what is wrong with them.

    Raises:
        PolicyError: unless `hidden_sizes` is a list of whole numbers from 1.
    """
    if not isinstance(hidden_sizes, Sequence) or isinstance(hidden_sizes, str):
        raise PolicyError(f"hidden_sizes={hidden_sizes!r}: give a list such as [64, 64]")
    for size in hidden_sizes:
        if not isinstance(size, int | np.integer) or isinstance(size, bool) or size < 1:
            raise PolicyError(
                f"hidden_sizes={list(hidden_sizes)!r}: {size!r} is not a whole number from 1"
            )
    return tuple(int(size) for size in hidden_sizes)


def checked_choice(setting: str, value: Any, known: Sequence[str]) -> str:
    """Return `value` if it is one of the `known` names.

    Raises:
        PolicyError: otherwise, with the nearest name and the whole list.
    """
    if isinstance(value, str) and value in known:
        return value
    hint = did_you_mean(str(value), known)
    raise PolicyError(f"no {setting} {value!r}.{hint} Known: {', '.join(known)}")
