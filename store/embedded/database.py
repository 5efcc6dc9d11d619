"""What every command works on, and how commands name their collections."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from store.embedded.aggregation import Pipeline
from store.embedded.cursors import Cursors
from store.embedded.documents import Documents
from store.embedded.mongo_errors import MongoError
from store.embedded.projections import Projector
from store.embedded.queries import Finder
from store.embedded.updates import Updater

Reply = dict[str, Any]


@dataclass(frozen=True)
class Request:
    """A command for a database."""

    base: str
    body: dict[str, Any]

    @property
    def name(self) -> str:
        """Of the command."""
        return next(iter(self.body))

    @property
    def collection(self) -> str:
        """The collection that the command is for.

        Raises:
            MongoError: 73, there can be none of that name.
        """
        name = self.body[self.name]
        if not isinstance(name, str) or not name or "\0" in name or "$" in name:
            raise MongoError(73, f"Invalid namespace specified '{self.base}.{name}'")
        return name

    @property
    def namespace(self) -> str:
        """Database and collection in one word."""
        return f"{self.base}.{self.collection}"

    def field(self, name: str, kind: type, default: Any = None) -> Any:
        """An argument of the command, or the default if it is null or not there.

        Raises:
            MongoError: 14, it is of another kind.
        """
        value = self.body.get(name)
        if value is None:
            return default
        if kind is int and isinstance(value, float) and value.is_integer():
            return int(value)
        if not isinstance(value, kind):
            raise MongoError(14, f"{self.name}.{name} is a {type(value).__name__}")
        return value

    def required(self, name: str, kind: type) -> Any:
        """An argument that must be there.

        Raises:
            MongoError: 40414, it is not; 14, it is of another kind.
        """
        value = self.field(name, kind)
        if value is None:
            raise MongoError(40414, f"{self.name}.{name} is missing")
        return value


class Database:
    """The documents of a file and all that works on them."""

    def __init__(self, documents: Documents, file: Path) -> None:
        self.documents = documents
        self.file, self.inode = file, file.stat().st_ino
        self.cursors = Cursors()
        self.finder = Finder(documents)
        self.updater = Updater()
        self.projector = Projector()

    def unique_fields(self, collection: int) -> dict[str, list[str]]:
        """The fields of each unique index beside that on ``_id``, by the index's name."""
        return {
            index["name"]: list(index["key"])
            for index in self.documents.indexes(collection)
            if index.get("unique")
        }

    def pipeline(self, base: str, variables: Mapping[str, Any] | None = None) -> Pipeline:
        """Aggregates collections of one of the databases."""

        def find(
            collection: str,
            query: Mapping[str, Any],
            sort: Mapping[str, int],
            skip: int,
            limit: int,
        ) -> Iterator[dict[str, Any]]:
            number = self.documents.collection(base, collection)
            return self.finder.find(number, query, sort, skip, limit)

        return Pipeline(find, variables)
