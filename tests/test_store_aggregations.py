"""Aggregations as Omniboard 2.16 asks for them, and the counting of drivers."""

from datetime import datetime, timedelta
from typing import Any

import bson
import pytest
from pymongo.errors import OperationFailure
from stores import TestDatabase

START = datetime(2024, 5, 1, 10)
METRICS = [bson.ObjectId(f"{i:024x}") for i in range(10, 16)]
FILES = [bson.ObjectId(f"{i:024x}") for i in range(20, 23)]


def run(identity: int, status: str, seconds: float, **rest: Any) -> dict[str, Any]:
    beat = START + timedelta(seconds=seconds)
    return {"_id": identity, "status": status, "start_time": START, "heartbeat": beat, **rest}


def metric(number: int, run_id: int, name: str, values: list[Any]) -> dict[str, Any]:
    return {"_id": METRICS[number], "run_id": run_id, "name": name, "values": values}


@pytest.fixture
def board(database: TestDatabase) -> TestDatabase:
    """Four runs: with two metrics and sources, with one, with other ones, and with nothing."""
    database.metrics.insert_many(
        [
            metric(0, 1, "val.loss", [3.0, 1.0, 2.0]),
            metric(1, 1, "reward", [5, 7]),
            metric(2, 2, "val.loss", [4.0]),
            metric(3, 3, "other", [9.0]),
        ]
    )
    database["fs.files"].insert_many([{"_id": each, "filename": str(each)} for each in FILES])

    def names(*numbers: int) -> dict[str, Any]:
        return {"metrics": [{"name": "…", "id": str(METRICS[number])} for number in numbers]}

    def sources(*numbers: int) -> dict[str, Any]:
        return {"sources": [[f"f{number}.py", FILES[number]] for number in numbers]}

    database.runs.insert_many(
        [
            run(1, "COMPLETED", 60, info=names(0, 1), experiment=sources(0, 1), config={"lr": 0.1}),
            run(2, "FAILED", 30, info=names(2), experiment=sources(0), config={"lr": 0.2}),
            run(3, "RUNNING", 10.5, info=names(3), experiment=sources(), config={"lr": 0.3}),
            {"_id": 4, "status": "RUNNING", "start_time": datetime.utcnow(), "heartbeat": None},
        ]
    )
    return database


def probable_status(now: datetime) -> dict[str, Any]:
    silent = {"$subtract": [now, {"$ifNull": ["$heartbeat", "$start_time"]}]}
    dead = {"$and": [{"$eq": ["$status", "RUNNING"]}, {"$gt": [silent, 120000]}]}
    return {"$cond": {"if": dead, "then": "PROBABLY_DEAD", "else": "$status"}}


def joined_metrics(names: list[str]) -> list[dict[str, Any]]:
    """The metrics of each run as one document, by their names with dots made underscores."""
    ours = [{"$eq": ["$_id", "$$metric_id"]}, {"$in": ["$name", names]}]
    with_underscores = {
        "$reduce": {
            "input": {"$split": ["$metrics.name", "."]},
            "initialValue": "",
            "in": {
                "$concat": ["$$value", {"$cond": [{"$eq": ["$$value", ""]}, "", "_"]}, "$$this"]
            },
        }
    }
    pair = {
        "$cond": [
            {"$gt": ["$metrics", None]},
            {"k": "$$metric_name", "v": "$metrics"},
            {"k": "empty", "v": ""},
        ]
    }
    named = {"$let": {"vars": {"metric_name": with_underscores}, "in": pair}}
    return [
        {"$unwind": {"path": "$info.metrics", "preserveNullAndEmptyArrays": True}},
        {
            "$lookup": {
                "from": "metrics",
                "let": {"metric_id": {"$toObjectId": "$info.metrics.id"}},
                "pipeline": [{"$match": {"$expr": {"$and": ours}}}],
                "as": "metrics",
            }
        },
        {"$addFields": {"metrics": {"$arrayElemAt": ["$metrics", 0]}}},
        {"$group": {"_id": "$_id", "metrics": {"$push": named}, "runs": {"$first": "$$ROOT"}}},
        {"$addFields": {"runs.metrics": {"$arrayToObject": "$metrics"}}},
        {"$replaceRoot": {"newRoot": "$runs"}},
        {"$project": {"runs.metrics": 0}},
    ]


def last(values: str) -> dict[str, Any]:
    place = {"$subtract": [{"$size": values}, 1]}
    return {"$cond": {"if": there(values), "then": {"$arrayElemAt": [values, place]}, "else": None}}


def last_mean(values: str, n: int) -> dict[str, Any]:
    mean = {"$avg": {"$slice": [values, -n]}}
    return {"$cond": {"if": there(values), "then": mean, "else": None}}


def there(values: str) -> dict[str, Any]:
    return {"$and": [{"$isArray": values}, {"$size": values}]}


