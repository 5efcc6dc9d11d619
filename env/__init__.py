"""Environments: making one by id, and engines that play many episodes side by side."""

import logging
import os
from typing import Any

import gymnasium as gym

import env.partially_observable
import env.sphere  # noqa: F401  (importing these two registers their ids)
from env.atari import AtariGame, is_atari
from env.errors import EnvError
from env.ids import current_id, task_of

log = logging.getLogger(__name__)

# What to install when the module behind an entry point does not import.
PACKAGES = {
    "gymnasium.envs.box2d": "gymnasium[box2d]",
    "gymnasium.envs.mujoco": "gymnasium[mujoco]",
    "gymnasium.envs.phys2d": "gymnasium[jax]",
    "gymnasium.envs.tabular": "gymnasium[jax]",
    "ale_py": "ale-py",
}


def make(env_id: str, **kwargs: Any) -> gym.Env:
    """Make one environment, retired ids included.

    Args:
        env_id: a Gymnasium id, one of ours, a retired one, or 'package.module:Id-v0'.
        **kwargs: what the environment takes, `render_mode` and `max_episode_steps` included.

    Raises:
        EnvError: Nobody knows the id, a package is missing, or a keyword is not taken.
    """
    env_id = current_id(env_id)
    if is_atari(task_of(env_id)):
        return AtariGame(task_of(env_id), **kwargs)
    if str(gym.registry[task_of(env_id)].entry_point).startswith("gymnasium.envs.mujoco"):
        _hush_mujoco()
    try:
        return gym.make(env_id, disable_env_checker=True, **kwargs)
    except (ImportError, gym.error.DependencyNotInstalled) as error:
        raise EnvError(_missing(env_id, error)) from error
    except TypeError as error:
        if not kwargs:
            raise
        raise EnvError(f"{env_id} cannot be made with {kwargs}: {_first_line(error)}") from error


def _hush_mujoco() -> None:
    """Log MuJoCo's warnings quietly; it would print each and append it to a file where we stand."""
    try:
        import mujoco
    except ImportError:  # reported when the environment is made
        return
    except Exception as error:  # whatever the library raises that MUJOCO_GL names
        raise EnvError(
            f"MuJoCo does not start with MUJOCO_GL={os.environ.get('MUJOCO_GL')}:"
            f" {_first_line(error)}. Choose egl, glfw (needs a display) or osmesa"
        ) from error
    if mujoco.get_mju_user_warning() is None:
        mujoco.set_mju_user_warning(lambda text: log.debug("MuJoCo: %s", text))


def _missing(env_id: str, error: Exception) -> str:
    entry_point = str(gym.registry[task_of(env_id)].entry_point)
    for prefix, package in PACKAGES.items():
        if entry_point.startswith(prefix):
            return f'{env_id} needs a package that is not installed: pip install "{package}"'
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"{env_id} needs a package that is not installed: pip install {error.name}"
    return f"{env_id} cannot be made: {_first_line(error)}"


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
