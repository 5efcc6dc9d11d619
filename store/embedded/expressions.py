"""MongoDB's aggregation expressions: mongomock's, and what Omniboard needs beyond them.

A field that is missing raises KeyError in mongomock; ``Expression.value`` makes None of it.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import bson
from mongomock import OperationFailure
from mongomock.aggregate import _Parser
from mongomock.filtering import BsonComparable, filter_applies

from store.embedded.mongo_errors import MongoError

MISSING = object()
Document = dict[str, Any]


@contextlib.contextmanager
def refusals() -> Iterator[None]:
    """Turn what mongomock refuses into errors of ours."""
    try:
        yield
    except NotImplementedError as error:
        raise MongoError(238, str(error)) from error
    except OperationFailure as error:
        raise MongoError(error.code or 2, str(error)) from error
    except (ArithmeticError, AssertionError, AttributeError, LookupError) as error:
        raise MongoError(2, f"{type(error).__name__}: {error}") from error
    except (TypeError, ValueError, bson.errors.BSONError) as error:
        raise MongoError(2, str(error)) from error


class Expression(_Parser):
    """Evaluates expressions on one document."""

    def __init__(self, document: Document, variables: Mapping[str, Any]) -> None:
        """Expressions may name the fields of ``document`` and, after ``$$``, the variables."""
        super().__init__(document, dict(variables), ignore_missing_keys=True)

    def parse(self, expression: Any) -> Any:
        """The value of an expression.

        Raises:
            KeyError: it is a field that is missing.
            MongoError: it cannot be evaluated.
        """
        if isinstance(expression, list):
            return [self.value(each) for each in expression]
        if isinstance(expression, dict) and len(expression) == 1:
            ((operator, argument),) = expression.items()
            if operator in OPERATORS:
                return OPERATORS[operator](self, argument)
        return super().parse(expression)

    def value(self, expression: Any, missing: Any = None) -> Any:
        """The value of an expression, ``missing`` for a field that is not there."""
        try:
            return self.parse(expression)
        except KeyError:
            return missing

    def is_true(self, expression: Any) -> bool:
        """What a condition says."""
        return self._parse_to_bool(expression)

    def arguments(self, given: Any) -> list[Any]:
        """The values of an operator's arguments; a single one may stand without brackets."""
        return [self.value(each) for each in (given if isinstance(given, list) else [given])]

    def within(self, **variables: Any) -> "Expression":
        """The same document with more variables."""
        return Expression(self._doc_dict, {**self._user_vars, **variables})


def evaluate(expression: Any, document: Document, variables: Mapping[str, Any]) -> Any:
    """The value of an expression on a document; MISSING if it is a field that is not there."""
    with refusals():
        return Expression(document, variables).value(expression, MISSING)


def matches(
    query: Mapping[str, Any], document: Document, variables: Mapping[str, Any] | None = None
) -> bool:
    """True if a document fits a filter."""
    plain = {name: each for name, each in query.items() if name != "$expr"}
    with refusals():
        if not filter_applies(plain, document):
            return False
    condition = {"$and": [query["$expr"]]} if "$expr" in query else True
    return evaluate(condition, document, variables or {})


def smallest(values: list[Any]) -> Any:
    """By MongoDB's order over all kinds; None if there is nothing."""
    known = [value for value in values if value is not None]
    return min(known, key=BsonComparable, default=None)


def largest(values: list[Any]) -> Any:
    """By MongoDB's order over all kinds; None if there is nothing."""
    known = [value for value in values if value is not None]
    return max(known, key=BsonComparable, default=None)


def total(values: list[Any]) -> Any:
    """Of the numbers among the values."""
    return sum(_numbers(values))


def mean(values: list[Any]) -> float | None:
    """Of the numbers among the values; None if there is none."""
    numbers = _numbers(values)
    return sum(numbers) / len(numbers) if numbers else None


def merged(values: list[Any]) -> Document:
    """One document of several."""
    return {name: each for value in values if value for name, each in value.items()}


def _numbers(values: list[Any]) -> list[Any]:
    return [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]


def _over_values(reduce: Callable[[list[Any]], Any]) -> Callable[[Expression, Any], Any]:
    """An operator over its arguments, or over the elements of its only one."""

    def operator(self: Expression, given: Any) -> Any:
        values = self.arguments(given)
        return reduce(values[0] if len(values) == 1 and isinstance(values[0], list) else values)

    return operator


