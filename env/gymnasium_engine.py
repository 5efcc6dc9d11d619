"""Many episodes of any Gymnasium environment side by side, in a plain loop.

A plain loop, because `gymnasium.vector.SyncVectorEnv` steps the lander at 0.3 of its speed.
"""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Discrete
from gymnasium.wrappers import OrderEnforcing, TimeLimit

from env import make
from env.ids import task_of
from env.observations import encoder
from env.seeds import checked_seeds

# A used environment replays a seed otherwise than a new one: Box2D keeps the order of old contacts.
REBUILT = frozenset({"BipedalWalker-v3", "BipedalWalkerHardcore-v3"})


class GymnasiumEngine:
    """Lanes of one Gymnasium environment, made when first needed and reused with `reset(seed=)`.

    An environment for which reuse is not exact gets a new object per episode: those in `REBUILT`,
    and any whose class says `metadata = {"reusable": False}`.
    """

    name = "gymnasium"
    max_lanes = 64
    best_lanes = 32

    def __init__(self, env_id: str, env_kwargs: dict[str, Any] | None = None) -> None:
        """Make the first lane.

        Raises:
            EnvError: The environment cannot be made, or its observations cannot be served.
        """
        self._env_id = env_id
        self._env_kwargs = dict(env_kwargs or {})
        first = make(env_id, **self._env_kwargs)
        self.observation_space, self._encode = encoder(first.observation_space)
        self.action_space = first.action_space
        self._discrete = isinstance(first.action_space, Discrete)
        self._reusable = task_of(env_id) not in REBUILT and bool(
            first.metadata.get("reusable", True)
        )
        self._envs = [first]
        self._used = False
        self._steps: list[Callable[[Any], tuple]] = []
        self._limit: int | None = None
        self._elapsed = np.zeros(0, np.int64)

    def reset(self, seeds: np.ndarray) -> np.ndarray:
        """Begin one episode per seed.

        Args:
            seeds: int64[lanes].

        Returns:
            float32[lanes, ...]: the first observations.
        """
        checked = checked_seeds(seeds)
        if self._used and not self._reusable:
            self.close()
        while len(self._envs) < len(checked):
            self._envs.append(make(self._env_id, **self._env_kwargs))
        self._used = True
        cores = [_core(env) for env in self._envs[: len(checked)]]
        raw = [core.reset(seed=seed)[0] for (core, _), seed in zip(cores, checked, strict=True)]
        self._steps = [core.step for core, _ in cores]
        self._limit = cores[0][1]
        self._elapsed = np.zeros(len(checked), np.int64)
        return self._encode(raw)

    def step(
        self, actions: np.ndarray, lanes: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Step some lanes, none of which has ended.

        Args:
            actions: int64[n] or float32[n, ...], row i for lane lanes[i].
            lanes: int64[n].

        Returns:
            Observations float32[n, ...], rewards float64[n], done bool[n], in the order of `lanes`.
        """
        steps = self._steps
        raw: list[Any] = []
        rewards: list[float] = []
        done: list[bool] = []
        moves = actions.tolist() if self._discrete else actions
        for lane, action in zip(lanes.tolist(), moves, strict=True):
            observation, reward, terminated, truncated, _ = steps[lane](action)
            raw.append(observation)
            rewards.append(reward)
            done.append(terminated or truncated)
        ended = np.array(done, np.bool_)
        if self._limit is not None:
            self._elapsed[lanes] += 1
            ended |= self._elapsed[lanes] >= self._limit
        return self._encode(raw), np.array(rewards, np.float64), ended

    def picture(self) -> np.ndarray:
        """Draw the first lane, for which ``render_mode`` must be "rgb_array".

        Returns:
            uint8[height, width, 3].
        """
        drawn = _core(self._envs[0])[0].render()
        assert isinstance(drawn, np.ndarray), "render_mode is not rgb_array"
        return drawn

    def close(self) -> None:
        """Close every environment; a later reset makes new ones."""
        for env in self._envs:
            env.close()
        self._envs = []


def _core(env: gym.Env) -> tuple[gym.Env, int | None]:
    """Return what is under Gymnasium's outer bookkeeping, and the time limit that was taken off.

    The engine counts steps for all lanes at once and never steps before a reset, so the two
    outermost wrappers of `gym.make` would only cost time. Any other wrapper stays.
    """
    limit = None
    while type(env) in (TimeLimit, OrderEnforcing):
        if isinstance(env, TimeLimit):
            own = env._max_episode_steps
            limit = own if limit is None else min(limit, own)
        env = env.env  # type: ignore[attr-defined]
    return env, limit
