"""What a store finds, in which order, and how it hands it out."""

import random
import re
from datetime import datetime
from typing import Any

import bson
import pytest
from pymongo import DESCENDING
from pymongo.errors import CursorNotFound, OperationFailure
from stores import TestDatabase

from store.embedded.bson_keys import key_of
from store.embedded.cursors import Cursors
from store.embedded.mongo_errors import MongoError

IDS = [bson.ObjectId(f"{i:024x}") for i in range(3)]
DOCUMENTS: list[dict[str, Any]] = [
    {"_id": 0, "run_id": 1, "name": "loss", "status": "RUNNING", "config": {"lr": 0.1}},
    {"_id": 1, "run_id": 1.0, "name": "reward", "status": "FAILED", "config": {"lr": 0.2}},
    {"_id": 2, "run_id": 2, "name": ["loss", "cost"], "tags": ["a", "b"]},
    {"_id": 3, "run_id": "1", "name": None, "tags": []},
    {"_id": 4, "files_id": IDS[0], "n": 1, "filename": "x/y"},
    {"_id": 5, "files_id": IDS[0], "n": 0, "filename": "x/z"},
    {"_id": 6, "files_id": IDS[1], "n": 0, "items": [{"k": 1, "v": 2}, {"k": 2, "v": 3}]},
    {"_id": 7, "run_id": {"a": 1}, "n": True, "when": datetime(2024, 1, 1)},
    {"_id": "eight", "n": -1.5, "name": "LOSS"},
]
QUERIES: list[tuple[dict[str, Any], list[Any]]] = [
    ({}, [0, 1, 2, 3, 4, 5, 6, 7, "eight"]),
    ({"_id": 3}, [3]),
    ({"_id": {"$in": [1, 5.0, "eight", 77]}}, [1, 5, "eight"]),
    ({"_id": {"$gt": 4, "$lte": 6}}, [5, 6]),
    ({"_id": {"$gt": "a"}}, ["eight"]),
    ({"_id": {"$ne": 0}, "run_id": 1}, [1]),
    ({"run_id": 1}, [0, 1]),
    ({"run_id": bson.Int64(1), "name": "loss"}, [0]),
    ({"name": "loss"}, [0, 2]),
    ({"name": {"$in": ["loss", "LOSS"]}}, [0, 2, "eight"]),
    ({"name": None}, [3, 4, 5, 6, 7]),
    ({"name": {"$exists": False}}, [4, 5, 6, 7]),
    ({"name": re.compile("^loss$", re.I)}, [0, 2, "eight"]),
    ({"name": {"$regex": "^LO", "$options": "i"}}, [0, 2, "eight"]),
    ({"name": {"$not": re.compile("loss")}, "run_id": 1}, [1]),
    ({"run_id": {"a": 1}}, [7]),
    ({"files_id": IDS[0]}, [4, 5]),
    ({"files_id": IDS[0], "n": {"$gte": 1}}, [4]),
    ({"n": {"$lt": 1}}, [5, 6, "eight"]),
    ({"status": {"$in": ["RUNNING", "QUEUED"]}}, [0]),
    ({"status": {"$nin": ["RUNNING"]}, "run_id": {"$exists": True}}, [1, 2, 3, 7]),
    ({"config.lr": {"$gt": 0.15}}, [1]),
    ({"tags": "b"}, [2]),
    ({"tags": {"$size": 0}}, [3]),
    ({"tags": {"$all": ["a", "b"]}}, [2]),
    ({"items": {"$elemMatch": {"k": 1, "v": 2}}}, [6]),
    ({"items.v": 3}, [6]),
    ({"when": {"$lt": datetime(2024, 6, 1)}}, [7]),
    ({"$or": [{"_id": 1}, {"name": "LOSS"}]}, [1, "eight"]),
    ({"$and": [{"run_id": 1}, {"status": "FAILED"}]}, [1]),
    ({"$nor": [{"run_id": {"$exists": True}}, {"files_id": IDS[0]}]}, [6, "eight"]),
    ({"$expr": {"$gt": ["$config.lr", 0.15]}}, [1]),
]  # fmt: skip


@pytest.fixture
def filled(database: TestDatabase) -> TestDatabase:
    """The documents above as ``things``."""
    database.things.insert_many(DOCUMENTS)
    return database


@pytest.mark.parametrize(("query", "expected"), QUERIES)
def test_filters(filled: TestDatabase, query: dict[str, Any], expected: list[Any]) -> None:
    assert sorted((d["_id"] for d in filled.things.find(query)), key=str) == expected
    assert filled.things.count_documents(query) == len(expected)
    assert sorted(filled.things.distinct("_id", query), key=str) == expected


@pytest.mark.parametrize("query", [{"$nonsense": 1}, {"a": {"$nonsense": 1}}, {"$or": []}])
def test_wrong_filters(filled: TestDatabase, query: dict[str, Any]) -> None:
    with pytest.raises(OperationFailure):
        list(filled.things.find(query))
    with pytest.raises(OperationFailure):
        filled.never_made.update_one(query, {"$set": {"a": 1}})