def _compared(name: str) -> Callable[[Expression, Any], bool]:
    """A comparison in which a missing field comes before everything."""
    when_missing: Callable[[bool, bool], bool] = {
        "$eq": lambda a, b: a == b,
        "$ne": lambda a, b: a != b,
        "$gt": lambda a, b: a > b,
        "$gte": lambda a, b: a >= b,
        "$lt": lambda a, b: a < b,
        "$lte": lambda a, b: a <= b,
    }[name]

    def operator(self: Expression, given: Any) -> bool:
        if not isinstance(given, list) or len(given) != 2:
            raise MongoError(16020, f"Expression {name} takes exactly 2 arguments")
        one, other = (self.value(each, MISSING) for each in given)
        if one is MISSING or other is MISSING:
            return when_missing(one is not MISSING, other is not MISSING)
        literals = [{"$literal": value} for value in (one, other)]
        return self._handle_comparison_operator(name, literals)

    return operator


def _object_id(self: Expression, given: Any) -> bson.ObjectId | None:
    (value,) = self.arguments(given)
    try:
        return None if value is None else bson.ObjectId(value)
    except (bson.errors.InvalidId, TypeError) as error:
        raise MongoError(241, f"Failed to parse objectId {value!r}") from error


def _let(self: Expression, given: Any) -> Any:
    found = {name: self.value(each, MISSING) for name, each in given["vars"].items()}
    bound = {name: value for name, value in found.items() if value is not MISSING}
    return self.within(**bound).parse(given["in"])


def _reduce(self: Expression, given: Any) -> Any:
    items = self.value(given["input"])
    if items is None:
        return None
    result = self.value(given["initialValue"])
    for item in items:
        result = self.within(value=result, this=item).value(given["in"])
    return result


def _map(self: Expression, given: Any) -> Any:
    items, name = self.value(given["input"]), given.get("as", "this")
    return items and [self.within(**{name: item}).value(given["in"]) for item in items]


def _filter(self: Expression, given: Any) -> Any:
    items, name = self.value(given["input"]), given.get("as", "this")
    return items and [i for i in items if self.within(**{name: i}).is_true(given["cond"])]


def _element(self: Expression, given: Any) -> Any:
    array, index = self.arguments(given)
    if array is None or index is None:
        return None
    if not isinstance(array, list):
        raise MongoError(28689, f"$arrayElemAt needs an array, not a {type(array).__name__}")
    if not -len(array) <= index < len(array):
        raise KeyError(index)
    return array[int(index)]


def _slice(self: Expression, given: Any) -> Any:
    values = self.arguments(given)
    if None in values:
        return None
    if not isinstance(values[0], list):
        raise MongoError(28724, f"$slice needs an array, not a {type(values[0]).__name__}")
    return self._handle_array_operator("$slice", [{"$literal": values[0]}, *values[1:]])


def _split(self: Expression, given: Any) -> Any:
    text, separator = self.arguments(given)
    return None if text is None or separator is None else text.split(separator)


def _concat(self: Expression, given: Any) -> Any:
    values = self.arguments(given)
    return None if None in values else "".join(values)


def _in(self: Expression, given: Any) -> bool:
    value, array = self.arguments(given)
    if not isinstance(array, list):
        raise MongoError(40081, f"$in needs an array, not a {type(array).__name__}")
    return value in array


OPERATORS: dict[str, Callable[[Expression, Any], Any]] = {
    **{name: _compared(name) for name in ("$eq", "$ne", "$gt", "$gte", "$lt", "$lte")},
    "$and": lambda self, given: all(self.is_true(each) for each in given),
    "$or": lambda self, given: any(self.is_true(each) for each in given),
    "$min": _over_values(smallest),
    "$max": _over_values(largest),
    "$sum": _over_values(total),
    "$avg": _over_values(mean),
    "$mergeObjects": _over_values(merged),
    "$isArray": lambda self, given: isinstance(self.arguments(given)[0], list),
    "$toObjectId": _object_id,
    "$let": _let,
    "$reduce": _reduce,
    "$map": _map,
    "$filter": _filter,
    "$arrayElemAt": _element,
    "$slice": _slice,
    "$split": _split,
    "$concat": _concat,
    "$in": _in,
}