def test_the_table_of_runs(board: TestDatabase) -> None:
    computed = {
        "duration": {"$subtract": ["$heartbeat", "$start_time"]},
        "status": probable_status(datetime.utcnow()),
    }
    stages: list[dict[str, Any]] = [
        {"$project": {"_id": 1, "status": 1, "config": 1, "start_time": 1, "heartbeat": 1}},
        {"$addFields": computed},
        {"$sort": {"_id": -1}},
        {"$limit": 200},
        {"$project": {"start_time": 0, "heartbeat": 0}},
    ]
    assert list(board.runs.aggregate(stages)) == [
        {"_id": 4, "status": "RUNNING", "duration": None},
        {"_id": 3, "status": "PROBABLY_DEAD", "config": {"lr": 0.3}, "duration": 10500},
        {"_id": 2, "status": "FAILED", "config": {"lr": 0.2}, "duration": 30000},
        {"_id": 1, "status": "COMPLETED", "config": {"lr": 0.1}, "duration": 60000},
    ]
    filtered = [*stages[:2], {"$match": {"$and": [{"config.lr": {"$gte": 0.2}}]}}]
    assert [d["_id"] for d in board.runs.aggregate(filtered)] == [2, 3]
    assert list(board.runs.aggregate([*filtered, {"$count": "count"}])) == [{"count": 2}]
    dead = [*stages[:2], {"$match": {"status": "PROBABLY_DEAD"}}, {"$skip": 0}, {"$limit": 5}]
    assert [d["_id"] for d in board.runs.aggregate(dead)] == [3]


def test_columns_of_metrics(board: TestDatabase) -> None:
    loss = "$metrics.val_loss.values"
    stages: list[dict[str, Any]] = [
        {"$project": {"_id": 1, "info.metrics": 1}},
        *joined_metrics(["val.loss", "reward"]),
        {"$addFields": {"best": {"$min": loss}}},
        {"$addFields": {"latest": last("$metrics.reward.values")}},
        {"$addFields": {"steady": last_mean(loss, 2)}},
        {"$project": {"metrics": 0, "info": 0}},
        {"$sort": {"_id": 1}},
    ]
    assert list(board.runs.aggregate(stages, allowDiskUse=True)) == [
        {"_id": 1, "best": 1.0, "latest": 7, "steady": 1.5},
        {"_id": 2, "best": 4.0, "latest": None, "steady": 4.0},
        {"_id": 3, "best": None, "latest": None, "steady": None},
        {"_id": 4, "best": None, "latest": None, "steady": None},
    ]
    matched = [*stages[:-2], {"$match": {"best": {"$lt": 2}}}, {"$count": "count"}]
    assert list(board.runs.aggregate(matched)) == [{"count": 1}]


def test_source_files_of_runs(board: TestDatabase) -> None:
    stages: list[dict[str, Any]] = [
        {"$project": {"_id": 1, "experiment": 1}},
        {"$match": {"_id": {"$in": [1, 2, 3]}}},
        {"$unwind": {"path": "$experiment.sources", "preserveNullAndEmptyArrays": True}},
        {
            "$lookup": {
                "from": "fs.files",
                "let": {"source": {"$toObjectId": {"$arrayElemAt": ["$experiment.sources", 1]}}},
                "pipeline": [{"$match": {"$expr": {"$eq": ["$_id", "$$source"]}}}],
                "as": "files",
            }
        },
        {"$group": {"_id": "$_id", "files": {"$push": {"$arrayElemAt": ["$files", 0]}}}},
        {"$sort": {"_id": 1}},
    ]
    first, second = ({"_id": each, "filename": str(each)} for each in FILES[:2])
    assert list(board.runs.aggregate(stages)) == [
        {"_id": 1, "files": [first, second]},
        {"_id": 2, "files": [first]},
        {"_id": 3, "files": []},
    ]


def test_who_else_uses_a_source_file(board: TestDatabase) -> None:
    mine = {"$sum": {"$cond": [{"$eq": ["$_id", 2]}, 1, 0]}}
    stages: list[dict[str, Any]] = [
        {"$project": {"_id": "$_id", "sources": "$experiment.sources"}},
        {"$unwind": {"path": "$sources"}},
        {"$addFields": {"file_id": {"$arrayElemAt": ["$sources", 1]}}},
        {"$group": {"_id": "$file_id", "count": {"$sum": 1}, "run_id_count": mine}},
        {"$match": {"run_id_count": {"$gt": 0}}},
        {"$project": {"_id": "$_id", "count": "$count"}},
    ]
    assert list(board.runs.aggregate(stages)) == [{"_id": FILES[0], "count": 2}]


