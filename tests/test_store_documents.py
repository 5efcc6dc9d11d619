"""What a store keeps and how it changes: the same from the embedded one and from MongoDB."""

import math
import re
from datetime import datetime, timedelta
from typing import Any

import bson
import pytest
from pymongo import ReturnDocument, UpdateOne
from pymongo.errors import BulkWriteError, DuplicateKeyError, OperationFailure, WriteError
from stores import TestDatabase

NOW = datetime(2024, 2, 29, 12, 30, 15, 123000)
VALUES = {
    "int": 7,
    "long": bson.Int64(2**40),
    "small long": bson.Int64(3),
    "double": -0.5,
    "infinite": -math.inf,
    "text": "größer",
    "null": None,
    "yes": True,
    "date": NOW,
    "early": datetime(1905, 1, 1),
    "id": bson.ObjectId("5f0c0ffee0c0ffee0c0ffee0"),
    "bytes": b"\x00\xff",
    "uuid": bson.Binary(bytes(16), 4),
    "regex": bson.Regex("^a", "i"),
    "decimal": bson.Decimal128("1.10"),
    "time": bson.Timestamp(5, 6),
    "code": bson.Code("f()"),
    "array": [1, [2.5, None], {"a": []}],
    "nested": {"a.b": {"$c": 1}},
}


def test_every_type_comes_back(database: TestDatabase) -> None:
    database.things.insert_one({"_id": 1, **VALUES, "nan": math.nan})
    found = database.things.find_one({"_id": 1})
    assert found is not None
    assert math.isnan(found.pop("nan"))
    assert found == {"_id": 1, **VALUES}
    assert {name: type(each) for name, each in found.items() if name != "_id"} == {
        name: type(value) for name, value in VALUES.items()
    }


@pytest.mark.parametrize(
    "identity",
    [0, -5, 2.5, "text", "", True, NOW, bson.ObjectId(), b"bytes", {"a": 1, "b": [2]}, 2**60 + 1],
)
def test_any_id_is_found_and_is_taken_once(database: TestDatabase, identity: Any) -> None:
    database.things.insert_many([{"_id": identity, "x": 1}, {"_id": "another"}])
    assert database.things.find_one({"_id": identity}) == {"_id": identity, "x": 1}
    assert database.things.find_one({"_id": {"$in": [identity, 99]}}) == {"_id": identity, "x": 1}
    with pytest.raises(DuplicateKeyError) as caught:
        database.things.insert_one({"_id": identity})
    assert caught.value.code == 11000
    database.things.delete_one({"_id": identity})
    assert database.things.distinct("_id") == ["another"]


def test_numbers_of_all_types_are_one_id(database: TestDatabase) -> None:
    database.things.insert_one({"_id": 1.0})
    for same in (1, bson.Int64(1)):
        with pytest.raises(DuplicateKeyError):
            database.things.insert_one({"_id": same})
    database.things.insert_many([{"_id": 2**53}, {"_id": 2**53 + 1}, {"_id": "1"}])
    assert [d["_id"] for d in database.things.find().sort("_id", 1)] == [1, 2**53, 2**53 + 1, "1"]


def test_id_comes_first_and_is_made(database: TestDatabase) -> None:
    database.things.update_one({"x": 1}, {"$set": {"y": 2}}, upsert=True)
    (found,) = database.things.find()
    assert list(found) == ["_id", "x", "y"]
    assert isinstance(found["_id"], bson.ObjectId)


def test_inserts_stop_at_an_error_or_go_on(database: TestDatabase) -> None:
    documents = [{"_id": 1}, {"_id": 2}, {"_id": 1}, {"_id": 3}]
    with pytest.raises(BulkWriteError) as caught:
        database.ordered.insert_many(documents)
    assert [error["index"] for error in caught.value.details["writeErrors"]] == [2]
    assert sorted(database.ordered.distinct("_id")) == [1, 2]
    with pytest.raises(BulkWriteError):
        database.unordered.insert_many(documents, ordered=False)
    assert sorted(database.unordered.distinct("_id")) == [1, 2, 3]


