"""Commands that read: find, getMore, killCursors, aggregate, count, distinct."""

from collections.abc import Iterator, Mapping
from typing import Any

from mongomock.filtering import iter_key_candidates
from sentinels import NOTHING

from store.embedded.database import Database, Reply, Request
from store.embedded.expressions import refusals
from store.embedded.mongo_errors import MongoError


def find(database: Database, request: Request) -> Reply:
    """Documents that match a filter."""
    if request.field("tailable", bool, False):
        raise MongoError(238, "no collection here is capped: cursors cannot follow it")
    query = request.field("filter", dict, {})
    skip, limit = request.field("skip", int, 0), request.field("limit", int, 0)
    if skip < 0 or limit < 0:
        raise MongoError(2, "skip and limit must not be negative")
    number = database.documents.collection(request.base, request.collection)
    with refusals():
        found = database.finder.find(number, query, request.field("sort", dict, {}), skip, limit)
    shown = _projected(database, found, request.field("projection", dict, {}))
    single = request.field("singleBatch", bool, False)
    size = request.field("batchSize", int)
    return database.cursors.first(shown, request.namespace, size, single)


def _projected(
    database: Database, documents: Iterator[dict[str, Any]], fields: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """Each document with the fields that are asked for; errors of the filter come up here."""
    with refusals():
        for document in documents:
            yield database.projector.pick(document, fields) if fields else document


def get_more(database: Database, request: Request) -> Reply:
    """The next batch of a cursor."""
    number = request.required("getMore", int)
    namespace = f"{request.base}.{request.required('collection', str)}"
    return database.cursors.more(number, namespace, request.field("batchSize", int) or None)


def kill_cursors(database: Database, request: Request) -> Reply:
    """Close cursors."""
    numbers = request.required("cursors", list)
    closed = database.cursors.close(numbers)
    missing = [number for number in numbers if number not in closed]
    unknown: dict[str, Any] = {"cursorsAlive": [], "cursorsUnknown": []}
    return {"cursorsKilled": closed, "cursorsNotFound": missing, **unknown, "ok": 1.0}


def aggregate(database: Database, request: Request) -> Reply:
    """What a pipeline makes of a collection."""
    stages = request.required("pipeline", list)
    if not all(isinstance(stage, dict) for stage in stages):
        raise MongoError(14, "each stage of a pipeline must be a document")
    size = request.field("cursor", dict, {}).get("batchSize")
    with refusals():
        found = _statistics(database, request, stages)
        if found is None:
            pipeline = database.pipeline(request.base, request.field("let", dict))
            found = pipeline.run(request.collection, stages)
    return database.cursors.first(found, request.namespace, size)


def _statistics(
    database: Database, request: Request, stages: list[dict[str, Any]]
) -> list[dict[str, Any]] | None:
    """The documents of a pipeline that does no more than count; None for others."""
    number = database.documents.collection(request.base, request.collection)
    if stages and "$collStats" in stages[0]:
        count, size = database.documents.size(number) if number is not None else (0, 0)
        counted = {"ns": request.namespace, "count": count, "storageStats": {"size": size}}
        return database.pipeline(request.base).go_on([counted], stages[1:])
    match stages:
        case [{"$match": dict(query)}, {"$group": {"_id": 1, "n": {"$sum": 1}, **rest}}]:
            if not rest and "$expr" not in query:  # how drivers count
                count = database.finder.count(number, query)
                return [{"_id": 1, "n": count}] if count else []
    return None


def count(database: Database, request: Request) -> Reply:
    """How many documents match."""
    number = database.documents.collection(request.base, request.collection)
    with refusals():
        found = database.finder.count(number, request.field("query", dict, {}))
    found = max(0, found - request.field("skip", int, 0))
    limit = abs(request.field("limit", int, 0))
    return {"n": min(found, limit) if limit else found, "ok": 1.0}


def distinct(database: Database, request: Request) -> Reply:
    """All values that a field has, and all elements of arrays."""
    number = database.documents.collection(request.base, request.collection)
    key = request.required("key", str)
    values: list[Any] = []
    with refusals():
        for document in database.finder.find(number, request.field("query", dict, {})):
            for found in iter_key_candidates(key, document):
                for value in found if isinstance(found, list) else [found]:
                    if value is not NOTHING and value not in values:
                        values.append(value)
    return {"values": values, "ok": 1.0}
