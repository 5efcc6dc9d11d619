"""Commands that write: insert, update, delete, findAndModify."""

from collections.abc import Callable, Mapping
from typing import Any

import bson

from store.embedded.database import Database, Reply, Request
from store.embedded.documents import duplicate_key
from store.embedded.expressions import refusals
from store.embedded.mongo_errors import MongoError
from store.embedded.updates import is_replacement, pushed_values

MAX_STATEMENTS = 100_000


def insert(database: Database, request: Request) -> Reply:
    """Add documents."""
    collection = database.documents.make_collection(request.base, request.collection)

    def one(_: int, statement: Mapping[str, Any], reply: Reply) -> None:
        _insert(database, collection, statement)
        reply["n"] += 1

    return _each(database, request, "documents", one)


def update(database: Database, request: Request) -> Reply:
    """Change documents, or put others in their place."""
    collection = database.documents.make_collection(request.base, request.collection)

    def one(index: int, statement: Mapping[str, Any], reply: Reply) -> None:
        reply.setdefault("nModified", 0)
        matched, modified, upserted = _update(database, request, collection, statement)
        reply["n"] += matched
        reply["nModified"] += modified
        if upserted is not None:
            reply["n"] += 1
            reply.setdefault("upserted", []).append({"index": index, "_id": upserted[0]})

    return _each(database, request, "updates", one)


def delete(database: Database, request: Request) -> Reply:
    """Remove documents."""
    collection = database.documents.collection(request.base, request.collection)

    def one(_: int, statement: Mapping[str, Any], reply: Reply) -> None:
        query = _part(statement, "q", dict)
        rows = database.finder.rows(collection, query, None, statement.get("limit", 0))
        found = database.finder.sure(rows, query, statement.get("limit", 0))
        for number in found:
            database.documents.delete(number)
        reply["n"] += len(found)

    return _each(database, request, "deletes", one)


def find_and_modify(database: Database, request: Request) -> Reply:
    """Change or remove one document; answer with what it was, or is then."""
    query = request.field("query", dict, {})
    remove, new = request.field("remove", bool, False), request.field("new", bool, False)
    if remove == ("update" in request.body):
        raise MongoError(9, "Either an update or remove=true must be specified")
    collection = database.documents.make_collection(request.base, request.collection)
    with refusals(), database.documents.all_or_nothing():
        rows = database.finder.rows(collection, query, request.field("sort", dict), 1)
        number, found = next(database.finder.look(rows, query), (0, None))
        done: Reply = {"n": 0, "updatedExisting": False}
        value = found
        if remove and found is not None:
            database.documents.delete(number)
            done = {"n": 1}
        elif found is not None:
            before = bson.decode(bson.encode(found))
            after = _changed(database, request, found, query, request.body["update"])
            _replace(database, collection, number, after)
            done, value = {"n": 1, "updatedExisting": True}, after if new else before
        elif not remove and request.field("upsert", bool, False):
            made = database.updater.insert(query, request.body["update"])
            _insert(database, collection, made)
            done = {"n": 1, "updatedExisting": False, "upserted": made["_id"]}
            value = made if new else None
        fields = request.field("fields", dict, {})
        if value is not None and fields:
            value = database.projector.pick(value, fields)
    return {"lastErrorObject": done, "value": value, "ok": 1.0}


def _each(
    database: Database,
    request: Request,
    name: str,
    one: Callable[[int, Mapping[str, Any], Reply], None],
) -> Reply:
    """Run statements, each wholly or not at all; ordered ones end at the first error."""
    statements = request.required(name, list)
    if not 0 < len(statements) <= MAX_STATEMENTS:
        raise MongoError(16, f"{len(statements)} statements; 1 to {MAX_STATEMENTS} are possible")
    reply: Reply = {"n": 0, "ok": 1.0}
    errors = []
    for index, statement in enumerate(statements):
        try:
            if not isinstance(statement, dict):
                raise MongoError(14, f"a statement is a {type(statement).__name__}")
            with refusals(), database.documents.all_or_nothing():
                one(index, statement, reply)
        except MongoError as error:
            errors.append(error.write_error(index))
            if request.field("ordered", bool, True):
                break
    return {**reply, "writeErrors": errors} if errors else reply


def _insert(database: Database, collection: int, document: Mapping[str, Any]) -> Any:
    """Add one document, with an ``_id`` in front; returns that."""
    identity = document["_id"] if "_id" in document else bson.ObjectId()
    whole = {"_id": identity, **document}
    _check_unique(database, collection, whole, None)
    database.documents.insert(collection, whole)
    return identity


def _update(
    database: Database, request: Request, collection: int, statement: Mapping[str, Any]
) -> tuple[int, int, list[Any] | None]:
    """Run one statement; returns how many matched, how many changed, and the ``_id`` made."""
    query, multi = _part(statement, "q", dict), bool(statement.get("multi"))
    if statement.get("arrayFilters"):
        raise MongoError(238, "arrayFilters are not known here")
    change = _part(statement, "u", dict | list)
    if multi and isinstance(change, dict) and is_replacement(change):
        raise MongoError(9, "multi update is not supported for replacement-style update")
    rows = database.finder.rows(collection, query, None, 0 if multi else 1)
    if not multi and rows and not rows[0][1] and _append(database, collection, rows[0][0], change):
        return 1, 1, None
    numbers = database.finder.sure(rows, query, 0 if multi else 1)
    changed = 0
    for number in numbers:
        document = database.documents.read(number)
        assert document is not None
        before = bson.encode(document)
        after = _changed(database, request, document, query, change)
        if bson.encode(after) != before:
            _replace(database, collection, number, after)
            changed += 1
    if numbers or not statement.get("upsert"):
        return len(numbers), changed, None
    if isinstance(change, list):
        raise MongoError(238, "an upsert with a pipeline is not known here")
    return 0, 0, [_insert(database, collection, database.updater.insert(query, change))]


def _append(database: Database, collection: int, number: int, change: Any) -> bool:
    """Write down values to push as what they are, if that is all and no index minds."""
    more = pushed_values(change) if isinstance(change, dict) else None
    if not more or not any(more.values()) or database.unique_fields(collection):
        return False
    return database.documents.append(number, more)


def _changed(
    database: Database,
    request: Request,
    document: dict[str, Any],
    query: Mapping[str, Any],
    change: Any,
) -> dict[str, Any]:
    if isinstance(change, list):
        identity = document["_id"]
        (after,) = database.pipeline(request.base).go_on([document], change)
        if after.get("_id") != identity:
            raise MongoError(66, f"the _id {identity!r} of a document cannot change")
        return after
    return database.updater.apply(document, query, change)


def _replace(database: Database, collection: int, number: int, document: dict[str, Any]) -> None:
    _check_unique(database, collection, document, number)
    database.documents.replace(number, document)


def _check_unique(
    database: Database, collection: int, document: Mapping[str, Any], own: int | None
) -> None:
    """Refuse a document whose like is there, by the unique indexes beside that on ``_id``.

    Raises:
        MongoError: 11000.
    """
    for name, fields in database.unique_fields(collection).items():
        values = {field: document.get(field) for field in fields}
        rows = database.finder.rows(collection, values)
        if any(number != own for number, _ in database.finder.look(rows, values)):
            raise duplicate_key(name, values)


def _part(statement: Mapping[str, Any], name: str, kind: Any) -> Any:
    if not isinstance(statement.get(name), kind):
        raise MongoError(14, f"a statement's {name!r} is {statement.get(name)!r}")
    return statement[name]
