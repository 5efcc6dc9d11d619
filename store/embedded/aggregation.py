"""Aggregation pipelines: stages with expressions are ours, the plain ones are mongomock's."""

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from mongomock.aggregate import process_pipeline

from store.embedded.bson_keys import key_of
from store.embedded.expressions import (
    MISSING,
    Document,
    evaluate,
    largest,
    matches,
    mean,
    merged,
    refusals,
    smallest,
    total,
)
from store.embedded.mongo_errors import MongoError

PLAIN = {"$sort", "$skip", "$limit", "$unwind", "$sample", "$bucket"}
Stage = Mapping[str, Any]
# Finds documents of a collection by name: filter, sort, skip, limit.
Find = Callable[[str, Mapping[str, Any], Mapping[str, int], int, int], Iterable[Document]]


class Pipeline:
    """Runs stages over documents; the variables are those of ``let``."""

    def __init__(self, find: Find, variables: Mapping[str, Any] | None = None) -> None:
        self._find, self._variables = find, dict(variables or {})

    def run(self, collection: str, stages: Sequence[Stage]) -> list[Document]:
        """Aggregate a collection; what comes first is left to its indexes.

        Raises:
            MongoError: 40324, there is no such stage; others for wrong arguments.
        """
        query, sort, skip, limit, taken = leading(stages, self._variables)
        return self.go_on(list(self._find(collection, query, sort, skip, limit)), stages[taken:])

    def go_on(self, documents: list[Document], stages: Sequence[Stage]) -> list[Document]:
        """Run stages over documents that may be changed."""
        for stage in stages:
            if not isinstance(stage, dict) or len(stage) != 1:
                raise MongoError(40323, "a pipeline stage must hold exactly one field")
            ((name, given),) = stage.items()
            if name in _STAGES:
                documents = _STAGES[name](self, documents, given)
            elif name in PLAIN:
                with refusals():
                    documents = list(process_pipeline(documents, None, [stage], None))
            else:
                raise MongoError(40324, f"Unrecognized pipeline stage name: '{name}'")
        return documents

    def value(self, expression: Any, document: Document) -> Any:
        """See ``evaluate``."""
        return evaluate(expression, document, self._variables)

    def match(self, documents: list[Document], given: Mapping[str, Any]) -> list[Document]:
        """Those that fit a filter, with ``$expr`` or without."""
        return [each for each in documents if matches(given, each, self._variables)]

    def add_fields(self, documents: list[Document], given: Mapping[str, Any]) -> list[Document]:
        """Set fields to the values of expressions; a missing value removes the field."""
        for document in documents:
            values = [(field, self.value(each, document)) for field, each in given.items()]
            for field, value in values:
                _put(document, field, value)
        return documents

    def project(self, documents: list[Document], given: Mapping[str, Any]) -> list[Document]:
        """Keep, drop and compute fields."""
        plain = {f: bool(v) for f, v in given.items() if isinstance(v, bool | int | float)}
        computed = {field: each for field, each in given.items() if field not in plain}
        if set(plain) - {"_id"} or not computed:
            with refusals():
                shown = list(process_pipeline(documents, None, [{"$project": plain}], None))
        else:
            kept = ["_id"] if plain.get("_id", True) else []
            shown = [{name: each[name] for name in kept if name in each} for each in documents]
        for document, target in zip(documents, shown, strict=True):
            for field, expression in computed.items():
                _put(target, field, self.value(expression, document))
        return shown

    def group(self, documents: list[Document], given: Mapping[str, Any]) -> list[Document]:
        """One document per value of ``_id``, in the order of their first members."""
        groups: dict[bytes, tuple[Any, list[Document]]] = {}
        for document in documents:
            identity = _or_none(self.value(given["_id"], document))
            key = key_of(identity) or repr(identity).encode()
            groups.setdefault(key, (identity, []))[1].append(document)
        return [
            {"_id": identity}
            | {f: self._accumulate(each, members) for f, each in given.items() if f != "_id"}
            for identity, members in groups.values()
        ]

    def _accumulate(self, given: Mapping[str, Any], members: list[Document]) -> Any:
        if not isinstance(given, dict) or len(given) != 1 or next(iter(given)) not in _ACCUMULATORS:
            raise MongoError(15952, f"unknown group operator in {given!r}")
        ((name, expression),) = given.items()
        values = [self.value(expression, member) for member in members]
        if name in ("$push", "$addToSet"):
            values = [value for value in values if value is not MISSING]
        return _ACCUMULATORS[name]([_or_none(value) for value in values])

    def replace_root(self, documents: list[Document], given: Any) -> list[Document]:
        """Go on with what an expression gives for each."""
        found = [self.value(given, document) for document in documents]
        if any(not isinstance(each, dict) for each in found):
            raise MongoError(40228, "'newRoot' expression must evaluate to an object")
        return found

    def lookup(self, documents: list[Document], given: Mapping[str, Any]) -> list[Document]:
        """Add to each the documents of another collection that belong to it."""
        for document in documents:
            _put(document, given["as"], self._joined(document, given))
        return documents

    def _joined(self, document: Document, given: Mapping[str, Any]) -> list[Document]:
        query = {}
        if "localField" in given:
            wanted = _or_none(self.value(f"${given['localField']}", document))
            query = {given["foreignField"]: {"$in": wanted} if isinstance(wanted, list) else wanted}
        bound = {name: self.value(each, document) for name, each in given.get("let", {}).items()}
        known = {name: value for name, value in bound.items() if value is not MISSING}
        stages = [{"$match": query}] * bool(query) + list(given.get("pipeline", ()))
        return Pipeline(self._find, {**self._variables, **known}).run(given["from"], stages)


