"""The one thing an algorithm must be: something you ask for candidates and tell results."""

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np

from evolution.evaluation import Evaluations
from evolution.population import Population


class Strategy(Protocol):
    """Maximizes fitness; draws only from the generator it was given.

    The loop calls ``ask`` and ``tell`` in turn, once each per generation; several generations may
    be asked before the first of them is told.

    Attributes:
        roles: what the candidates of each population that ``ask`` returns are called in the list
            of results; it may return fewer.
    """

    roles: ClassVar[tuple[str, ...]]

    @property
    def theta(self) -> np.ndarray:
        """float32[dim]: the parameters one would deploy now; replaced, never changed in place."""

    def ask(self, rng: np.random.Generator) -> Sequence[Population]:
        """The candidates of the next generation; the metrics common to all are of the first.

        Args:
            rng: this generation's own generator; all randomness comes from it.
        """

    def tell(
        self, populations: Sequence[Population], evaluations: Sequence[Evaluations]
    ) -> dict[str, float]:
        """Learn from one generation; returns the algorithm's own diagnostics as metrics."""

    def state(self) -> dict[str, Any]:
        """Copies of all that ``restore`` needs to go on as if nothing had happened."""

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to a ``state``."""


@runtime_checkable
class AsksAgain(Protocol):
    """A strategy that may want to see more before it is told how a generation was."""

    def further(
        self,
        populations: Sequence[Population],
        evaluations: Sequence[Evaluations],
        rng: np.random.Generator,
    ) -> Sequence[tuple[str, Population]]:
        """More candidates of the same generation, with their role; none: it has seen enough.

        They are asked as long as there are some, and told with those that were asked before them.

        Args:
            populations: all of this generation, those that ``further`` has asked included.
            evaluations: of each of them.
            rng: this round's own generator.
        """


@runtime_checkable
class DescribesItself(Protocol):
    """A strategy that can say its ``theta`` in fewer bytes than that has."""

    def described(self) -> Population | None:
        """A population of one row, which is ``theta`` to the last bit; None: not yet."""