def test_other_ways_to_count(filled: TestDatabase) -> None:
    assert filled.things.estimated_document_count() == len(DOCUMENTS)
    assert filled.things.count_documents({}, limit=1) == 1
    assert filled.things.count_documents({"run_id": 1}, skip=1) == 1
    assert filled.nothing.count_documents({}) == filled.nothing.estimated_document_count() == 0
    assert sorted(filled.things.distinct("tags")) == ["a", "b"]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"name": 1}, {"_id": 0, "name": "loss"}),
        (["status"], {"_id": 0, "status": "RUNNING"}),
        ({"config.lr": 1.0, "_id": False}, {"config": {"lr": 0.1}}),
        ({"config": 0, "status": 0, "name": 0}, {"_id": 0, "run_id": 1}),
        ({"_id": 1}, {"_id": 0}),
    ],
)
def test_projections(filled: TestDatabase, fields: Any, expected: dict[str, Any]) -> None:
    assert filled.things.find_one({"_id": 0}, fields) == expected


def test_sorting_follows_mongodbs_order(database: TestDatabase) -> None:
    ordered = [None, -1, 0.5, 2, 2**60, "A", "a", "b", {"a": 1}, b"x", IDS[0], False, True]
    ordered += [datetime(1950, 1, 1), datetime(2024, 1, 1)]
    shuffled = list(enumerate(ordered))
    random.Random(1).shuffle(shuffled)
    database.things.insert_many([{"_id": value, "n": i, "v": value} for i, value in shuffled])
    for field in ("_id", "n", "v"):
        found = database.things.find().sort(field, 1)
        assert [document["n"] for document in found] == list(range(len(ordered)))
        found = database.things.find({"n": {"$gt": 2}}).sort(field, DESCENDING).skip(1).limit(3)
        assert [document["n"] for document in found] == [13, 12, 11]


def test_sorting_by_two_fields(database: TestDatabase) -> None:
    pairs = [(a, b) for a in range(4) for b in range(5)]
    random.Random(2).shuffle(pairs)
    database.things.insert_many([{"a": a, "b": b} for a, b in pairs])
    found = database.things.find(sort=[("a", -1), ("b", 1)], limit=7)
    assert [(d["a"], d["b"]) for d in found] == sorted(pairs, key=lambda p: (-p[0], p[1]))[:7]


def test_the_next_id_as_sacred_asks_for_it(database: TestDatabase) -> None:
    database.runs.insert_many([{"_id": i, "captured_out": "x" * 100} for i in range(1, 40)])
    (last,) = database.runs.find({}, {"_id": 1}).sort("_id", DESCENDING).limit(1)
    assert last == {"_id": 39}


@pytest.mark.parametrize("sort", [None, ("_id", 1), ("v", 1)])
@pytest.mark.parametrize("batch", [2, 50, 0])
def test_results_of_many_batches(
    database: TestDatabase, sort: tuple[str, int] | None, batch: int
) -> None:
    database.things.insert_many([{"_id": i, "v": i} for i in range(250)])
    found = database.things.find({"v": {"$gte": 10}}, batch_size=batch)
    ordered = found.sort(*sort) if sort else found
    assert [document["_id"] for document in ordered] == list(range(10, 250))


def test_large_documents_come_one_by_one(database: TestDatabase) -> None:
    size = 9_000_000
    for i in range(4):
        database.things.insert_one({"_id": i, "data": bytes(size)})
    assert [(d["_id"], len(d["data"])) for d in database.things.find()] == [
        (i, size) for i in range(4)
    ]


def test_a_cursor_lives_on_while_documents_change(database: TestDatabase) -> None:
    database.things.insert_many([{"_id": i} for i in range(30)])
    found = database.things.find(batch_size=5)
    next(found)
    database.things.delete_many({"_id": {"$gte": 20}})
    assert [document["_id"] for document in found] == list(range(1, 20))


def test_a_closed_cursor_is_not_found(database: TestDatabase) -> None:
    database.things.insert_many([{"_id": i} for i in range(30)])
    found = database.things.find(batch_size=5)
    next(found)
    assert found.cursor_id
    killed = database.command("killCursors", "things", cursors=[found.cursor_id, bson.Int64(5)])
    assert killed["cursorsKilled"] == [found.cursor_id]
    assert killed["cursorsNotFound"] == [5]
    with pytest.raises(CursorNotFound) as caught:
        list(found)
    assert caught.value.code == 43
    assert len(list(database.things.find(limit=-3))) == 3


def test_cursors_that_nobody_wants_are_closed() -> None:
    now = [0.0]
    cursors = Cursors(idle_seconds=10, clock=lambda: now[0])
    old, kept = (
        cursors.first(iter([{"a": i} for i in range(9)]), "d.c", 2)["cursor"]["id"]
        for _ in range(2)
    )
    now[0] = 6
    cursors.expire()
    assert cursors.more(kept, "d.c", 1)["cursor"]["nextBatch"] == [{"a": 2}]
    now[0] = 11
    cursors.expire()
    assert len(cursors) == 1
    with pytest.raises(MongoError, match="not found"):
        cursors.more(old, "d.c", None)
    assert cursors.more(kept, "d.c", None)["cursor"]["id"] == 0
    assert len(cursors) == 0


def test_keys_compare_like_numbers() -> None:
    rng = random.Random(3)
    numbers: list[Any] = [0, -0.0, 1e308, -1e308, float("inf"), float("-inf"), 2**53, -(2**63)]
    numbers += [2**53 + 1, 2**63 - 1, 5e-324, float(2**53)]
    numbers += [rng.randint(-(2**62), 2**62) for _ in range(50)]
    numbers += [rng.gauss(0, 10**e) for e in range(-5, 20)]
    for one in numbers:
        for other in numbers:
            keys = key_of(one), key_of(other)
            assert None not in keys
            assert (keys[0] < keys[1], keys[0] == keys[1]) == (one < other, one == other)  # type: ignore[operator]