def leading(
    stages: Sequence[Stage], variables: Mapping[str, Any]
) -> tuple[dict[str, Any], Mapping[str, int], int, int, int]:
    """What of a pipeline a find can do.

    Returns:
        filter, sort, skip, limit (0: none), and how many stages that replaces.
    """
    query, found, taken = dict[str, Any](), dict[str, Any](), 0
    if stages and set(stages[0]) == {"$match"} and isinstance(stages[0]["$match"], dict):
        query = dict(stages[0]["$match"])
        if "$expr" in query:  # the stage itself is still needed
            return _without_expression(query, variables), {}, 0, 0, 0
        taken = 1
    for name in ("$sort", "$skip", "$limit"):
        if len(stages) > taken and set(stages[taken]) == {name}:
            found[name] = stages[taken][name]
            taken += 1
    return query, found.get("$sort", {}), int(found.get("$skip", 0)), found.get("$limit", 0), taken


def _without_expression(query: dict[str, Any], variables: Mapping[str, Any]) -> dict[str, Any]:
    """A filter that lets pass at least what fits: ``$eq`` and ``$in`` of fields become plain."""
    terms = [query.pop("$expr")]
    while terms:
        term = terms.pop()
        if not isinstance(term, dict):
            continue
        terms += term.get("$and", [])
        for operator in {"$eq", "$in"} & set(term):
            field, *given = term[operator]
            values = given[0] if operator == "$in" and isinstance(given[0], list) else given
            known = [_constant(value, variables) for value in values]
            if isinstance(field, str) and field[:1] == "$" != field[1:2] and None not in known:
                query.setdefault(field[1:], {"$in": known})
    return query


def _constant(expression: Any, variables: Mapping[str, Any]) -> Any:
    """A value that is the same for all documents; None if it is not, or is no plain one."""
    if isinstance(expression, str) and expression.startswith("$"):
        expression = variables.get(expression[2:]) if expression[1:2] == "$" else None
    return None if isinstance(expression, dict | list) else expression


def _put(document: Document, path: str, value: Any) -> None:
    """Set what a path with dots names, or remove it."""
    *parents, last = path.split(".")
    for parent in parents:
        inner = document.get(parent)
        document[parent] = dict(inner) if isinstance(inner, dict) else {}
        document = document[parent]
    if value is MISSING:
        document.pop(last, None)
    else:
        document[last] = value


def _or_none(value: Any) -> Any:
    return None if value is MISSING else value


def _distinct(values: list[Any]) -> list[Any]:
    found: list[Any] = []
    for value in values:
        if value not in found:
            found.append(value)
    return found


_ACCUMULATORS: dict[str, Callable[[list[Any]], Any]] = {
    "$sum": total,
    "$avg": mean,
    "$min": smallest,
    "$max": largest,
    "$mergeObjects": merged,
    "$first": lambda values: values[0],
    "$last": lambda values: values[-1],
    "$push": list,
    "$addToSet": _distinct,
}
_STAGES: dict[str, Callable[[Pipeline, list[Document], Any], list[Document]]] = {
    "$match": Pipeline.match,
    "$addFields": Pipeline.add_fields,
    "$set": Pipeline.add_fields,
    "$project": Pipeline.project,
    "$unset": lambda self, documents, given: self.project(
        documents, dict.fromkeys([given] if isinstance(given, str) else given, 0)
    ),
    "$group": Pipeline.group,
    "$replaceRoot": lambda self, documents, given: self.replace_root(documents, given["newRoot"]),
    "$replaceWith": Pipeline.replace_root,
    "$lookup": Pipeline.lookup,
    "$count": lambda _, documents, given: [{given: len(documents)}] if documents else [],
    "$facet": lambda self, documents, given: [
        {name: self.go_on(copy.deepcopy(documents), stages) for name, stages in given.items()}
    ],
}
