"""All that was asked of an optimizer and told to it: enough to do it once more."""

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np

WORDS = 4  # of 32 bits, that seed what is drawn for a generation


class Ledger:
    """Asks and tells in their order; each is of a whole generation."""

    def __init__(self, pop_size: int) -> None:
        """An empty one, for generations of so many candidates."""
        self._pop_size = pop_size
        self._seeds = list[np.ndarray]()
        self._fitness = list[np.ndarray]()
        self._asked_before = list[int]()  # generations, at each tell
        self._hash = hashlib.sha256()  # of all candidates

    @property
    def asked(self) -> int:
        """Generations."""
        return len(self._seeds)

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
        self._seeds.append(seed)
        self._hash.update(candidates.astype("<f4").tobytes())

    def tell(self, fitness: np.ndarray) -> None:
        """Write down a tell: float32[pop_size]."""
        self._fitness.append(fitness.astype(np.float32))
        self._asked_before.append(self.asked)

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {
            "seeds": np.array(self._seeds, np.uint32).reshape(-1, WORDS),
            "fitness": np.array(self._fitness, np.float32).reshape(-1, self._pop_size),
            "asked before": np.array(self._asked_before, np.int64),
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