BEFORE = {"n": 1, "list": [1, 2, 2, 3], "sub": {"x": 1, "list": ["a"]}, "text": "t"}
UPDATES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"$set": {"n": 2, "sub.y": 3, "new.deep": 1}}, {"n": 2, "sub": {"x": 1, "list": ["a"], "y": 3},
                                                      "new": {"deep": 1}}),
    ({"$set": {"list.1": 9}}, {"list": [1, 9, 2, 3]}),
    ({"$unset": {"sub.x": "", "missing": ""}}, {"sub": {"list": ["a"]}}),
    ({"$inc": {"n": 4, "fresh": 2}}, {"n": 5, "fresh": 2}),
    ({"$inc": {"sub.x": 0.5}}, {"sub": {"x": 1.5, "list": ["a"]}}),
    ({"$push": {"list": 4}}, {"list": [1, 2, 2, 3, 4]}),
    ({"$push": {"list": {"$each": [5, 6]}, "fresh": {"$each": [1]}}},
     {"list": [1, 2, 2, 3, 5, 6], "fresh": [1]}),
    ({"$push": {"list": {"$each": [0], "$slice": -2}}}, {"list": [3, 0]}),
    ({"$push": {"list": {"$each": [0], "$position": 0}}}, {"list": [0, 1, 2, 2, 3]}),
    ({"$push": {"sub.list": "b"}}, {"sub": {"x": 1, "list": ["a", "b"]}}),
    ({"$push": {"list": {"a": 1}}}, {"list": [1, 2, 2, 3, {"a": 1}]}),
    ({"$addToSet": {"list": 2}}, {}),
    ({"$addToSet": {"list": {"$each": [3, 4]}}}, {"list": [1, 2, 2, 3, 4]}),
    ({"$pull": {"list": 2}}, {"list": [1, 3]}),
    ({"$pull": {"list": {"$gte": 2}}}, {"list": [1]}),
    ({"$pull": {"list": {"$in": [1, 3]}}}, {"list": [2, 2]}),
    ({"$pullAll": {"list": [2, 3]}}, {"list": [1]}),
    ({"$pop": {"list": 1}}, {"list": [1, 2, 2]}),
    ({"$max": {"n": 5}}, {"n": 5}),
    ({"$max": {"n": 0, "fresh": 1}}, {"fresh": 1}),
    ({"$min": {"n": 0}}, {"n": 0}),
    ({"$rename": {"text": "word"}}, {"text": None, "word": "t"}),
    ({"$setOnInsert": {"n": 100}}, {}),
    ({"$set": {"n": math.nan, "sub": {}}}, {"n": math.nan, "sub": {}}),
]  # fmt: skip


@pytest.mark.parametrize(("update", "changes"), UPDATES)
def test_update_operators(
    database: TestDatabase, update: dict[str, Any], changes: dict[str, Any]
) -> None:
    database.things.insert_one({"_id": 1, **BEFORE})
    done = database.things.update_one({"_id": 1}, update)
    assert (done.matched_count, done.modified_count) == (1, int(bool(changes)))
    expected = {"_id": 1, **BEFORE, **changes}
    found = database.things.find_one()
    wanted = {name: each for name, each in expected.items() if each is not None}
    assert found is not None
    if math.isnan(wanted["n"]):
        assert math.isnan(found["n"])
        wanted["n"] = found["n"]
    assert found == wanted


def test_current_date_is_now(database: TestDatabase) -> None:
    database.things.insert_one({"_id": 1})
    database.things.update_one({}, {"$currentDate": {"at": True}})
    found = database.things.find_one()
    assert found is not None
    assert abs(found["at"] - datetime.utcnow()) < timedelta(minutes=10)


def test_positional_update(database: TestDatabase) -> None:
    database.things.insert_one({"_id": 1, "artifacts": [{"name": "a"}, {"name": "b", "v": 1}]})
    database.things.update_one({"_id": 1, "artifacts.name": "b"}, {"$set": {"artifacts.$.v": 2}})
    found = database.things.find_one()
    assert found is not None
    assert found["artifacts"] == [{"name": "a"}, {"name": "b", "v": 2}]


