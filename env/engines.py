"""Engines play many episodes side by side; a lane is one running episode.

    engine = make_engine(resolve_engine("auto", env_id, {}), env_id, {})
    observations = engine.reset(seeds)            # one lane per seed
    while len(lanes):
        observations, rewards, done = engine.step(actions, lanes)
        ...                                       # go on with the lanes that are not done

What a lane sees depends on its own seed and actions alone: not on its number, on how many lanes
there are, or on what the others do.
"""

from importlib import metadata
from typing import Any, Protocol

import gymnasium as gym
import numpy as np

from env import atari
from env.atari import AtariEngine, is_atari
from env.envpool_engine import EnvPoolEngine, is_installed, plays_the_same
from env.errors import EnvError
from env.gymnasium_engine import GymnasiumEngine
from env.ids import current_id, task_of
from env.partially_observable import VARIANTS
from env.sphere import SphereEngine
from utils.names import did_you_mean

CHOICES = ("auto", "envpool", "gymnasium", "atari")
# Tasks that compute all lanes together in NumPy; for them 'auto' and 'envpool' mean this.
BATCHED = {"Sphere-v0": SphereEngine}
# The package that does the physics behind a Gymnasium entry point (Gymnasium 1.1 took box2d-py).
PHYSICS = {
    "gymnasium.envs.box2d": ("box2d", "box2d-py"),
    "gymnasium.envs.mujoco": ("mujoco",),
    "ale_py": (atari.PACKAGE,),
}


class VectorEngine(Protocol):
    """Lanes that step together; each plays exactly one episode from its own seed."""

    name: str  # "gymnasium", "envpool", "batched" or "atari"
    max_lanes: int  # more lanes than this per reset gain nothing
    best_lanes: int  # so many step together fastest: they share a call's cost, and the caches

    @property
    def observation_space(self) -> gym.Space:
        """What a policy sees: always a Box of float32 (`env.observations`)."""

    @property
    def action_space(self) -> gym.Space:
        """What `step` takes, as Gymnasium says it."""

    def reset(self, seeds: np.ndarray) -> np.ndarray:
        """Begin one episode per seed: int64[lanes], each in [0, 2**31), to float32[lanes, ...]."""

    def step(
        self, actions: np.ndarray, lanes: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Step only these lanes, none of which is done.

        Args:
            actions: one per given lane, as `env.actions` makes them.
            lanes: int64[n], any distinct lanes in any order; never changed in place afterwards.

        Returns:
            Observations float32[n, ...], rewards float[n], done bool[n] in the order of `lanes`.
        """

    def close(self) -> None:
        """Let go of the environments."""


class MaskedEngine:
    """An engine for a base task whose observations read 0 in the hidden components."""

    def __init__(self, engine: VectorEngine, hidden: tuple[int, ...]) -> None:
        self._engine = engine
        self._hidden = hidden
        self.name = engine.name
        self.max_lanes = engine.max_lanes
        self.best_lanes = engine.best_lanes
        self.observation_space = engine.observation_space
        self.action_space = engine.action_space

    def reset(self, seeds: np.ndarray) -> np.ndarray:
        """Begin one episode per seed of the base task."""
        return self._mask(self._engine.reset(seeds))

    def step(
        self, actions: np.ndarray, lanes: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Step these lanes of the base task."""
        observations, rewards, done = self._engine.step(actions, lanes)
        return self._mask(observations), rewards, done

    def close(self) -> None:
        """Close the engine underneath."""
        self._engine.close()

    def _mask(self, observations: np.ndarray) -> np.ndarray:
        # An engine hands over arrays that nobody else holds, so they may be written to.
        for component in self._hidden:
            observations[:, component] = 0
        return observations


def resolve_engine(engine: str, env_id: str, env_kwargs: dict[str, Any] | None = None) -> str:
    """Say which engine plays this environment: "gymnasium", "envpool", "batched" or "atari".

    'auto' takes our own for Atari games, and EnvPool where it is installed and its task is known
    to be Gymnasium's; it finds out without importing EnvPool.

    Raises:
        EnvError: The engine or the environment is not known, or EnvPool is asked for and cannot.
    """
    if engine not in CHOICES:
        raise EnvError(
            f"no engine {engine!r}; choose from {', '.join(CHOICES)}."
            f"{did_you_mean(engine, CHOICES)}"
        )
    task, env_kwargs = _base(current_id(env_id)), env_kwargs or {}
    if engine == "gymnasium":
        return "gymnasium"
    if task_of(task) in BATCHED:
        return "batched"
    if engine == "atari" or (engine == "auto" and is_atari(task_of(task))):
        if not is_atari(task_of(task)):
            raise EnvError(f"engine 'atari' plays ids such as ALE/Frostbite-v5, not {env_id}")
        return "atari"
    if engine == "auto":
        return "envpool" if is_installed() and plays_the_same(task, env_kwargs) else "gymnasium"
    if not (is_installed() and plays_the_same(task, env_kwargs)):
        EnvPoolEngine(task, env_kwargs).close()  # says what is wrong
    return "envpool"


def make_engine(name: str, env_id: str, env_kwargs: dict[str, Any] | None = None) -> VectorEngine:
    """Make the engine that `resolve_engine` named.

    Raises:
        EnvError: The engine is not known, or cannot play this environment.
    """
    env_id = current_id(env_id)
    task = task_of(env_id)
    if task in VARIANTS:
        base, hidden = VARIANTS[task]
        return MaskedEngine(make_engine(name, base, env_kwargs), hidden)
    if name == "gymnasium":
        return GymnasiumEngine(env_id, env_kwargs)
    if name == "envpool":
        return EnvPoolEngine(env_id, env_kwargs)
    if name == "atari" and is_atari(task):
        return AtariEngine(task, env_kwargs)
    if name == "batched" and task in BATCHED:
        return BATCHED[task](**(env_kwargs or {}))
    raise EnvError(f"no engine {name!r} for {env_id}; ask resolve_engine() for one")


def versions(name: str, env_id: str) -> dict[str, str]:
    """Return the packages whose versions decide the numbers of this engine on this environment.

    Two like machines on which they agree play the same episodes. What is not installed is left out.
    """
    packages = {
        "envpool": ("envpool",),
        "batched": ("numpy",),
        "atari": ("numpy", atari.PACKAGE),
        "gymnasium": ("gymnasium", "numpy", *_behind(_base(current_id(env_id)))),
    }
    if name not in packages:
        raise EnvError(f"no engine {name!r}.{did_you_mean(name, packages)}")
    found = {package: _version(package) for package in packages[name]}
    return {package: version for package, version in found.items() if version is not None}


def _base(env_id: str) -> str:
    """Return the task that is played underneath a partially observable one."""
    task = task_of(env_id)
    return VARIANTS[task][0] if task in VARIANTS else env_id


def _behind(env_id: str) -> tuple[str, ...]:
    """Return the packages whose code the environment runs, under the names they may have."""
    entry_point = str(gym.registry[task_of(env_id)].entry_point)
    for prefix, packages in PHYSICS.items():
        if entry_point.startswith(prefix):
            return packages
    return (entry_point.partition(":")[0].partition(".")[0],)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
