"""NumPy's global random generator, lent to a library that draws from it."""

import contextlib
from collections.abc import Iterator

import numpy as np


class Draws:
    """A generator that stands in for that of ``numpy.random`` for a while.

    What is drawn inside of ``lent`` is decided by the last ``seed`` alone, and those who draw from
    the global generator outside of it do not notice.
    """

    def __init__(self, words: np.ndarray) -> None:
        """Begin as after ``seed``."""
        self.seed(words)

    def seed(self, words: np.ndarray) -> None:
        """Begin anew.

        Args:
            words: uint32[n].
        """
        self._state = np.random.RandomState(words).get_state()

    @contextlib.contextmanager
    def lent(self) -> Iterator[None]:
        """Let the global generator be this one; not for two threads at once."""
        outside = np.random.get_state()  # noqa: NPY002
        np.random.set_state(self._state)  # noqa: NPY002
        try:
            yield
        finally:
            self._state = np.random.get_state()  # noqa: NPY002
            np.random.set_state(outside)  # noqa: NPY002
