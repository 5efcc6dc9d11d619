"""Changing documents as an update says; mongomock knows the operators."""

from collections.abc import Iterable, Mapping
from typing import Any

import bson
import mongomock

from store.embedded.expressions import refusals
from store.embedded.mongo_errors import MongoError

OPERATORS = {
    *("$set", "$unset", "$inc", "$max", "$min", "$pop", "$rename", "$setOnInsert"),
    *("$currentDate", "$addToSet", "$pull", "$pullAll", "$push"),
}
Update = Mapping[str, Any]


def is_replacement(update: Update) -> bool:
    """True if an update is a document to put in place of another.

    Raises:
        MongoError: 9, it is neither that nor a list of known operators.
    """
    operators = [name for name in update if name.startswith("$")]
    if not operators:
        return True
    unknown = set(update) - OPERATORS
    if unknown:
        raise MongoError(9, f"Unknown modifier: {min(unknown)}")
    wrong = [name for name, what in update.items() if not isinstance(what, dict)]
    if wrong:
        raise MongoError(9, f"Modifiers operate on fields but {wrong[0]} has no document")
    return False


def pushed_values(update: Update) -> dict[str, list[Any]] | None:
    """The values to append to each array, if an update does no more than that; else None."""
    if set(update) != {"$push"}:
        return None
    found = {}
    for field, what in update["$push"].items():
        more = what if isinstance(what, dict) else {}
        if "." in field or field.startswith("$") or (more and not isinstance(more, dict)):
            return None
        if any(name.startswith("$") for name in more):
            if set(more) != {"$each"} or not isinstance(more["$each"], list):
                return None
            found[field] = more["$each"]
        else:
            found[field] = [what]
    return found


class Updater:
    """Applies updates to documents in memory."""

    def __init__(self) -> None:
        # No document ever gets there: its methods are what is needed.
        self._engine: Any = mongomock.MongoClient(tz_aware=False).engine.documents

    def apply(
        self, document: dict[str, Any], query: Mapping[str, Any], update: Update
    ) -> dict[str, Any]:
        """The document as it is after the update; the one given may change too.

        Args:
            query: what the document was found with, for the positional ``$``.
        Raises:
            MongoError: 66, the ``_id`` would change; others for what cannot be done.
        """
        return self._apply(document, query, update, False)

    def insert(self, query: Mapping[str, Any], update: Update) -> dict[str, Any]:
        """The document that an upsert makes if nothing matches ``query``."""
        with refusals():
            begun: dict[str, Any] = self._engine._expand_dots(_equalities(query))
        if is_replacement(update):
            begun = {"_id": begun["_id"]} if "_id" in begun else {}
        made = self._apply(begun, query, update, True)
        return {"_id": made.pop("_id") if "_id" in made else bson.ObjectId(), **made}

    def _apply(
        self,
        document: dict[str, Any],
        query: Mapping[str, Any],
        update: Update,
        inserting: bool,
    ) -> dict[str, Any]:
        identity = {"_id": document["_id"]} if "_id" in document else {}
        if is_replacement(update):
            made = {**identity, **update}
        else:
            made = document
            with refusals():
                self._engine._apply_update_document(made, query, update, inserting)
        if identity and made.get("_id") != identity["_id"]:
            raise MongoError(66, f"the _id {identity['_id']!r} of a document cannot change")
        return made


def _equalities(query: Mapping[str, Any]) -> dict[str, Any]:
    """The fields for which a filter names one value."""
    found: dict[str, Any] = {}
    for field, condition in query.items():
        if field == "$and":
            for each in condition:
                found |= _equalities(each)
        elif isinstance(condition, dict) and _has_operators(condition):
            if "$eq" in condition:
                found[field] = condition["$eq"]
        elif not field.startswith("$") and not isinstance(condition, bson.Regex):
            found[field] = condition
    return found


def _has_operators(names: Iterable[str]) -> bool:
    return any(name.startswith("$") for name in names)
