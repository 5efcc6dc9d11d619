"""Atari games in DeepMind's configuration (Mnih et al. 2015, table 1 of its extended data).

An id such as ALE/Frostbite-v5 means this configuration with every engine:

| what | how |
|---|---|
| begin | FIRE where the game has it, then no-ops: 1 to 30 frames, as many as the seed says |
| step | the action is held for 4 frames; seen is the brighter of the last two, pixel by pixel |
| picture | grey, 84 × 84 by area averages, the last 4 together; black before the first |
| reward | the game's own points, not clipped |
| end | the game's; a lost life ends nothing unless asked; 108,000 frames at most |
| sticky actions | none: the game is deterministic |

The emulator always starts from one and the same state, so that an episode follows from its seed
and the actions alone, whatever was played before. There are 30 beginnings: seeds that say equally
many no-ops begin the same episode.

ale-py's own `AtariVectorEnv` shows the same pictures at the same speed, but a seeded reset there
loads the game anew, which takes as long as 200 steps, and an unseeded one depends on what was
played before. So the emulators are driven from here.
"""

import importlib.util
import re
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Discrete

from env.console import (
    HEIGHT,
    MOST_FRAMES,
    MOST_NOOPS,
    SIZE,
    SKIP,
    STACK,
    WIDTH,
    Console,
    Start,
)
from env.errors import EnvError
from env.seeds import checked_seeds
from utils.names import did_you_mean

PACKAGE = "ale-py"
FRAMES_PER_SECOND = 60
PICTURES = ("grey", "colour")
ATARI_ID = re.compile(r"ALE/\w+-v5")


def is_atari(env_id: str) -> bool:
    """Tell whether a current id is a game's."""
    return ATARI_ID.fullmatch(env_id) is not None


def is_installed() -> bool:
    """Tell whether ale-py is there, without importing it."""
    return importlib.util.find_spec("ale_py") is not None


def start_of(seed: int) -> int:
    """Which of the beginnings a seed stands for."""
    return int(np.random.SeedSequence(seed).generate_state(1)[0] % MOST_NOOPS)


