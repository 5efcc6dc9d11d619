"""Answers of many workers, checked and read all at once.

A head may have thousands of workers, so that what is done for each answer alone must be little.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cluster.merging import array_of, is_merged, split, values_of
from cluster.wire import MessageError

MAX_SECONDS = 1e9  # of any duration that somebody may claim

_ARRAYS = {"pieces": "<i4", "fitness": "<f4", "steps": "<i4"}
_DURATIONS = ("seconds", "waited", "cpu_seconds")


@dataclass(frozen=True, eq=False)
class Batch:
    """Answers to one task, one behind the other; see `evolution.exchange.messages.Rows`."""

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

    @classmethod
    def read(cls, messages: Sequence[dict[str, Any]], group_of: np.ndarray) -> "Batch":
        """Check and read answers.

        Args:
            messages: answers, and many of them in one; see `cluster.merging`.
            group_of: int64[pieces of the task], candidates in each piece.
        Raises:
            MessageError: what is wrong with one of them.
        """
        arrays = {name: joined(name, messages, dtype) for name, dtype in _ARRAYS.items()}
        (pieces, counts), (fitness, _), (steps, _) = arrays.values()
        check_pieces(pieces, counts, len(group_of))
        lengths = np.add.reduceat(group_of[pieces], np.cumsum(counts) - counts)
        for name in ("fitness", "steps"):
            rows, in_each = arrays[name]
            if (in_each != lengths).any():
                raise MessageError(f"{len(rows)} rows of {name} for {lengths.sum()}")
        if not np.isfinite(fitness).all() or (steps < 1).any():
            raise MessageError("a fitness that is not finite, or an episode without a step")
        durations = [_durations(name, _column(name, messages)) for name in _DURATIONS]
        workers = _column("worker", messages)
        return cls(workers, counts, lengths, pieces, fitness, steps, *durations)


def read_sound(
    messages: Sequence[dict[str, Any]], group_of: np.ndarray
) -> tuple[list[Batch], list[MessageError]]:
    """All sound answers, in few batches and in their order; and what is wrong with the others."""
    try:
        return [Batch.read(messages, group_of)], []
    except MessageError as error:
        if len(messages) == 1:
            messages = split(messages[0])  # one of them spoils the others
        if len(messages) == 1:
            return [], [error]
    middle = len(messages) // 2
    sound, wrong = read_sound(messages[:middle], group_of)
    more_sound, more_wrong = read_sound(messages[middle:], group_of)
    return sound + more_sound, wrong + more_wrong


def of_one_task(message: dict[str, Any], kind: str) -> bool:
    """Whether a message is many of a kind in one, all about one task and of somebody.

    Raises:
        MessageError: its parts do not fit together.
    """
    if not is_merged(message):
        return False
    common = message["common"]
    if common.get("kind") != kind or not {"run", "task"} <= set(common):
        return False
    return set(map(type, _column("worker", [message]))) == {str}


def joined(
    name: str, messages: Sequence[dict[str, Any]], dtype: str
) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of the wire, one behind the other; and int64[messages], their lengths.

    Raises:
        MessageError: one of them is none, or of another dtype.
    """
    try:
        found = [array_of(message, name) for message in messages]
    except KeyError as error:
        raise MessageError(f"a result without {error}") from error
    except TypeError:
        found = [(None, np.empty(0))]
    arrays, lengths = [array for array, _ in found], [each for _, each in found]
    wanted = np.dtype(dtype)
    for array in arrays:
        if type(array) is not np.ndarray or array.dtype != wanted or array.ndim != 1:
            raise MessageError(f"{name} must be a {dtype} vector")
    if len(found) == 1:
        return found[0]
    return np.concatenate(arrays), np.concatenate(lengths)


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


def _column(name: str, messages: Sequence[dict[str, Any]]) -> list[Any]:
    try:
        return [value for message in messages for value in values_of(message, name)]
    except KeyError as error:
        raise MessageError(f"a result without {error}") from error


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
