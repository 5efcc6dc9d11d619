"""Which id an environment has today.

Experiments outlive the ids of their environments: Gym dropped versions, PyBullet and Roboschool are
gone. `current_id` maps what a config says to what Gymnasium can make now, and says so once.
"""

import functools
import importlib
import logging
import re

import gymnasium as gym
from gymnasium.envs.registration import find_highest_version, parse_env_id

from env.errors import EnvError
from utils.names import did_you_mean

log = logging.getLogger(__name__)

# The names of the seed project's own environments, which it gave no version.
OWN_NAMES = {
    "sphere": "Sphere-v0",
    "Sphere": "Sphere-v0",
    "PartiallyObservablePendulum": "PartiallyObservablePendulum-v0",
    "PartiallyObservableCartPole": "PartiallyObservableCartPole-v0",
    "PartiallyObservableCartPoleEasy": "PartiallyObservableCartPoleEasy-v0",
}
MUJOCO_VERSION = 5
# Bodies that PyBullet and Roboschool share with MuJoCo: their spelling, lower case -> Gymnasium's.
BODIES = {
    name.lower(): name
    for name in (
        "Ant",
        "HalfCheetah",
        "Hopper",
        "Humanoid",
        "HumanoidStandup",
        "InvertedDoublePendulum",
        "InvertedPendulum",
        "Pusher",
        "Reacher",
        "Swimmer",
        "Walker2d",
    )
}
# AntPyBulletEnv-v0, AntBulletEnv-v0 and AntMuJoCoEnv-v0 (pybullet-gym), RoboschoolAnt-v1.
PYBULLET = re.compile(r"(?P<body>\w+?)(PyBullet|Bullet|MuJoCo)Env-v\d+")
ROBOSCHOOL = re.compile(r"Roboschool(?P<body>\w+)-v\d+")
# Versions that Gymnasium lists but does not make with today's MuJoCo.
OLD_MUJOCO = re.compile(r"(?P<body>\w+)-v[0-3]")
# The ids that Atari games had: with us they all mean DeepMind's configuration.
OLD_ATARI = re.compile(r"(?P<game>\w+?)(NoFrameskip|Deterministic)-v[04]")
# Ids that Gymnasium still lists: it calls the first out of date, and cannot make the second.
REPLACED = {"CartPole-v0": "CartPole-v1", "Pusher-v4": f"Pusher-v{MUJOCO_VERSION}"}


@functools.cache
def current_id(env_id: str) -> str:
    """Return the id under which Gymnasium makes this environment today.

    A replaced id is logged, once per process. For 'package.module:Id-v0' the module is imported.

    Raises:
        EnvError: Nobody knows the id, or its module does not import.
    """
    module, _, name = str(env_id).rpartition(":")
    if module:
        _import(module, env_id)
    own = OWN_NAMES.get(name) or OWN_NAMES.get(name.removesuffix("-v0"))
    if own is not None:
        today = own
    else:
        today = _retired(name) or _registered(name)
        if today != name:
            log.warning("%s is retired: using %s", name, today)
    return f"{module}:{today}" if module else today


def task_of(env_id: str) -> str:
    """Return the id without the module that registers it."""
    return env_id.rpartition(":")[2]


def _import(module: str, env_id: str) -> None:
    try:
        importlib.import_module(module)
    except Exception as error:  # whatever a user's module does while it is imported
        raise EnvError(
            f"environment {env_id!r}: module {module!r} does not import "
            f"({type(error).__name__}: {error})"
        ) from error


def _retired(name: str) -> str | None:
    if name in REPLACED:
        return REPLACED[name]
    for pattern in (PYBULLET, ROBOSCHOOL, OLD_MUJOCO):
        match = pattern.fullmatch(name)
        body = BODIES.get(match["body"].lower()) if match else None
        if body is not None:
            return f"{body}-v{MUJOCO_VERSION}"
    if match := OLD_ATARI.fullmatch(name):
        return _registered(f"ALE/{match['game']}-v5")
    return None


def _registered(name: str) -> str:
    """Return the id itself if it is registered, else the newest version of it."""
    if name not in gym.registry and name.startswith("ALE/"):
        _register_atari(name)
    if name in gym.registry:
        return name
    try:
        namespace, base, version = parse_env_id(name)
    except gym.error.Error as error:
        raise EnvError(_unknown(name)) from error
    newest = find_highest_version(namespace, base)
    if newest is None or (version is not None and version > newest):
        raise EnvError(_unknown(name))
    return f"{namespace}/{base}-v{newest}" if namespace else f"{base}-v{newest}"


def _register_atari(name: str) -> None:
    try:
        gym.register_envs(importlib.import_module("ale_py"))
    except ImportError as error:
        raise EnvError(
            f"{name} needs a package that is not installed: pip install ale-py"
        ) from error


def _unknown(name: str) -> str:
    known = [each for each in gym.registry if _retired(each) is None]
    return f"no environment {name!r}.{did_you_mean(name, known)}"
