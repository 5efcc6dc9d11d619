"""The sphere function as a one-step environment: the quickest check that a strategy learns."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box

from env.seeds import checked_seeds

DIMENSIONS = 10


def sphere_rewards(actions: np.ndarray) -> np.ndarray:
    """Return -sum(a²) per lane, summed one component after the other in float64.

    Args:
        actions: float[lanes, 10].

    Returns:
        float64[lanes]; a row gives the same bits in any batch.
    """
    rewards = np.zeros(len(actions))
    for component in np.asarray(actions, dtype=np.float64).T:
        rewards -= component * component
    return rewards


def _spaces() -> tuple[Box, Box]:
    return (
        Box(1.0, 1.0, (1,), np.float32),
        Box(-1.0, 1.0, (DIMENSIONS,), np.float32),
    )


class Sphere(gym.Env):
    """One step; reward -sum(a²) over 10 components; the observation is always 1.

    The best action is 0, which is also what a policy with all parameters at zero gives, so progress
    can only be seen from a start away from zero. The action is not clipped.
    """

    def __init__(self) -> None:
        self.observation_space, self.action_space = _spaces()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin an episode; nothing is random here, the seed is taken for form's sake."""
        super().reset(seed=seed, options=options)
        return np.ones(1, np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Give the reward of the action and end the episode."""
        reward = float(sphere_rewards(np.asarray(action)[None])[0])
        return np.ones(1, np.float32), reward, True, False, {}


class SphereEngine:
    """All lanes of the sphere at once; the same bits as `Sphere` gives one by one."""

    name = "batched"
    max_lanes = 4096
    best_lanes = 4096

    def __init__(self) -> None:
        self.observation_space, self.action_space = _spaces()

    def reset(self, seeds: np.ndarray) -> np.ndarray:
        """Begin one episode per seed and return float32[lanes, 1]."""
        return np.ones((len(checked_seeds(seeds)), 1), np.float32)

    def step(
        self, actions: np.ndarray, lanes: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """End the episodes of these lanes with their rewards."""
        count = len(lanes)
        return np.ones((count, 1), np.float32), sphere_rewards(actions), np.ones(count, np.bool_)

    def close(self) -> None:
        """Nothing is held."""


gym.register(id="Sphere-v0", entry_point="env.sphere:Sphere")
