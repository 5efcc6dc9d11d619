"""Documents in one SQLite file: what is kept, under which keys, and how it gets to the disk.

A document is a row of keys and its parts. The first part is the document in BSON; each later one
holds values to append to some of its arrays, so that a series grows at the price of what is added.
Now and then the parts are written as one again. Nothing is lost once ``commit`` has returned.
"""

import contextlib
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import bson
from bson.codec_options import CodecOptions, DatetimeConversion

from store.embedded.bson_keys import key_of
from store.embedded.mongo_errors import MongoError

APPLICATION_ID = 0x45564F53  # "EVOS"
VERSION = 1
MAX_DOCUMENT = 16 * 1024 * 1024  # bytes, MongoDB's own limit
MAX_PARTS = 128
INDEX_BYTES = 6  # how much longer an element's number may get than it was in its part
FIELDS = ("run_id", "name", "files_id", "n", "filename", "status")  # that have a column
LOOK = b"\xff"  # the key of values without one: only a look at the document tells
# Dates that Python has no name for stay milliseconds.
CODEC: CodecOptions[dict[str, Any]] = CodecOptions(
    datetime_conversion=DatetimeConversion.DATETIME_AUTO
)

SCHEMA = """
CREATE TABLE collections(
    number INTEGER PRIMARY KEY, base TEXT NOT NULL, name TEXT NOT NULL, UNIQUE (base, name));
CREATE TABLE indexes(
    collection INTEGER NOT NULL, name TEXT NOT NULL, description BLOB NOT NULL,
    PRIMARY KEY (collection, name));
CREATE TABLE documents(
    number INTEGER PRIMARY KEY AUTOINCREMENT, collection INTEGER NOT NULL, id BLOB NOT NULL,
    run_id BLOB, name BLOB, files_id BLOB, n BLOB, filename BLOB, status BLOB,
    arrays TEXT NOT NULL, UNIQUE (collection, id));
CREATE INDEX documents_by_run ON documents(collection, run_id, name) WHERE run_id IS NOT NULL;
CREATE INDEX documents_by_chunk ON documents(collection, files_id, n) WHERE files_id IS NOT NULL;
CREATE INDEX documents_by_file ON documents(collection, filename) WHERE filename IS NOT NULL;
CREATE INDEX documents_by_status ON documents(collection, status) WHERE status IS NOT NULL;
CREATE TABLE parts(
    document INTEGER NOT NULL, number INTEGER NOT NULL, bytes INTEGER NOT NULL, body BLOB NOT NULL,
    PRIMARY KEY (document, number)) WITHOUT ROWID;
"""


class StoreFileError(RuntimeError):
    """A file that is no store of ours, or cannot be opened."""


