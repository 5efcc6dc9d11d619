"""What the indexes of the embedded store tell is what a look at every document tells."""

import random
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import bson
import pytest

from store.embedded.documents import FIELDS, MAX_PARTS, Documents
from store.embedded.expressions import matches
from store.embedded.queries import Finder, plan

VALUES: list[Any] = [
    *(1, 1.0, 2, -3.5, bson.Int64(2), 2**53 + 1, "", "a", "b", b"a", datetime(2024, 1, 1)),
    *(bson.ObjectId("5f0c0ffee0c0ffee0c0ffee0"), None, ["a", 2], [], {"x": 1}, [[1]]),
    bson.Regex("^a"),
]
PLAIN = [value for value in VALUES if isinstance(value, int | float | str | datetime)]


@pytest.fixture
def documents(tmp_path: Path) -> Iterator[Documents]:
    """An empty store in this process."""
    opened = Documents(tmp_path / "store.sqlite")
    yield opened
    opened.close()


def condition(rng: random.Random) -> Any:
    """One value, or an operator with some."""
    kind = rng.choice(["equal", "$eq", "$in", "$gt", "$gte", "$lt", "$lte", "$ne", "between"])
    if kind == "equal":
        return rng.choice([value for value in VALUES if not isinstance(value, bson.Regex)])
    if kind == "$in":
        return {"$in": rng.sample(PLAIN, 2)}
    if kind == "between":
        low, high = sorted(rng.sample([1, 2, -3.5, 7], 2))
        return {"$gte": low, "$lt": high}
    return {kind: rng.choice(PLAIN)}


@pytest.mark.parametrize("seed", range(3))
def test_indexes_agree_with_a_look(documents: Documents, seed: int) -> None:
    rng, finder = random.Random(seed), Finder(documents)
    with documents.all_or_nothing():
        collection = documents.make_collection("base", "things")
        for number in range(100):
            fields = rng.sample(FIELDS, rng.randrange(len(FIELDS)))
            document = {"_id": number, **{field: rng.choice(VALUES) for field in fields}}
            documents.insert(collection, document)
    everything = list(finder.find(collection, {}))
    assert [document["_id"] for document in everything] == list(range(100))
    found_any = sure = 0
    for _ in range(150):
        fields = rng.sample(["_id", *FIELDS, "other"], rng.randrange(1, 3))
        query = {field: condition(rng) for field in fields}
        expected = [document for document in everything if matches(query, document)]
        assert list(finder.find(collection, query)) == expected, query
        assert finder.count(collection, query) == len(expected)
        for way in (1, -1):
            ordered = list(finder.find(collection, query, {"_id": way}, 1, 3))
            assert ordered == expected[::way][1:4], query
        found_any += bool(expected)
        sure += plan(query).unsure != "1"
    assert found_any > 25
    assert sure > 25


def test_a_filter_of_sacreds_needs_no_look(documents: Documents) -> None:
    for query in ({"_id": 1}, {"_id": {"$in": [1, 2]}}, {}):
        assert plan(query).is_sure
    with documents.all_or_nothing():
        collection = documents.make_collection("base", "metrics")
        documents.insert(collection, {"_id": 1, "run_id": 1, "name": "loss"})
    rows = Finder(documents).rows(collection, {"run_id": 1, "name": "loss"})
    assert [unsure for _, unsure in rows] == [False]


def test_parts_become_one_now_and_then(documents: Documents) -> None:
    with documents.all_or_nothing():
        collection = documents.make_collection("base", "metrics")
        documents.insert(collection, {"_id": 1, "values": [], "name": "loss"})
        ((number, _),) = Finder(documents).rows(collection, {"_id": 1})
        assert not documents.append(number, {"name": [1]})
        assert not documents.append(number, {"values": [1], "missing": [1]})
        for value in range(5 * MAX_PARTS):
            assert documents.append(number, {"values": [value]})
        whole = documents.read(number)
        assert whole == {"_id": 1, "values": list(range(5 * MAX_PARTS)), "name": "loss"}
        documents.replace(number, whole)
        assert documents.append(number, {"values": ["x"]})
        assert documents.read(number) == {**whole, "values": [*whole["values"], "x"]}
        documents.delete(number)
        assert documents.read(number) is None
        assert documents.size() == (0, 0)