@pytest.mark.parametrize(
    ("update", "codes"),
    [
        ({"$nonsense": {"a": 1}}, {9}),
        ({"$set": 3}, {9}),
        ({"$set": {"_id": 2}}, {66}),
        ({"$inc": {"text": 1}}, {2, 14}),
        ({"$push": {"text": 1}}, {2}),
    ],
)
def test_wrong_updates_change_nothing(
    database: TestDatabase, update: dict[str, Any], codes: set[int]
) -> None:
    database.things.insert_one({"_id": 1, **BEFORE})
    with pytest.raises(WriteError) as caught:
        database.things.update_one({"_id": 1}, update)
    assert caught.value.code in codes
    assert database.things.find_one() == {"_id": 1, **BEFORE}


def test_many_replaced_and_deleted(database: TestDatabase) -> None:
    things = database.things
    things.insert_many([{"_id": i, "even": i % 2 == 0} for i in range(10)])
    assert things.update_many({"even": True}, {"$set": {"n": 1}}).modified_count == 5
    assert things.update_many({"even": True}, {"$set": {"n": 1}}).modified_count == 0
    assert things.replace_one({"_id": 1}, {"new": 1}).modified_count == 1
    assert things.find_one({"_id": 1}) == {"_id": 1, "new": 1}
    assert things.delete_one({"n": 1}).deleted_count == 1
    assert things.delete_many({"n": 1}).deleted_count == 4
    assert things.delete_many({"n": 1}).deleted_count == 0
    assert sorted(things.distinct("_id")) == [1, 3, 5, 7, 9]


def test_upserts(database: TestDatabase) -> None:
    things = database.things
    query = {"run_id": 3, "sub.name": "loss", "n": {"$gt": 5}, "k": {"$eq": 2}}
    done = things.update_one(query, {"$push": {"v": 1}, "$setOnInsert": {"o": 1}}, upsert=True)
    expected = {"run_id": 3, "sub": {"name": "loss"}, "k": 2, "v": [1], "o": 1}
    assert things.find_one() == {"_id": done.upserted_id, **expected}
    done = things.replace_one({"_id": 5}, {"x": 1}, upsert=True)
    assert (done.matched_count, done.upserted_id) == (0, 5)
    assert things.find_one({"_id": 5}) == {"_id": 5, "x": 1}
    assert things.update_one({"_id": 5}, {"$set": {"x": 1}}, upsert=True).upserted_id is None
    changes = [UpdateOne({"_id": i}, {"$inc": {"x": 1}}, upsert=True) for i in (5, 6, 6)]
    result = things.bulk_write(changes)
    assert (result.matched_count, result.upserted_ids) == (2, {1: 6})


def test_find_one_and_change(database: TestDatabase) -> None:
    things = database.things
    things.insert_many([{"_id": i, "n": -i} for i in range(3)])
    before = things.find_one_and_update({}, {"$inc": {"n": 10}}, sort=[("n", 1)])
    assert before == {"_id": 2, "n": -2}
    after = things.find_one_and_update(
        {"_id": 1}, {"$set": {"t": 1}}, {"t": 1}, return_document=ReturnDocument.AFTER
    )
    assert after == {"_id": 1, "t": 1}
    assert things.find_one_and_replace({"_id": 7}, {"x": 1}) is None
    new = things.find_one_and_replace(
        {"_id": 7}, {"x": 1}, upsert=True, return_document=ReturnDocument.AFTER
    )
    assert new == {"_id": 7, "x": 1}
    assert things.find_one_and_delete({"_id": 7}) == {"_id": 7, "x": 1}
    assert things.find_one_and_delete({"_id": 7}) is None