class Documents:
    """The documents of one file; no other process may write to it."""

    def __init__(self, file: Path) -> None:
        """Open a file, or make it.

        Raises:
            StoreFileError: it belongs to something else, or to another version of this program.
        """
        check_stamp(file)
        try:
            self._sql = sqlite3.connect(file, isolation_level=None, timeout=5)
            if not self._sql.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                self._make()
            self._sql.execute("PRAGMA journal_mode = WAL")
            self._sql.execute("PRAGMA synchronous = FULL")
            self._sql.execute("PRAGMA cache_size = -32000")  # kilobytes
        except sqlite3.Error as error:
            raise StoreFileError(f"{file} cannot be opened: {error}") from error
        self._collections: dict[tuple[str, str], int] = {}
        self._undone = False  # by SQLite itself, as on a full disk

    def _make(self) -> None:
        """The stamp goes into the file itself and at once: a log may hold the rest."""
        self._sql.execute("BEGIN EXCLUSIVE")
        self._sql.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        self._sql.execute(f"PRAGMA user_version = {VERSION}")
        for statement in SCHEMA.strip().split(";\n"):
            self._sql.execute(statement)
        self._sql.execute("COMMIT")

    def close(self) -> None:
        """Write the log into the file."""
        self.rollback()
        self._sql.close()

    # --- Transactions ---------------------------------------------------------------------------

    @property
    def changed(self) -> bool:
        """True if something waits for ``commit``."""
        return self._sql.in_transaction or self._undone

    def commit(self) -> None:
        """Bring all changes to the disk.

        Raises:
            sqlite3.Error: that cannot be; ``rollback`` then.
        """
        if self._undone:
            raise sqlite3.OperationalError("an earlier write failed and undid all others")
        if self._sql.in_transaction:
            self._sql.execute("COMMIT")

    def rollback(self) -> None:
        """Forget all changes since the last commit."""
        self._collections.clear()
        self._undone = False
        if self._sql.in_transaction:
            self._sql.execute("ROLLBACK")

    @contextlib.contextmanager
    def all_or_nothing(self) -> Iterator[None]:
        """Undo what is changed inside if that ends with an error."""
        if not self._sql.in_transaction:
            self._sql.execute("BEGIN IMMEDIATE")
        self._sql.execute("SAVEPOINT statement")
        try:
            yield
        except BaseException:
            self._collections.clear()
            self._undone = not self._sql.in_transaction
            if not self._undone:
                self._sql.execute("ROLLBACK TO statement")
                self._sql.execute("RELEASE statement")
            raise
        self._sql.execute("RELEASE statement")

    # --- Collections and their indexes ----------------------------------------------------------

    def collection(self, base: str, name: str) -> int | None:
        """The number of a collection of a database; None if there is none."""
        if (base, name) not in self._collections:
            query = "SELECT number FROM collections WHERE base = ? AND name = ?"
            row = self._sql.execute(query, (base, name)).fetchone()
            if row is None:
                return None
            self._collections[base, name] = row[0]
        return self._collections[base, name]

    def make_collection(self, base: str, name: str) -> int:
        """The number of a collection, which is made if there is none."""
        found = self.collection(base, name)
        if found is None:
            self._sql.execute("INSERT INTO collections(base, name) VALUES (?, ?)", (base, name))
            found = self.collection(base, name)
        assert found is not None
        return found

    def collections(self, base: str | None = None) -> list[tuple[str, str]]:
        """Databases and names of all collections, or of those of one database."""
        query = "SELECT base, name FROM collections WHERE ? IS NULL OR base = ? ORDER BY 1, 2"
        return self._sql.execute(query, (base, base)).fetchall()

    def drop(self, base: str, name: str) -> bool:
        """Remove a collection; False if there was none."""
        number = self.collection(base, name)
        if number is None:
            return False
        mine = "SELECT number FROM documents WHERE collection = ?"
        self._sql.execute(f"DELETE FROM parts WHERE document IN ({mine})", (number,))
        for table in ("documents", "indexes"):
            self._sql.execute(f"DELETE FROM {table} WHERE collection = ?", (number,))
        self._sql.execute("DELETE FROM collections WHERE number = ?", (number,))
        del self._collections[base, name]
        return True

    def indexes(self, collection: int) -> list[dict[str, Any]]:
        """The descriptions of the indexes that were asked for."""
        query = "SELECT description FROM indexes WHERE collection = ? ORDER BY rowid"
        rows = self._sql.execute(query, (collection,))
        return [bson.decode(row[0]) for row in rows]

    def add_index(self, collection: int, description: Mapping[str, Any]) -> None:
        """Note an index down, in place of one of the same name."""
        values = (collection, description["name"], bson.encode(description))
        self._sql.execute("INSERT OR REPLACE INTO indexes VALUES (?, ?, ?)", values)

    def drop_index(self, collection: int, name: str) -> bool:
        """Forget an index; False if there was none."""
        query = "DELETE FROM indexes WHERE collection = ? AND name = ?"
        return self._sql.execute(query, (collection, name)).rowcount > 0

    # --- Documents ------------------------------------------------------------------------------

    def select(
        self,
        collection: int,
        where: str,
        values: Sequence[Any],
        *,
        unsure: str,
        order: str,
        limit: int,
    ) -> list[tuple[int, bool]]:
        """The numbers of documents, each with whether a look at it must decide.

        Args:
            where: a condition in SQL on the columns, with ``values`` for its question marks.
            unsure: in SQL, true for documents whose columns do not tell.
            limit: no more than that; -1 for all.
        """
        query = (
            f"SELECT number, {unsure} FROM documents WHERE collection = ? AND ({where})"
            f" ORDER BY {order} LIMIT ?"
        )
        return self._sql.execute(query, (collection, *values, limit)).fetchall()

    def read(self, number: int) -> dict[str, Any] | None:
        """A document; None if it is gone."""
        query = "SELECT body FROM parts WHERE document = ? ORDER BY number"
        bodies = self._sql.execute(query, (number,)).fetchall()
        if not bodies:
            return None
        document = bson.decode(bodies[0][0], CODEC)
        for (body,) in bodies[1:]:
            for field, more in bson.decode(body, CODEC).items():
                document[field].extend(more)
        return document

    def insert(self, collection: int, document: dict[str, Any]) -> None:
        """Add a document that has an ``_id``.

        Raises:
            MongoError: 11000, the ``_id`` is taken; 10334, the document is too large.
        """
        body, row = _encode(document, 10334)
        columns = "collection, id, arrays, " + ", ".join(FIELDS)
        marks = "?, ?, ?" + ", ?" * len(FIELDS)
        query = f"INSERT INTO documents({columns}) VALUES ({marks})"
        identity = key_of(document["_id"])
        if identity is None:
            raise MongoError(2, f"an _id cannot be a {type(document['_id']).__name__}")
        try:
            done = self._sql.execute(query, (collection, identity, *row))
        except sqlite3.IntegrityError as error:
            raise duplicate_key("_id_", {"_id": document["_id"]}) from error
        self._add_part(done.lastrowid, 0, len(body), body)

    def replace(self, number: int, document: dict[str, Any]) -> None:
        """Write a document anew; its ``_id`` must be what it was.

        Raises:
            MongoError: 17419, it is too large.
        """
        body, row = _encode(document, 17419)
        columns = ", ".join(f"{name} = ?" for name in ("arrays", *FIELDS))
        self._sql.execute(f"UPDATE documents SET {columns} WHERE number = ?", (*row, number))
        self._sql.execute("DELETE FROM parts WHERE document = ?", (number,))
        self._add_part(number, 0, len(body), body)

    def append(self, number: int, more: Mapping[str, list[Any]]) -> bool:
        """Add values to the ends of arrays, without a look at the document.

        Returns:
            False if it takes a ``replace``: a field is no array, or the document may get too large.
        """
        query = "SELECT arrays FROM documents WHERE number = ?"
        (arrays,) = self._sql.execute(query, (number,)).fetchone()
        query = "SELECT number, bytes FROM parts WHERE document = ? ORDER BY number DESC LIMIT 1"
        last, size = self._sql.execute(query, (number,)).fetchone()
        if not set(more) <= set(arrays.split("\0")):
            return False
        if last + 1 >= MAX_PARTS:
            last, size = 0, self._merge_parts(number)
        body = bson.encode(more)
        size += len(body) + INDEX_BYTES * sum(map(len, more.values()))
        if size <= MAX_DOCUMENT:
            self._add_part(number, last + 1, size, body)
        return size <= MAX_DOCUMENT

    def _merge_parts(self, number: int) -> int:
        """Write a document as one part; returns its size."""
        document = self.read(number)
        assert document is not None
        body = bson.encode(document)
        self._sql.execute("DELETE FROM parts WHERE document = ?", (number,))
        self._add_part(number, 0, len(body), body)
        return len(body)

    def _add_part(self, document: int | None, number: int, size: int, body: bytes) -> None:
        """Write a part, with how large the document is up to there."""
        values = (document, number, size, body)
        self._sql.execute("INSERT INTO parts VALUES (?, ?, ?, ?)", values)

    def delete(self, number: int) -> None:
        """Remove a document."""
        self._sql.execute("DELETE FROM parts WHERE document = ?", (number,))
        self._sql.execute("DELETE FROM documents WHERE number = ?", (number,))

    def size(self, collection: int | None = None) -> tuple[int, int]:
        """How many documents, and bytes, a collection has, or all of them."""
        query = (
            "SELECT count(DISTINCT document), total(length(body)) FROM parts JOIN documents"
            " ON documents.number = document WHERE ? IS NULL OR collection = ?"
        )
        count, total = self._sql.execute(query, (collection, collection)).fetchone()
        return count, int(total)


