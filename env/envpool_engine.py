"""The fast path: EnvPool steps many lanes of a task in one C++ call.

EnvPool fixes its seeds when a pool is made, so every reset makes a pool. One thread per pool: a
worker is one process per core. EnvPool's random streams differ from Gymnasium's, so the same seed
begins another episode of the same task there.
"""

import importlib.util
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Discrete, Space

from env import make
from env.atari import envpool_task
from env.errors import EnvError
from env.ids import task_of
from env.observations import encoder
from env.seeds import checked_seeds
from utils.names import did_you_mean

# Tasks compared with Gymnasium's on lengths, returns and observations of random play: `auto` takes
# EnvPool for these and no others. Any other task of EnvPool's is played when asked for by name.
SAME_TASKS = frozenset(
    {
        *("Acrobot-v1", "CartPole-v1", "MountainCar-v0", "MountainCarContinuous-v0", "Pendulum-v1"),
        *("LunarLander-v3", "LunarLanderContinuous-v3"),
        *("BipedalWalker-v3", "BipedalWalkerHardcore-v3"),
        *("CliffWalking-v1", "CliffWalkingSlippery-v1", "FrozenLake-v1", "FrozenLake8x8-v1"),
        *("Ant-v5", "HalfCheetah-v5", "Hopper-v5", "Humanoid-v5", "HumanoidStandup-v5"),
        *("InvertedDoublePendulum-v5", "InvertedPendulum-v5"),
        *("Pusher-v5", "Reacher-v5", "Swimmer-v5", "Walker2d-v5"),
    }
)
# Keywords that mean the same to both; with any other, `auto` leaves EnvPool alone.
SAME_KEYWORDS = frozenset({"max_episode_steps"})

# lanes int32[n], actions -> lanes as received, observations, rewards, done
Exchange = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]


def is_installed() -> bool:
    """Tell whether EnvPool is there, without importing it (which takes over a second)."""
    return importlib.util.find_spec("envpool") is not None


def plays_the_same(env_id: str, env_kwargs: dict[str, Any]) -> bool:
    """Tell whether EnvPool's task is known to be Gymnasium's, without importing EnvPool."""
    return task_of(env_id) in SAME_TASKS and SAME_KEYWORDS.issuperset(env_kwargs)