def test_other_stages(board: TestDatabase) -> None:
    def found(*stages: dict[str, Any]) -> list[dict[str, Any]]:
        return list(board.runs.aggregate(list(stages)))

    match = {"$match": {"_id": {"$lte": 2}}}
    assert found(match, {"$unset": ["info", "experiment"]}, {"$unset": "config"})[0].keys() == {
        *("_id", "status", "start_time", "heartbeat")
    }
    simple = {"from": "metrics", "localField": "_id", "foreignField": "run_id", "as": "m"}
    assert [len(d["m"]) for d in found(match, {"$lookup": simple})] == [2, 1]
    assert found(match, {"$replaceWith": "$config"}) == [{"lr": 0.1}, {"lr": 0.2}]
    accumulated = {
        "_id": {"done": {"$in": ["$status", ["COMPLETED", "FAILED"]]}},
        "n": {"$sum": 1},
        "mean": {"$avg": "$config.lr"},
        "least": {"$min": "$config.lr"},
        "all": {"$addToSet": "$status"},
        "last": {"$last": "$_id"},
    }
    groups = sorted(found({"$sort": {"_id": 1}}, {"$group": accumulated}), key=lambda g: g["last"])
    assert [g["_id"] for g in groups] == [{"done": True}, {"done": False}]
    assert groups[1]["mean"] == groups[1]["least"] == 0.3
    assert (groups[0]["n"], sorted(groups[0]["all"])) == (2, ["COMPLETED", "FAILED"])
    facets = {"some": [{"$limit": 1}, {"$project": {"_id": 1}}], "many": [{"$count": "n"}]}
    assert found({"$sort": {"_id": 1}}, {"$facet": facets}) == [
        {"some": [{"_id": 1}], "many": [{"n": 4}]}
    ]
    assert found({"$collStats": {"count": {}}})[0]["count"] == 4


EXPRESSIONS: list[tuple[Any, Any]] = [
    ({"$add": ["$n", 1]}, 6),
    ({"$subtract": [{"$size": "$list"}, 1]}, 2),
    ({"$ifNull": ["$missing", "$null", "default"]}, "default"),
    ({"$arrayElemAt": ["$list", -1]}, 3),
    ({"$slice": ["$list", 1, 2]}, [2, 3]),
    ({"$slice": ["$list", -2]}, [2, 3]),
    ({"$max": "$list"}, 3),
    ({"$max": ["$n", 9]}, 9),
    ({"$sum": "$list"}, 6),
    ({"$sum": ["$n", "$missing", 1]}, 6),
    ({"$avg": "$missing"}, None),
    ({"$map": {"input": "$list", "as": "x", "in": {"$multiply": ["$$x", 2]}}}, [2, 4, 6]),
    ({"$filter": {"input": "$list", "as": "x", "cond": {"$gt": ["$$x", 1]}}}, [2, 3]),
    ({"$mergeObjects": ["$sub", {"z": 1}]}, {"y": 1, "z": 1}),
    ({"$toString": "$n"}, "5"),
    ({"$toObjectId": "5f0c0ffee0c0ffee0c0ffee0"}, bson.ObjectId("5f0c0ffee0c0ffee0c0ffee0")),
    ({"$concat": ["a", "$text"]}, "at"),
    ({"$concat": ["a", "$missing"]}, None),
    ({"$split": ["$missing", "."]}, None),
    ({"$gt": ["$missing", None]}, False),
    ({"$gt": ["$sub", None]}, True),
    ({"$eq": ["$missing", None]}, False),
    ({"$or": ["$missing", {"$not": ["$n"]}]}, False),
    ({"$isArray": ["$list"]}, True),
    ({"$literal": "$n"}, "$n"),
    ({"a": "$n", "b": ["$text", 2]}, {"a": 5, "b": ["t", 2]}),
]


@pytest.mark.parametrize(("expression", "value"), EXPRESSIONS)
def test_expressions(database: TestDatabase, expression: Any, value: Any) -> None:
    sub = {"sub": {"y": 1}}
    database.things.insert_one({"n": 5, "list": [1, 2, 3], "text": "t", "null": None, **sub})
    stages: list[dict[str, Any]] = [{"$project": {"_id": 0, "v": expression}}]
    assert list(database.things.aggregate(stages)) == [{"v": value}]


@pytest.mark.parametrize(
    ("stage", "code"),
    [
        ({"$nonsense": 1}, 40324),
        ({"$project": {"x": {"$nonsense": 1}}}, None),
        ({"$addFields": {"x": {"$toObjectId": "short"}}}, 241),
        ({"$addFields": {"x": {"$size": "$status"}}}, None),
        ({"$group": {"_id": 1, "x": {"$nonsense": 1}}}, 15952),
        ({"$match": 3}, None),
    ],
)
def test_wrong_pipelines(board: TestDatabase, stage: dict[str, Any], code: int | None) -> None:
    with pytest.raises(OperationFailure) as caught:
        list(board.runs.aggregate([stage]))
    assert code is None or caught.value.code == code
    assert board.runs.count_documents({}) == 4
