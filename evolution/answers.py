"""Who answered what, and when: all that came while a task was evaluated."""

import bisect
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from store.results import Result

HERE = "head"  # the name under which this process answers itself


@dataclass(frozen=True)
class PartShape:
    """How much a part of a task asks for."""

    role: str  # of its candidates: candidate, theta
    pieces: int
    group: int  # candidates in each piece
    episodes: int  # played by each candidate
    first: int = 0  # number of the first of them among those of its role


class Layout:
    """How the candidates of a task are numbered through: its *rows*.

    Attributes:
        shapes: of the parts, in their order.
        group_of: int64[pieces], candidates in each piece.
        first_rows: int64[pieces], the row of the first of them.
    """

    def __init__(self, shapes: tuple[PartShape, ...]) -> None:
        self.shapes = shapes
        self.group_of = np.repeat([s.group for s in shapes], [s.pieces for s in shapes])
        self.first_rows = np.cumsum(self.group_of) - self.group_of
        self._ends = np.cumsum([s.pieces * s.group for s in shapes]).tolist()

    def __len__(self) -> int:
        return self._ends[-1]

    def rows(self, pieces: np.ndarray) -> np.ndarray:
        """The rows of some pieces, in the order of the pieces: int64[rows]."""
        counts = self.group_of[pieces]
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        return np.repeat(self.first_rows[pieces], counts) + within

    def rows_of_parts(self) -> list[slice]:
        """Where each part is."""
        return [slice(*ends) for ends in itertools.pairwise([0, *self._ends])]

    def longest_first(self, steps: Mapping[str, float]) -> Iterator[int]:
        """All pieces, in the order in which workers should begin them.

        Args:
            steps: of a piece of each role, as far as it is known; what is not known goes first.
        """
        pieces = itertools.pairwise(
            itertools.accumulate((s.pieces for s in self.shapes), initial=0)
        )
        order = zip(self.shapes, pieces, strict=True)
        by_length = sorted(order, key=lambda each: -steps.get(each[0].role, float("inf")))
        return itertools.chain.from_iterable(range(*ends) for _, ends in by_length)

    def place(self, row: int) -> tuple[PartShape, int]:
        """The part of a row, and the candidate's number among those of that role."""
        part = bisect.bisect_right(self._ends, row)
        shape = self.shapes[part]
        return shape, shape.first + row - (self._ends[part - 1] if part else 0)


@dataclass(frozen=True, eq=False)
class Answer:
    """What came at a time, of one worker or of many: lots of rows, one behind the other."""

    workers: Sequence[str]  # who sent each lot
    lengths: np.ndarray  # int64[lots], rows in each
    age: int  # 0: to the task at hand; n: n tasks too late
    arrived: float  # here, on time.monotonic()
    seconds: np.ndarray  # float64[lots], that the worker took for all of it, on the wall
    cpu_seconds: np.ndarray  # float64[lots], that it was at work in them
    layout: Layout  # of the task that is answered
    rows: np.ndarray  # int64[n]
    fitness: np.ndarray  # float32[n]
    steps: np.ndarray  # int64[n]
    used: np.ndarray  # bool[n]; False: somebody was faster

    def results(self, generation: int, began: float) -> Iterator[Result]:
        """One for each row.

        Args:
            generation: of the task at hand; each generation is one task.
            began: the beginning of the run, on time.monotonic().
        """
        finished = self.arrived - began
        lots = np.repeat(np.arange(len(self.lengths)), self.lengths)
        shares = (self.seconds / np.maximum(self.lengths, 1))[lots]
        columns = (lots, shares, self.rows, self.fitness, self.steps, self.used)
        for lot, share, row, fitness, steps, used in zip(
            *(column.tolist() for column in columns), strict=True
        ):
            shape, number = self.layout.place(row)
            yield Result(
                generation - self.age,
                number,
                shape.role,
                fitness,
                steps,
                shape.episodes,
                self.workers[lot],
                share,
                finished,
                used,
            )
