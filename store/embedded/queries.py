"""Finding documents: what SQLite's indexes can tell they tell, mongomock's matcher the rest."""

import itertools
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import bson
from mongomock.filtering import resolve_sort_key

from store.embedded.bson_keys import key_of
from store.embedded.documents import FIELDS, LOOK, Documents
from store.embedded.expressions import matches

MOST_KEYS = 10_000  # in one $in; SQLite has a limit
LOOK_SQL = f"x'{LOOK.hex()}'"
RANGES = {"$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}
SORTED_BY_INDEX = {"_id": "id", "n": "n"}

Filter = Mapping[str, Any]
Sort = Mapping[str, int]


@dataclass(frozen=True)
class Plan:
    """A filter as SQL: a superset of what matches, and which of that must be looked at."""

    where: str
    values: tuple[bytes, ...]
    unsure: str

    @property
    def is_sure(self) -> bool:
        """True if the columns tell all."""
        return self.unsure == "0"


def plan(query: Filter) -> Plan:
    """Turn into SQL what can be, field by field."""
    where, values, unsure = list[str](), list[bytes](), set[str]()
    for field, condition in query.items():
        column = "id" if field == "_id" else field if field in FIELDS else None
        found = column and _condition(column, condition)
        if not found:
            unsure.add("1")
            continue
        text, keys = found
        values += keys
        where.append(text)
        if column != "id":
            unsure.add(f"{column} = {LOOK_SQL}")
    doubt = "1" if "1" in unsure else " OR ".join(sorted(unsure)) or "0"
    return Plan(" AND ".join(where) or "1", tuple(values), doubt)


def _condition(column: str, condition: Any) -> tuple[str, list[bytes]] | None:
    """SQL for a condition on a column; None if SQLite cannot decide it."""
    if not isinstance(condition, dict):
        condition = {"$eq": condition}
    if set(condition) <= set(RANGES) and condition:
        return _range(column, condition)
    if set(condition) == {"$eq"}:
        wanted = [condition["$eq"]]
    elif set(condition) == {"$in"} and isinstance(condition["$in"], list):
        wanted = condition["$in"]
    else:
        return None
    keys = [key_of(value) for value in wanted if _is_plain(value)]
    if None in keys or len(keys) < len(wanted) or len(keys) > MOST_KEYS:
        return None
    marks = ["?"] * len(keys) + [LOOK_SQL] * (column != "id")
    return f"{column} IN ({', '.join(marks)})", [key for key in keys if key is not None]


def _range(column: str, condition: Mapping[str, Any]) -> tuple[str, list[bytes]] | None:
    """Values of the same kind only: MongoDB compares no number with a text."""
    keys = [key_of(value) if _is_plain(value) else None for value in condition.values()]
    kinds = {key[:1] for key in keys if key is not None}
    if None in keys or len(kinds) != 1:
        return None
    terms = [f"{column} {RANGES[operator]} ?" for operator in condition]
    (kind,) = kinds
    bounds = [kind, bytes([kind[0] + 1])]
    text = f"({' AND '.join(terms)} AND {column} >= ? AND {column} < ? OR {column} = {LOOK_SQL})"
    return text, [*(key for key in keys if key is not None), *bounds]


def _is_plain(value: Any) -> bool:
    """False for what matches more than what equals it; null matches missing fields."""
    if isinstance(value, float) and math.isnan(value):
        return False
    return not isinstance(value, type(None) | dict | list | bson.Regex | re.Pattern)


class Finder:
    """Looks for documents; mongomock's matcher decides where the columns do not."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents

    def rows(
        self, collection: int | None, query: Filter, sort: Sort | None = None, limit: int = 0
    ) -> list[tuple[int, bool]]:
        """The numbers of documents that may match, in order, each with whether it is unsure.

        Args:
            limit: no more than that, if that many are sure; 0 for all.
        """
        matches(query, {})  # a wrong filter is an error even if nothing is there
        if collection is None:
            return []
        found = plan(query)
        order = _order(sort or {})
        most = limit if limit and order and found.is_sure else -1
        rows = self._documents.select(
            collection,
            found.where,
            found.values,
            unsure=found.unsure,
            order=order or "number",
            limit=most,
        )
        return rows if order else self._sorted(rows, query, sort or {})

    def find(
        self,
        collection: int | None,
        query: Filter,
        sort: Sort | None = None,
        skip: int = 0,
        limit: int = 0,
    ) -> Iterator[dict[str, Any]]:
        """The documents that match; each is read when its turn has come."""
        rows = self.rows(collection, query, sort, skip + limit if limit else 0)
        found = (document for _, document in self.look(rows, query))
        return itertools.islice(found, skip, skip + limit if limit else None)

    def look(
        self, rows: list[tuple[int, bool]], query: Filter
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        """Those of the rows that match, with their numbers; one that has gone is left out."""
        for number, unsure in rows:
            document = self._documents.read(number)
            if document is not None and (not unsure or matches(query, document)):
                yield number, document

    def sure(self, rows: list[tuple[int, bool]], query: Filter, limit: int = 0) -> list[int]:
        """The numbers of those of the rows that match; ``limit`` of them, 0 for all."""
        found = (
            number
            for number, unsure in rows
            if not unsure or any(self.look([(number, True)], query))
        )
        return list(itertools.islice(found, limit or None))

    def count(self, collection: int | None, query: Filter) -> int:
        """How many match."""
        rows = self.rows(collection, query)
        unsure = [row for row in rows if row[1]]
        return len(rows) - len(unsure) + len(self.sure(unsure, query))

    def _sorted(
        self, rows: list[tuple[int, bool]], query: Filter, sort: Sort
    ) -> list[tuple[int, bool]]:
        """Rows that match in order; only their sort keys are held in memory."""
        ranked = [
            ([resolve_sort_key(field, document) for field in sort], number)
            for number, document in self.look(rows, query)
        ]
        for place, direction in reversed(list(enumerate(sort.values()))):
            ranked.sort(key=lambda each: each[0][place], reverse=direction < 0)
        return [(number, False) for _, number in ranked]


def _order(sort: Sort) -> str | None:
    """The order in SQL; None if SQLite cannot sort so."""
    if not sort:
        return "number"
    if len(sort) > 1 or next(iter(sort)) not in SORTED_BY_INDEX:
        return None
    ((field, direction),) = sort.items()
    return SORTED_BY_INDEX[field] + (" DESC" if direction < 0 else "")
