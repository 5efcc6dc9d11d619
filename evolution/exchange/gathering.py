"""A task on its way: its rows, filled in as they arrive."""

import time
from collections.abc import Sequence

import numpy as np

from evolution.answers import Answer, Layout
from evolution.evaluation import Evaluations, Part, split
from evolution.exchange.audit import Said
from evolution.exchange.batches import Batch


class Gathering:
    """What is known of a task whose pieces are being evaluated elsewhere."""

    def __init__(
        self, number: int, parts: Sequence[Part], layout: Layout, ticket_size: int
    ) -> None:
        self.number, self.layout, self.ticket_size = number, layout, ticket_size
        self.parts, self._started = parts, time.monotonic()
        rows, pieces = len(layout), len(layout.group_of)
        self._fitness, self._steps = np.empty(rows, np.float32), np.empty(rows, np.int64)
        self._worker, self._seconds = np.empty(rows, np.int64), np.empty(rows, np.float32)
        self._answered = np.zeros(pieces, np.bool_)
        self.missing = pieces  # how many
        self.batches: list[float] = []  # seconds that workers took for what they had at a time
        self.slowest = 0.0  # of them
        self.waits: list[float] = []  # seconds that they had waited for it
        self.early: list[Answer] = []  # that came before its turn: it may never be gathered
        self.attempts: dict[int, int] = {}  # piece: how often evaluating it ended badly
        self.rechecks: dict[int, Said] = {}  # pieces that a second worker is to evaluate too

    @property
    def is_complete(self) -> bool:
        """True if nothing has to be waited for any more."""
        return not self.missing and not self.rechecks

    def awaited_pieces(self) -> np.ndarray:
        """The numbers of those that are missing, or to be checked: ascending."""
        awaited = ~self._answered
        awaited[list(self.rechecks)] = True
        return np.flatnonzero(awaited)

    def disown(self, worker: int) -> np.ndarray:
        """Forget what a worker has answered; returns its pieces, which are missing now."""
        first_rows = self.layout.first_rows
        pieces = np.flatnonzero(self._answered & (self._worker[first_rows] == worker))
        self._answered[pieces] = False
        self.missing += len(pieces)
        for piece in pieces.tolist():
            self.rechecks.pop(piece, None)
        return pieces

    def fill(self, batch: Batch, workers: np.ndarray) -> np.ndarray:
        """Write down what is new.

        Args:
            workers: int64[answers], the numbers of those who sent them.
        Returns:
            bool[rows], False for what was answered before.
        """
        pieces = batch.pieces
        new = ~self._answered[pieces]
        if len(batch) > 1:  # the first to answer a piece counts
            earliest = np.zeros(len(pieces), np.bool_)
            earliest[np.unique(pieces, return_index=True)[1]] = True
            new &= earliest
        self._answered[pieces] = True
        self.missing -= int(np.count_nonzero(new))
        used = np.repeat(new, self.layout.group_of[pieces])
        target = self.layout.rows(pieces)[used]
        answer = np.repeat(np.arange(len(batch)), batch.lengths)[used]
        self._fitness[target], self._steps[target] = batch.fitness[used], batch.steps[used]
        self._worker[target] = workers[answer]
        self._seconds[target] = (batch.seconds / batch.lengths)[answer]
        brought = np.unique(answer)
        self.waits += batch.waited[brought].tolist()
        self.batches += batch.seconds[brought].tolist()
        self.slowest = max(self.slowest, batch.seconds[brought].max(initial=0.0))
        return used

    def note(self, batch: Batch, used: np.ndarray, age: int) -> Answer:
        """What came, for the list of all results."""
        return Answer(
            workers=batch.workers,
            lengths=batch.lengths,
            age=age,
            arrived=time.monotonic(),
            seconds=batch.seconds,
            cpu_seconds=batch.cpu_seconds,
            layout=self.layout,
            rows=self.layout.rows(batch.pieces),
            fitness=batch.fitness,
            steps=batch.steps,
            used=used,
        )

    def end(self) -> list[Evaluations]:
        """All of it, when nothing is missing; what was asked for is forgotten."""
        columns = self._fitness, self._steps, self._worker, self._seconds
        evaluations = split(self.parts, *columns)
        self.parts = ()
        return evaluations

    def mean_steps(self) -> dict[str, float]:
        """Of a piece of each role: environment steps."""
        parts = zip(self.layout.shapes, self.layout.rows_of_parts(), strict=True)
        return {s.role: float(self._steps[rows].sum()) / max(1, s.pieces) for s, rows in parts}

    @property
    def elapsed(self) -> float:
        """Seconds since it was posted."""
        return time.monotonic() - self._started

    @property
    def total_steps(self) -> int:
        return int(self._steps.sum())


class Counts:
    """What came while a task was gathered."""

    def __init__(self) -> None:
        self.used, self.skipped, self.audited, self.rejected = 0, 0, 0, 0
        self.waited = 0.0
        self.answers: list[Answer] = []

    def add(self, task: Gathering, batch: Batch, used: np.ndarray, age: int) -> None:
        """Answers that came.

        Args:
            used: bool[rows], which of them are new.
            age: of their task: 0 for the oldest that is waited for, above it for one that is over.
        """
        new = int(np.count_nonzero(used))
        answers = task.early if age < 0 else self.answers
        answers.append(task.note(batch, used, max(age, 0)))
        self.used += new
        self.skipped += len(used) - new
