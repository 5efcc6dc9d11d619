"""The one thing an algorithm must be: something you ask for candidates and tell results."""

from typing import Any, Protocol

import numpy as np

from evolution.evaluation import Evaluations
from evolution.population import Population


class Strategy(Protocol):
    """Maximizes fitness; draws only from the generator it was given.

    The loop calls ``ask`` and ``tell`` in turn, once each per generation.
    """

    @property
    def theta(self) -> np.ndarray:
        """float32[dim]: the parameters one would deploy now; replaced, never changed in place."""

    def ask(self, rng: np.random.Generator) -> Population:
        """The candidates of the next generation.

        Args:
            rng: this generation's own generator; all randomness comes from it.
        """

    def tell(self, population: Population, evaluations: Evaluations) -> dict[str, float]:
        """Learn from one generation; returns the algorithm's own diagnostics as metrics."""

    def state(self) -> dict[str, Any]:
        """Copies of all that ``restore`` needs to go on as if nothing had happened."""

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to a ``state``."""
