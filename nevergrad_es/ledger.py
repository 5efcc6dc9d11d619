"""All that was asked of an optimizer and told to it: enough to do it once more."""

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np

WORDS = 4  # of 32 bits, that seed what is drawn for a generation


class Ledger:
    """Asks and tells in their order; each is of a whole generation."""

    def __init__(self, generations: int, pop_size: int) -> None:
        """An empty one, with room for so many generations."""
        self._seeds = np.zeros((generations, WORDS), np.uint32)
        self._fitness = np.zeros((generations, pop_size), np.float32)
        self._asked_before = np.zeros(generations, np.int64)  # generations, at each tell
        self._hash = hashlib.sha256()  # of all candidates
        self.asked, self.told = 0, 0  # generations

    @property
    def digest(self) -> str:
        """The sha256 of all candidates that were asked, in hexadecimal."""
        return self._hash.hexdigest()

    def ask(self, seed: np.ndarray, candidates: np.ndarray) -> None:
        """Write down an ask.

        Args:
            seed: uint32[WORDS].
            candidates: float32[pop_size, dim].
        """
        self._seeds[self.asked] = seed
        self._hash.update(candidates.astype("<f4").tobytes())
        self.asked += 1

    def tell(self, fitness: np.ndarray) -> None:
        """Write down a tell: float32[pop_size]."""
        self._fitness[self.told], self._asked_before[self.told] = fitness, self.asked
        self.told += 1

    def state(self) -> dict[str, Any]:
        """For a checkpoint; what is written down never changes, so these may be views."""
        return {
            "seeds": self._seeds[: self.asked],
            "fitness": self._fitness[: self.told],
            "asked before": self._asked_before[: self.told],
            "digest": self.digest,
        }


def replayed(state: dict[str, Any]) -> Iterator[tuple[str, np.ndarray]]:
    """What a ``Ledger.state`` tells of, in its order: ("ask", seed) or ("tell", fitness)."""
    asked, seeds = 0, state["seeds"]
    for fitness, before in zip(state["fitness"], state["asked before"], strict=True):
        yield from (("ask", seed) for seed in seeds[asked:before])
        asked = int(before)
        yield "tell", fitness
    yield from (("ask", seed) for seed in seeds[asked:])