class AtariEngine:
    """Lanes of one game.

    A lane has an emulator while it is played, and hands it on then. Observations are in memory
    pixel by pixel, as `policy.convolutional` reads them fastest.
    """

    name = "atari"
    max_lanes = 4  # a lane costs the same beside any others, and large networks take memory
    best_lanes = 1  # so that the weights of one network stay in the cache

    def __init__(self, env_id: str, env_kwargs: dict[str, Any] | None = None) -> None:
        """Switch the first console on.

        Raises:
            EnvError: ale-py is missing, or a keyword or its value is not known.
        """
        self._game = game_of(env_id)
        self._picture, self._life_loss_ends = _checked(env_id, **(env_kwargs or {}))
        self._resting = [Console(self._game, self._picture)]
        self._starts = self._resting[0].starts()
        self.action_space = Discrete(len(self._resting[0].actions))
        shape = _shape(self._picture)
        self.observation_space = Box(0.0, 255.0, shape, np.float32)
        self._lanes: list[Start | Console | None] = []

    def reset(self, seeds: np.ndarray) -> np.ndarray:
        """Begin one episode per seed.

        Args:
            seeds: int64[lanes].

        Returns:
            float32[lanes, ...]: the first observations.
        """
        self._resting += [lane for lane in self._lanes if isinstance(lane, Console)]
        starts = [self._starts[start_of(seed)] for seed in checked_seeds(seeds)]
        self._lanes = list(starts)
        return _observations([start.seen for start in starts])

    def step(
        self, actions: np.ndarray, lanes: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Step some lanes, none of which has ended.

        Args:
            actions: int64[n], row i for lane lanes[i].
            lanes: int64[n].

        Returns:
            Observations float32[n, ...], rewards float64[n], done bool[n], in the order of `lanes`.
        """
        seen = np.empty((len(lanes), *self._resting_shape()), np.float32)
        rewards, done = np.empty(len(lanes)), np.empty(len(lanes), np.bool_)
        for row, (lane, action) in enumerate(zip(lanes.tolist(), actions.tolist(), strict=True)):
            console = self._console(lane)
            rewards[row], done[row] = console.step(action, self._life_loss_ends)
            seen[row] = console.seen
            if done[row]:
                self._resting.append(console)
                self._lanes[lane] = None
        return seen.transpose(0, 3, 1, 2), rewards, done

    def _resting_shape(self) -> tuple[int, ...]:
        channels, *picture = self.observation_space.shape
        return (*picture, channels)

    def _console(self, lane: int) -> Console:
        there = self._lanes[lane]
        if isinstance(there, Console):
            return there
        if there is None:
            raise EnvError(f"lane {lane} has ended: its episode cannot be stepped")
        console = self._resting.pop() if self._resting else Console(self._game, self._picture)
        console.begin(there)
        self._lanes[lane] = console
        return console

    def close(self) -> None:
        """Let go of the emulators."""
        self._resting, self._lanes = [], []


class AtariGame(gym.Env):
    """One game for Gymnasium, with the same episodes as `AtariEngine` to the bit."""

    metadata = {  # noqa: RUF012  (Gymnasium declares it so)
        "render_modes": ["human", "rgb_array"],
        "render_fps": FRAMES_PER_SECOND // SKIP,
    }

    def __init__(self, env_id: str, render_mode: str | None = None, **env_kwargs: Any) -> None:
        game = game_of(env_id)
        picture, self._life_loss_ends = _checked(env_id, **env_kwargs)
        self.render_mode = render_mode
        self._console = Console(game, picture, window=render_mode == "human")
        self._starts = self._console.starts()
        self.observation_space = Box(0, 255, _shape(picture), np.uint8)
        self.action_space = Discrete(len(self._console.actions))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin the episode of a seed; without one, of any."""
        super().reset(seed=seed, options=options)
        chosen = int(self.np_random.integers(2**31)) if seed is None else seed
        self._console.begin(self._starts[start_of(chosen)])
        return self._seen(), {"lives": self._console.lives}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Hold an action for four frames."""
        reward, over = self._console.step(int(action), self._life_loss_ends)
        cut = self._console.ale.game_truncated()
        return self._seen(), reward, over and not cut, cut, {"lives": self._console.lives}

    def render(self) -> Any:
        """Draw the screen: uint8[210, 160, 3]; in a window it is always drawn."""
        return self._console.ale.getScreenRGB() if self.render_mode == "rgb_array" else None

    def _seen(self) -> np.ndarray:
        return self._console.seen.transpose(2, 0, 1).copy()


def game_of(env_id: str) -> str:
    """The name of a current id's game with ale-py.

    Raises:
        EnvError: ale-py is missing.
    """
    if not is_installed():
        raise EnvError(f"{env_id} needs a package that is not installed: pip install {PACKAGE}")
    return str(gym.registry[env_id].kwargs["game"])


def envpool_task(task: str, env_kwargs: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """What EnvPool calls a task, and which of its keywords mean ours; others stay as they are.

    EnvPool presses FIRE after the no-ops, draws their number its own way, and begins with the
    first picture four times.

    Raises:
        EnvError: the task is a game whose pictures EnvPool does not make.
    """
    if not is_atari(task):
        return task, env_kwargs
    picture, life_loss_ends = _checked(task, **env_kwargs)
    if picture != "grey":
        raise EnvError(f"EnvPool has no picture={picture!r} of {task}: use engine 'atari'")
    same = {"noop_max": MOST_NOOPS, "frame_skip": SKIP, "reward_clip": False}
    limit = MOST_FRAMES // SKIP
    return task.removeprefix("ALE/"), same | {
        "episodic_life": life_loss_ends,
        "max_episode_steps": limit,
    }


def _checked(
    env_id: str, picture: str = "grey", life_loss_ends: bool = False, **others: Any
) -> tuple[str, bool]:
    known = ("picture", "life_loss_ends")
    for name in others:
        raise EnvError(
            f"{env_id} has no keyword {name!r}; choose from {', '.join(known)}."
            f"{did_you_mean(name, known)}"
        )
    if picture not in PICTURES:
        raise EnvError(
            f"picture={picture!r}; choose from {', '.join(PICTURES)}."
            f"{did_you_mean(str(picture), PICTURES)}"
        )
    if not isinstance(life_loss_ends, bool):
        raise EnvError(f"life_loss_ends={life_loss_ends!r}: must be True or False")
    return picture, life_loss_ends


def _shape(picture: str) -> tuple[int, int, int]:
    return (STACK, SIZE, SIZE) if picture == "grey" else (3, HEIGHT, WIDTH)


def _observations(seen: list[np.ndarray]) -> np.ndarray:
    return np.array(seen, np.float32).transpose(0, 3, 1, 2)
