"""Commands about collections, indexes and databases."""

from typing import Any

from mongomock.filtering import filter_applies

from store.embedded.bson_keys import key_of
from store.embedded.database import Database, Reply, Request
from store.embedded.documents import duplicate_key
from store.embedded.mongo_errors import MongoError

ID_INDEX = {"v": 2, "key": {"_id": 1}, "name": "_id_"}


def create(database: Database, request: Request) -> Reply:
    """Make an empty collection."""
    if database.documents.collection(request.base, request.collection) is not None:
        raise MongoError(48, f"Collection {request.namespace} already exists.")
    if request.field("capped", bool, False) or request.field("viewOn", str):
        raise MongoError(238, "capped collections and views are not known here")
    database.documents.make_collection(request.base, request.collection)
    return {"ok": 1.0}


def drop(database: Database, request: Request) -> Reply:
    """Remove a collection."""
    if not database.documents.drop(request.base, request.collection):
        raise MongoError(26, "ns not found")
    return {"ns": request.namespace, "nIndexesWas": 1, "ok": 1.0}


def drop_database(database: Database, request: Request) -> Reply:
    """Remove all collections of a database."""
    for base, name in database.documents.collections(request.base):
        database.documents.drop(base, name)
    return {"dropped": request.base, "ok": 1.0}


def list_collections(database: Database, request: Request) -> Reply:
    """The collections of a database."""
    found = [
        {"name": name, "type": "collection", "options": {}, "info": {"readOnly": False}}
        | {"idIndex": ID_INDEX}
        for _, name in database.documents.collections(request.base)
    ]
    wanted = request.field("filter", dict, {})
    shown = [each for each in found if filter_applies(wanted, each)]
    return database.cursors.first(shown, f"{request.base}.$cmd.listCollections", len(shown) + 1)


def list_databases(database: Database, request: Request) -> Reply:
    """All databases in the file."""
    bases = sorted({base for base, _ in database.documents.collections()})
    wanted = request.field("filter", dict, {})
    described = [
        {"name": base, "sizeOnDisk": _size(database, base), "empty": False} for base in bases
    ]
    shown = [each for each in described if filter_applies(wanted, each)]
    return {"databases": shown, "totalSize": database.documents.size()[1], "ok": 1.0}


def create_indexes(database: Database, request: Request) -> Reply:
    """Note indexes down; unique ones are kept unique, the others only listed."""
    wanted = request.required("indexes", list)
    is_new = database.documents.collection(request.base, request.collection) is None
    number = database.documents.make_collection(request.base, request.collection)
    known = {index["name"]: index for index in database.documents.indexes(number)}
    before = 1 + len(known)
    for index in wanted:
        if not isinstance(index, dict) or not isinstance(index.get("key"), dict):
            raise MongoError(9, f"no index: {index!r}")
        named = {"v": 2, "name": "_".join(f"{f}_{way}" for f, way in index["key"].items()), **index}
        if list(index["key"]) == ["_id"]:
            continue
        if named["name"] in known and known[named["name"]]["key"] != named["key"]:
            raise MongoError(85, f"An index named {named['name']} exists with another key")
        if named.get("unique") and named["name"] not in known:
            _check_unique(database, number, named)
        known[named["name"]] = named
        database.documents.add_index(number, named)
    counts = {"numIndexesBefore": before, "numIndexesAfter": 1 + len(known)}
    return {**counts, "createdCollectionAutomatically": is_new, "ok": 1.0}


def _check_unique(database: Database, collection: int, index: dict[str, Any]) -> None:
    """Refuse an index for documents that are not unique by it."""
    seen = set()
    for document in database.finder.find(collection, {}):
        values = {field: document.get(field) for field in index["key"]}
        key = tuple(key_of(value) or repr(value) for value in values.values())
        if key in seen:
            raise duplicate_key(index["name"], values)
        seen.add(key)


def list_indexes(database: Database, request: Request) -> Reply:
    """The indexes of a collection."""
    number = database.documents.collection(request.base, request.collection)
    if number is None:
        raise MongoError(26, f"ns does not exist: {request.namespace}")
    found = [ID_INDEX, *database.documents.indexes(number)]
    return database.cursors.first(found, request.namespace, len(found) + 1)


def drop_indexes(database: Database, request: Request) -> Reply:
    """Forget one index, some, or all but that on ``_id``."""
    number = database.documents.collection(request.base, request.collection)
    if number is None:
        raise MongoError(26, "ns not found")
    known = [index["name"] for index in database.documents.indexes(number)]
    wanted = request.body.get("index")
    names = known if wanted == "*" else wanted if isinstance(wanted, list) else [wanted]
    for name in names:
        if not isinstance(name, str) or not database.documents.drop_index(number, name):
            raise MongoError(27, f"index not found with name [{name}]")
    return {"nIndexesWas": 1 + len(known), "ok": 1.0}


def database_statistics(database: Database, request: Request) -> Reply:
    """How large a database is."""
    names = [name for _, name in database.documents.collections(request.base)]
    sizes = [_of_collection(database, request.base, name) for name in names]
    total = sum(size for _, size in sizes)
    counts = {"collections": len(names), "objects": sum(count for count, _ in sizes)}
    return {"db": request.base, **counts, "dataSize": total, "storageSize": total, "ok": 1.0}


def collection_statistics(database: Database, request: Request) -> Reply:
    """How large a collection is."""
    count, size = _of_collection(database, request.base, request.collection)
    average = {"avgObjSize": size // count} if count else {}
    sizes = {"size": size, "storageSize": size, "count": count, **average}
    return {"ns": request.namespace, **sizes, "nindexes": 1, "ok": 1.0}


def _of_collection(database: Database, base: str, name: str) -> tuple[int, int]:
    number = database.documents.collection(base, name)
    return (0, 0) if number is None else database.documents.size(number)


def _size(database: Database, base: str) -> int:
    names = [name for _, name in database.documents.collections(base)]
    return sum(_of_collection(database, base, name)[1] for name in names)