class EnvPoolEngine:
    """Lanes of one EnvPool task."""

    name = "envpool"
    max_lanes = 256
    best_lanes = 128

    def __init__(self, env_id: str, env_kwargs: dict[str, Any] | None = None) -> None:
        """Compare EnvPool's spaces with Gymnasium's; the latter are what a policy sees.

        Raises:
            EnvError: EnvPool is not installed, or does not serve the task as Gymnasium does.
        """
        self._task, self._env_kwargs = envpool_task(task_of(env_id), dict(env_kwargs or {}))
        spec = _spec(self._task, self._env_kwargs)
        plain = make(env_id, **(env_kwargs or {}))
        plain.close()
        _compare(self._task, spec, plain)
        self.observation_space, self._encode = encoder(plain.observation_space)
        self.action_space = plain.action_space
        self._action_shape: tuple[int, ...] = plain.action_space.shape or ()
        self._action_type = spec.action_array_spec["action"].dtype
        self._pool: Any = None
        self._exchange: Exchange | None = None
        self._lanes = 0
        self._given: np.ndarray | None = None  # by the last call of `step`, …
        self._sent = np.zeros(0, np.int32)  # … as EnvPool takes it, …
        self._in_order = b""  # … and its bytes
        self._expected: tuple[int, ...] = ()

    def reset(self, seeds: np.ndarray) -> np.ndarray:
        """Begin one episode per seed, in a new pool.

        Args:
            seeds: int64[lanes], each in [0, 2**31).

        Returns:
            float32[lanes, ...]: the first observations.
        """
        import envpool

        checked = checked_seeds(seeds)
        self.close()
        self._lanes = len(checked)
        self._pool = envpool.make_gymnasium(
            self._task, num_envs=self._lanes, seed=checked, num_threads=1, **self._env_kwargs
        )
        self._exchange = _direct_exchange(self._pool) or _public_exchange(self._pool)
        raw, info = self._pool.reset()
        order = info["env_id"]
        return self._encode(raw[np.argsort(order)])

    def step(
        self, actions: np.ndarray, lanes: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Step some lanes, none of which has ended (EnvPool would begin it anew).

        Args:
            actions: int64[n] or float32[n, ...], row i for lane lanes[i].
            lanes: int64[n], never changed in place by the caller.

        Returns:
            Observations float32[n, ...], rewards float32[n] or as the task gives them, done
            bool[n], in the order of `lanes`.
        """
        assert self._exchange is not None, "reset() comes before step()"
        if lanes is not self._given:  # the same array comes back until an episode ends
            self._given, self._sent = lanes, np.ascontiguousarray(lanes, np.int32)
            self._in_order = self._sent.tobytes()
            self._expected = (len(lanes), *self._action_shape)
        moves = np.ascontiguousarray(actions, self._action_type)
        if moves.shape != self._expected:
            raise ValueError(
                f"actions have shape {moves.shape}, {len(lanes)} lanes need {self._expected}"
            )
        received, raw, rewards, done = self._exchange(self._sent, moves)
        if received.tobytes() != self._in_order:
            rows = np.empty(self._lanes, np.int64)
            rows[received] = np.arange(len(received))
            rows = rows[self._sent]
            raw, rewards, done = raw[rows], rewards[rows], done[rows]
        return self._encode(raw), rewards, done

    def close(self) -> None:
        """Let the pool and its thread go; a later reset makes another."""
        if self._pool is not None:
            self._pool.close()
        self._pool = self._exchange = None


def _spec(task: str, env_kwargs: dict[str, Any]) -> Any:
    if not is_installed():
        raise EnvError(
            "engine 'envpool' needs a package that is not installed: pip install envpool, "
            "or choose engine 'gymnasium'"
        )
    import envpool

    known = envpool.list_all_envs()
    if task not in known:
        raise EnvError(
            f"EnvPool has no task {task!r}: use engine 'gymnasium'.{did_you_mean(task, known)}"
        )
    try:
        return envpool.make_spec(task, **env_kwargs)
    except TypeError as error:
        raise EnvError(f"EnvPool's {task} cannot be made with {env_kwargs}: {error}") from error


def _compare(task: str, spec: Any, plain: gym.Env) -> None:
    """Refuse a task whose spaces are not those of the Gymnasium environment of the same id."""
    pairs = (
        ("observations", spec.observation_space, plain.observation_space),
        ("actions", spec.action_space, plain.action_space),
    )
    for what, ours, theirs in pairs:
        if not _same_form(ours, theirs):
            raise EnvError(
                f"EnvPool's {task} has {what} {ours}, Gymnasium's {theirs}: use engine 'gymnasium'"
            )


def _same_form(one: Space, other: Space) -> bool:
    if isinstance(one, Discrete) and isinstance(other, Discrete):
        return bool(one.n == other.n and one.start == other.start)
    return isinstance(one, Box) and isinstance(other, Box) and one.shape == other.shape


def _direct_exchange(pool: Any) -> Exchange | None:
    """Return a call of the C++ layer, or None if its layout is not the one known.

    It saves the up to 75 µs a step that the public `step` takes in Python to build dicts.
    """
    actions = list(getattr(getattr(pool, "_spec", None), "_action_keys", ()))
    states = list(getattr(pool, "_state_keys", ()))
    wanted = ("info:env_id", "obs", "reward", "done")
    callable_layer = hasattr(pool, "_send") and hasattr(pool, "_recv")
    if not callable_layer or actions != ["env_id", "players.env_id", "action"]:
        return None
    if not set(wanted) <= set(states):
        return None
    lane, observation, reward, done = (states.index(key) for key in wanted)
    send, receive = pool._send, pool._recv

    def exchange(
        lanes: np.ndarray, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        send([lanes, lanes, actions])
        state = receive()
        return state[lane], state[observation], state[reward], state[done]

    return exchange


def _public_exchange(pool: Any) -> Exchange:
    def exchange(
        lanes: np.ndarray, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        observations, rewards, terminated, truncated, info = pool.step(actions, lanes)
        return info["env_id"], observations, rewards, terminated | truncated

    return exchange
