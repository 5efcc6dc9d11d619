"""Results that are handed out in batches."""

import itertools
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import bson

from store.embedded.documents import MAX_DOCUMENT
from store.embedded.mongo_errors import MongoError

FIRST_BATCH = 101  # documents, as MongoDB
IDLE_SECONDS = 600.0


@dataclass
class Cursor:
    """The rest of a result."""

    documents: Iterator[dict[str, Any]]
    namespace: str
    used: float = 0.0


class Cursors:
    """All results that clients have not read to the end."""

    def __init__(
        self, idle_seconds: float = IDLE_SECONDS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Nothing is open yet.

        Args:
            idle_seconds: a cursor that nobody asks for so long is closed.
        """
        self._idle, self._clock = idle_seconds, clock
        self._open: dict[int, Cursor] = {}

    def __len__(self) -> int:
        return len(self._open)

    def first(
        self,
        documents: Iterable[dict[str, Any]],
        namespace: str,
        size: int | None = None,
        single: bool = False,
    ) -> dict[str, Any]:
        """The reply with the first documents.

        Args:
            size: how many; None for MongoDB's own number.
            single: close the cursor after it.
        """
        cursor = Cursor(iter(documents), namespace)
        number = 0 if single else secrets.randbits(62) + 1
        return self._batch(cursor, number, FIRST_BATCH if size is None else size, "firstBatch")

    def more(self, number: int, namespace: str, size: int | None) -> dict[str, Any]:
        """The reply with the next documents.

        Raises:
            MongoError: 43, there is no such cursor, or no longer.
        """
        cursor = self._open.pop(number, None)
        if cursor is None or cursor.namespace != namespace:
            raise MongoError(43, f"cursor id {number} not found")
        return self._batch(cursor, number, size, "nextBatch")

    def close(self, numbers: Iterable[int]) -> list[int]:
        """Close cursors; returns those that were open."""
        return [number for number in numbers if self._open.pop(number, None)]

    def expire(self) -> None:
        """Close those that nobody wants."""
        oldest = self._clock() - self._idle
        self.close([number for number, each in self._open.items() if each.used < oldest])

    def _batch(self, cursor: Cursor, number: int, size: int | None, name: str) -> dict[str, Any]:
        """As many as are asked for and fit into a message."""
        batch, total, left = list[dict[str, Any]](), 0, True
        while left and (size is None or len(batch) < size):
            document = next(cursor.documents, None)
            if document is None:
                left = False
                break
            length = len(bson.encode(document))
            if batch and total + length > MAX_DOCUMENT:
                cursor.documents = itertools.chain([document], cursor.documents)
                break
            batch.append(document)
            total += length
        if left and number:
            cursor.used = self._clock()
            self._open[number] = cursor
        stays = bson.Int64(number if left else 0)
        return {"cursor": {name: batch, "id": stays, "ns": cursor.namespace}, "ok": 1.0}