def test_series_grow_for_long(database: TestDatabase) -> None:
    """Through several rounds of writing parts as one, with reads and other changes between."""
    query, expected = {"run_id": 1, "name": "loss"}, list[float]()
    for push in range(270):
        more = [push + i / 4 for i in range(3)]
        expected += more
        fields = {"values": {"$each": more}, "steps": {"$each": [push]}}
        done = database.metrics.update_one(query, {"$push": fields}, upsert=True)
        assert done.matched_count + (done.upserted_id is not None) == 1
        if push % 50 == 7:
            database.metrics.update_one(query, {"$set": {"seen": push}})
    found = database.metrics.find_one(query)
    assert found is not None
    assert (found["values"], found["steps"]) == (expected, list(range(270)))
    assert found["seen"] == 257
    assert database.metrics.find_one({"values": 269.5}, {"_id": 1}) is not None
    assert database.metrics.find_one(query, {"values": {"$slice": -1}, "steps": 0}) == {
        **{name: found[name] for name in ("_id", "run_id", "name", "seen")},
        "values": [269.5],
    }


def test_a_document_of_16_mib_is_the_largest(database: TestDatabase) -> None:
    limit = 16 * 1024 * 1024
    empty = len(bson.encode({"_id": 1, "data": b""}))
    database.things.insert_one({"_id": 1, "data": bytes(limit - empty)})
    with pytest.raises(OperationFailure) as caught:
        database.things.update_one({"_id": 1}, {"$set": {"x": 1}})
    assert caught.value.code in (10334, 17419)
    database.things.insert_one({"_id": 2, "list": [b"x" * (6 << 20)]})
    database.things.update_one({"_id": 2}, {"$push": {"list": b"y" * (6 << 20)}})
    with pytest.raises(OperationFailure) as caught:
        database.things.update_one({"_id": 2}, {"$push": {"list": b"z" * (6 << 20)}})
    assert caught.value.code in (10334, 17419)
    found = database.things.find_one({"_id": 2})
    assert found is not None
    assert [each[:1] for each in found["list"]] == [b"x", b"y"]


def test_unique_indexes(database: TestDatabase) -> None:
    things = database.things
    things.create_index([("files_id", 1), ("n", 1)], unique=True)
    things.create_index("name")
    things.insert_many([{"files_id": 1, "n": 0}, {"files_id": 1, "n": 1, "name": "x"}])
    with pytest.raises(DuplicateKeyError):
        things.insert_one({"files_id": 1, "n": 1})
    with pytest.raises(DuplicateKeyError):
        things.update_one({"n": 0}, {"$set": {"n": 1}})
    assert things.update_one({"n": 0}, {"$set": {"n": 0, "y": 1}}).modified_count == 1
    indexes = things.index_information()
    assert set(indexes) == {"_id_", "files_id_1_n_1", "name_1"}
    assert indexes["files_id_1_n_1"]["unique"]
    things.drop_index("files_id_1_n_1")
    things.insert_one({"files_id": 1, "n": 1})
    with pytest.raises(DuplicateKeyError):
        things.create_index([("files_id", 1), ("n", 1)], unique=True)
    things.drop_indexes()
    assert set(things.index_information()) == {"_id_"}


def test_collections_and_databases(database: TestDatabase) -> None:
    names = ["runs", "omniboard.settings", "omniboard.metric.columns", "fs.files"]
    for name in names:
        database[name].insert_one({"_id": name})
    database.create_collection("empty")
    assert sorted(database.list_collection_names()) == sorted([*names, "empty"])
    assert database.list_collection_names(filter={"name": "runs"}) == ["runs"]
    assert database.list_collection_names(filter={"name": re.compile("^omni")})
    assert database["omniboard.settings"].find_one() == {"_id": "omniboard.settings"}
    assert database.name in database.client.list_database_names()
    database.drop_collection("runs")
    database.drop_collection("never was")
    assert "runs" not in database.list_collection_names()
    assert database.runs.find_one() is None
    assert database.command("collStats", "fs.files")["count"] == 1
    assert database.command("dbStats")["objects"] == 3
    database.client.drop_database(database.name)
    assert database.list_collection_names() == []
