"""Answers of many workers, checked and read all at once.

A head may have thousands of workers, so that what is done for each answer alone must be little.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cluster.wire import MessageError

MAX_SECONDS = 1e9  # of any duration that somebody may claim

_ARRAYS = {"pieces": "<i4", "fitness": "<f4", "steps": "<i4"}
_DURATIONS = ("seconds", "waited", "cpu_seconds")


@dataclass(frozen=True, eq=False)
class Batch:
    """Answers to one task, one behind the other; see `evolution.messages.Rows`."""

    workers: Sequence[str]  # who sent each
    counts: np.ndarray  # int64[answers], pieces in each
    lengths: np.ndarray  # int64[answers], rows in each
    pieces: np.ndarray  # int32[pieces], ascending within an answer
    fitness: np.ndarray  # float32[rows]
    steps: np.ndarray  # int32[rows]
    seconds: np.ndarray  # float64[answers]
    waited: np.ndarray  # float64[answers]
    cpu_seconds: np.ndarray  # float64[answers]

    def __len__(self) -> int:
        return len(self.workers)

    def row_slices(self) -> Iterator[slice]:
        """The rows of each answer."""
        ends = np.cumsum(self.lengths).tolist()
        return (slice(start, end) for start, end in zip([0, *ends], ends, strict=False))

    @classmethod
    def read(cls, messages: Sequence[dict[str, Any]], group_of: np.ndarray) -> "Batch":
        """Check and read answers.

        Args:
            group_of: int64[pieces of the task], candidates in each piece.
        Raises:
            MessageError: what is wrong with one of them.
        """
        try:
            columns = {name: [m[name] for m in messages] for name in (*_ARRAYS, *_DURATIONS)}
        except KeyError as error:
            raise MessageError(f"a result without {error}") from error
        arrays = {name: joined(name, columns[name], dtype) for name, dtype in _ARRAYS.items()}
        pieces, fitness, steps = arrays.values()
        counts = _lengths(columns["pieces"])
        check_pieces(pieces, counts, len(group_of))
        lengths = np.add.reduceat(group_of[pieces], np.cumsum(counts) - counts)
        for name in ("fitness", "steps"):
            if (_lengths(columns[name]) != lengths).any():
                raise MessageError(f"{len(arrays[name])} rows of {name} for {lengths.sum()}")
        if not np.isfinite(fitness).all() or (steps < 1).any():
            raise MessageError("a fitness that is not finite, or an episode without a step")
        durations = [_durations(name, columns[name]) for name in _DURATIONS]
        workers = [message.get("worker", "") for message in messages]
        return cls(workers, counts, lengths, pieces, fitness, steps, *durations)


def read_sound(
    messages: Sequence[dict[str, Any]], group_of: np.ndarray
) -> tuple[list[Batch], list[MessageError]]:
    """All sound answers, in few batches and in their order; and what is wrong with the others."""
    try:
        return [Batch.read(messages, group_of)], []
    except MessageError as error:
        if len(messages) == 1:
            return [], [error]
    middle = len(messages) // 2
    sound, wrong = read_sound(messages[:middle], group_of)
    more_sound, more_wrong = read_sound(messages[middle:], group_of)
    return sound + more_sound, wrong + more_wrong


def joined(name: str, arrays: Sequence[Any], dtype: str) -> np.ndarray:
    """Vectors of the wire, one behind the other.

    Raises:
        MessageError: one of them is none, or of another dtype.
    """
    wanted = np.dtype(dtype)
    for array in arrays:
        if type(array) is not np.ndarray or array.dtype != wanted or array.ndim != 1:
            raise MessageError(f"{name} must be a {dtype} vector")
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def check_pieces(pieces: np.ndarray, counts: np.ndarray, in_all: int) -> None:
    """Refuse numbers that are impossible, or do not ascend within each answer.

    Args:
        counts: int64[answers], how many belong to each.
        in_all: pieces of the task.
    Raises:
        MessageError: so it is.
    """
    fits = counts.all() and pieces.min() >= 0 and pieces.max() < in_all
    if fits:
        ascends = np.diff(pieces) > 0
        ascends[np.cumsum(counts)[:-1] - 1] = True  # from one answer to the next
        fits = ascends.all()
    if not fits:
        raise MessageError(f"pieces must ascend from 0 to {in_all - 1} at most: {pieces[:5]}")


def _lengths(arrays: Sequence[np.ndarray]) -> np.ndarray:
    return np.fromiter(map(len, arrays), np.int64, len(arrays))


def _durations(name: str, values: list[Any]) -> np.ndarray:
    try:
        if not set(map(type, values)) <= {int, float}:
            raise TypeError
        seconds = np.array(values, np.float64)
        if not ((seconds >= 0) & (seconds < MAX_SECONDS)).all():
            raise ValueError
    except (TypeError, ValueError, OverflowError) as error:
        raise MessageError(f"{name} must be durations, not {values[:1]!r:.50}") from error
    return seconds
