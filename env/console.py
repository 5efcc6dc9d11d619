"""One Atari console: an emulator, its game, and the pictures it has shown in an episode.

`env.atari` says what of Atari's many settings is meant.
"""

import functools
from typing import Any

import numpy as np

from env.errors import EnvError

HEIGHT, WIDTH, SIZE, STACK = 210, 160, 84, 4
SKIP = 4  # frames for which an action is held
MOST_NOOPS = 30
MOST_FRAMES = 108_000  # half an hour
CONSOLE_SEED = 1  # of what is in the memory of a console that is switched on


@functools.cache
def _across() -> np.ndarray:
    """Shares of 40 pixels in the 21 that are made of them, in 21sts: float32[40, 21]."""
    edges = np.arange(22) * 40
    left, right = 21 * np.arange(40)[:, None], 21 * np.arange(1, 41)[:, None]
    return np.clip(np.minimum(right, edges[1:]) - np.maximum(left, edges[:-1]), 0, None).astype(
        np.float32
    )


def shrink(picture: np.ndarray) -> np.ndarray:
    """Average a grey picture over areas, to 84 × 84; halves go to the even neighbour.

    All numbers on the way are whole and below 2^24, so that the result is exact, on any machine.

    Args:
        picture: uint8[210, 160].
    Returns:
        uint8[84, 84].
    """
    rows = picture.reshape(SIZE // 2, 5, WIDTH).astype(np.uint16)
    fifths = np.empty((SIZE // 2, 2, WIDTH), np.float32)  # 5 rows become 2
    for half, (whole, other) in enumerate(((0, 1), (3, 4))):
        pair = rows[:, whole] + rows[:, other]
        pair <<= 1
        pair += rows[:, 2]
        fifths[:, half] = pair
    sums = fifths.reshape(-1, 40) @ _across()
    sums /= np.float32(5 * 40)
    return np.rint(sums, out=sums).astype(np.uint8).reshape(SIZE, SIZE)


class Start:
    """The state of an emulator where an episode begins, and what is seen there."""

    def __init__(self, state: Any, seen: np.ndarray, lives: int) -> None:
        self.state, self.seen, self.lives = state, seen, lives


class Console:
    """One emulator with its game, and the pictures that it has shown in an episode."""

    def __init__(self, game: str, picture: str, window: bool = False) -> None:
        """Switch it on.

        Args:
            game: its name with ale-py, such as space_invaders.
            picture: `env.atari.PICTURES`.
            window: show what happens; needs a display.
        Raises:
            EnvError: ale-py has no such game.
        """
        import ale_py

        ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
        self.ale = ale_py.ALEInterface()
        self.ale.setFloat("repeat_action_probability", 0.0)
        self.ale.setInt("max_num_frames_per_episode", MOST_FRAMES)
        self.ale.setInt("random_seed", CONSOLE_SEED)
        self.ale.setBool("display_screen", window)
        if (path := ale_py.roms.get_rom_path(game)) is None:
            raise EnvError(f"ale-py has no game {game!r}")
        self.ale.loadROM(path)
        self.ale.reset_game()
        self.actions = self.ale.getMinimalActionSet()
        self._noop, self._fire = ale_py.Action.NOOP, ale_py.Action.FIRE
        grey = picture == "grey"
        shape = (HEIGHT, WIDTH) if grey else (HEIGHT, WIDTH, 3)
        self._look = self.ale.getScreenGrayscale if grey else self.ale.getScreenRGB
        self._last = np.empty(shape, np.uint8), np.empty(shape, np.uint8)
        self._grey = grey
        # The last four grey pictures as the bytes of one number: to move on is to shift.
        self._stack = np.zeros((SIZE, SIZE), "<u4")
        self.seen = self._stack.view(np.uint8).reshape(SIZE, SIZE, STACK) if grey else self._last[0]
        self.lives = 0

    def starts(self) -> list[Start]:
        """Where episodes begin: after 1, 2, … 30 frames."""
        found = []
        for number in range(MOST_NOOPS):
            fires = number == 0 and self._fire in self.actions
            self.ale.act(self._fire if fires else self._noop)
            self._look(self._last[0])
            self._stack[:] = 0
            self._show()
            found.append(Start(self.ale.cloneState(), self.seen.copy(), self.ale.lives()))
        return found

    def begin(self, start: Start) -> None:
        """Begin an episode."""
        self.ale.restoreState(start.state)
        self.seen[:] = start.seen
        self.lives = start.lives

    def step(self, action: int, life_loss_ends: bool) -> tuple[float, bool]:
        """Hold an action for four frames; returns the reward, and whether that was the end."""
        act, held = self.ale.act, self.actions[action]
        reward = act(held) + act(held) + act(held)
        self._look(self._last[1])
        reward += act(held)
        self._look(self._last[0])
        np.maximum(*self._last, out=self._last[0])
        self._show()
        before, self.lives = self.lives, self.ale.lives()
        return float(reward), self.ale.game_over() or (life_loss_ends and self.lives < before)

    def _show(self) -> None:
        if self._grey:
            self._stack >>= 8
            newest = shrink(self._last[0]).astype("<u4")
            newest <<= 24
            self._stack |= newest
