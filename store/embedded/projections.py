"""The fields of a document that a find asks for."""

from collections.abc import Mapping
from typing import Any

import mongomock

from store.embedded.mongo_errors import MongoError


class Projector:
    """Picks fields; mongomock knows how."""

    def __init__(self) -> None:
        # No document ever gets there: its method is what is needed.
        self._engine: Any = mongomock.MongoClient(tz_aware=False).engine.documents

    def pick(self, document: dict[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
        """The document with the fields that are asked for, or without those named with 0."""
        wanted: dict[str, Any] = {}
        for field, value in fields.items():
            if isinstance(value, bool | int | float):
                wanted[field] = int(bool(value))
            elif isinstance(value, dict):
                wanted[field] = value
            else:
                raise MongoError(238, f"a projection of {field!r} to {value!r} is not known here")
        return self._engine._copy_only_fields(document, wanted, dict)
