"""Episodes to look at: a policy plays them one after the other, in a window or for a film."""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np

from env import make
from env.actions import decoder
from env.errors import EnvError
from env.gymnasium_engine import GymnasiumEngine
from evolution.problem import Problem
from policy.registry import make_policy
from utils.display import missing_display
from utils.threads import one_blas_thread

WINDOW, PICTURES = "human", "rgb_array"  # Gymnasium's render modes
PICTURES_PER_SECOND = 30.0  # where an environment does not say


def show_episode(problem: Problem, theta: np.ndarray, seed: int, sleep: float) -> float:
    """Play one episode in a window, in Gymnasium; returns its return.

    Args:
        theta: float32[dim].
        sleep: seconds between two steps.
    """
    with Stage(problem, theta, WINDOW) as stage:
        earned, _ = stage.play(seed, lambda: time.sleep(sleep))
        return earned


class Stage:
    """A Gymnasium environment that can be seen, and the policy that acts in it.

    Whichever engine the problem names, it is played in Gymnasium: the others draw nothing. A
    context manager.
    """

    def __init__(self, problem: Problem, theta: np.ndarray, render_mode: str) -> None:
        """Set it up for one theta, float32[dim].

        Args:
            render_mode: ``WINDOW`` or ``PICTURES``.
        Raises:
            EnvError: the environment cannot be drawn.
        """
        self._name, self._max_steps = problem.env, problem.max_steps
        with _drawing(self._name):
            self.pictures_per_second = _pictures_per_second(problem.env, render_mode)
            self._engine = GymnasiumEngine(
                problem.env, {**problem.env_kwargs, "render_mode": render_mode}
            )
        spaces = self._engine.observation_space, self._engine.action_space
        self._policy = make_policy(problem.network, *spaces, **problem.policy_kwargs)
        self._policy.load(theta[None])
        self._decode = decoder(self._engine.action_space, problem.action_scaling)

    def play(self, seed: int, look: Callable[[], object]) -> tuple[float, int]:
        """Play the episode of a seed; returns its return and its length in steps.

        Args:
            look: called at the beginning and after each step.
        """
        lanes, seeds = np.zeros(1, np.int64), np.array([seed])
        self._policy.reset(lanes, seeds)
        with _drawing(self._name):
            observations = self._engine.reset(seeds)
        look()
        earned, steps, over = 0.0, 0, False
        while not over:
            with one_blas_thread():
                actions = self._decode(self._policy.act(observations, lanes))
            observations, rewards, done = self._engine.step(actions, lanes)
            earned, steps = earned + float(rewards[0]), steps + 1
            over = bool(done[0]) or steps == self._max_steps
            look()
        return earned, steps

    def picture(self) -> np.ndarray:
        """What is to be seen now: uint8[height, width, 3]."""
        with _drawing(self._name):
            return np.asarray(self._engine.picture(), np.uint8)

    def __enter__(self) -> "Stage":
        return self

    def __exit__(self, *_: object) -> None:
        self._engine.close()


def has_display() -> bool:
    """True where a window can be opened."""
    return no_window() is None


def no_window() -> str | None:
    """Why no window can be opened, in a few words; None if one can."""
    if os.environ.get("SDL_VIDEODRIVER"):  # the user's own choice, such as a frame buffer
        return None
    return missing_display()


def draw_without_display() -> None:
    """Let the drawing libraries do without a display; before any environment is made."""
    for name in ("SDL_VIDEODRIVER", "SDL_AUDIODRIVER"):
        os.environ.setdefault(name, "dummy")
    if sys.platform == "linux":
        os.environ.setdefault("MUJOCO_GL", "egl")


def _pictures_per_second(env_id: str, render_mode: str) -> float:
    plain = make(env_id)
    about, is_mujoco = plain.metadata, hasattr(plain.unwrapped, "mujoco_renderer")
    plain.close()
    if is_mujoco and render_mode == WINDOW and (reason := missing_display()):
        raise EnvError(f"{env_id} needs a display for its window: {reason}")  # GLFW would abort
    if not {render_mode, PICTURES} & set(about.get("render_modes", ())):
        raise EnvError(f"{env_id} draws nothing: it cannot be shown, only evaluated")
    return float(about.get("render_fps") or PICTURES_PER_SECOND)


@contextlib.contextmanager
def _drawing(env_id: str) -> Iterator[None]:
    try:
        yield
    except EnvError:
        raise
    except Exception as error:  # whatever the drawing libraries raise where they cannot draw
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise EnvError(
            f"{env_id} cannot be drawn here ({reason}). Classic and Box2D tasks need pygame;"
            " MuJoCo's need a display, or the library for MUJOCO_GL=egl or MUJOCO_GL=osmesa"
        ) from error