def check_stamp(file: Path) -> None:
    """Look whose a file is, without touching it; an empty one is anybody's.

    Raises:
        StoreFileError: it is not ours, or cannot be read.
    """
    try:
        with file.open("rb") as opened:
            header = opened.read(100)
    except FileNotFoundError:
        return
    except OSError as error:
        raise StoreFileError(f"{file} cannot be read: {error.strerror}") from error
    if not header:
        return
    if not header.startswith(b"SQLite format 3\0"):
        raise StoreFileError(f"{file} is no store: it is no SQLite file")
    version, application = (int.from_bytes(header[at : at + 4], "big") for at in (60, 68))
    if application != APPLICATION_ID:
        raise StoreFileError(f"{file} is no store: it is the SQLite file of another program")
    if version != VERSION:
        raise StoreFileError(
            f"{file} is a store of version {version}, this program reads version {VERSION}:"
            " choose another folder, or the program that wrote it"
        )


def duplicate_key(index: str, values: Mapping[str, Any]) -> MongoError:
    """The error for a document whose like is there already."""
    return MongoError(
        11000,
        f"E11000 duplicate key error index: {index} dup key: {dict(values)!r}",
        keyPattern=dict.fromkeys(values, 1),
        keyValue=dict(values),
    )


def _encode(document: Mapping[str, Any], too_large: int) -> tuple[bytes, tuple[Any, ...]]:
    """The BSON of a document, and its columns beside collection and id.

    Raises:
        MongoError: with the code ``too_large``.
    """
    try:
        body = bson.encode(document)
    except (bson.errors.BSONError, OverflowError) as error:
        raise MongoError(2, f"no document that could be kept: {error}") from error
    if len(body) > MAX_DOCUMENT:
        raise MongoError(too_large, f"a document of {len(body)} bytes; {MAX_DOCUMENT} at most")
    arrays = "\0".join(name for name, value in document.items() if isinstance(value, list))
    keys = ((key_of(document[field]) or LOOK) if field in document else None for field in FIELDS)
    return body, (arrays, *keys)
