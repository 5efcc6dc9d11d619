"""Checks workers on one another: some pieces are evaluated twice, by two of them.

Equal problems give equal bits, so two honest workers never differ. When two do, this process plays
the piece itself, and whoever says something else is believed no more.
"""

import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evolution.evaluation import Part, PieceRunner
from evolution.exchange.batches import Batch
from evolution.exchange.messages import Rows

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Said:
    """What a worker says of one piece."""

    worker: str
    fitness: bytes
    steps: bytes


class Audit:
    """Which pieces are to be evaluated twice, and who was caught."""

    def __init__(self, share: float, runner: PieceRunner) -> None:
        """Audit a share of all pieces, and the first of every worker.

        Args:
            share: of the pieces, from 0 to 1.
            runner: plays a piece when two workers differ.
        """
        self._share, self._runner = share, runner
        self._owed: dict[str, float] = {}  # worker: pieces that should have been audited
        self._random = random.Random(0)  # decides who is checked when, and nothing else
        self.liars: set[str] = set()

    def choose(self, worker: str, pieces: Sequence[int]) -> list[int]:
        """Which of the pieces that a worker has answered are to be evaluated again."""
        self._owed[worker] = self._owed.get(worker, 1.0) + self._share * len(pieces)
        count = min(int(self._owed[worker]), len(pieces))
        self._owed[worker] -= count
        return sorted(self._random.sample(pieces, count))

    def judge(self, parts: Sequence[Part], piece: int, one: Said, other: Said) -> list[str]:
        """Who of two workers lied, if they differ: none, one or both of them."""
        if (one.fitness, one.steps) == (other.fitness, other.steps):
            return []
        fitness, steps = self._runner.evaluate(parts, [piece])
        right = fitness.tobytes(), steps.astype(np.int32).tobytes()
        caught = [said.worker for said in (one, other) if (said.fitness, said.steps) != right]
        for worker in caught:
            log.error("worker %s gave a wrong result: it is believed no more", worker)
        self.liars |= set(caught)
        return caught

    def close(self) -> None:
        self._runner.close()


def said_of_each(worker: str, rows: Rows | Batch, group_of: np.ndarray) -> dict[int, Said]:
    """What a worker's answer says, piece by piece.

    Args:
        group_of: int64[pieces of the task], candidates in each piece.
    """
    ends = np.cumsum(group_of[rows.pieces])
    said, start = dict[int, Said](), 0
    for piece, end in zip(rows.pieces.tolist(), ends.tolist(), strict=True):
        part = slice(start, end)
        said[piece] = Said(worker, rows.fitness[part].tobytes(), rows.steps[part].tobytes())
        start = end
    return said
