"""Errors as MongoDB's clients know them: a number, a name, a sentence."""

from typing import Any

NAMES = {
    1: "InternalError",
    2: "BadValue",
    9: "FailedToParse",
    13: "Unauthorized",
    14: "TypeMismatch",
    18: "AuthenticationFailed",
    20: "IllegalOperation",
    26: "NamespaceNotFound",
    27: "IndexNotFound",
    40: "ConflictingUpdateOperators",
    43: "CursorNotFound",
    48: "NamespaceExists",
    59: "CommandNotFound",
    66: "ImmutableField",
    73: "InvalidNamespace",
    85: "IndexOptionsConflict",
    238: "NotImplemented",
    241: "ConversionFailure",
    10334: "BSONObjectTooLarge",
    11000: "DuplicateKey",
    14031: "OutOfDiskSpace",
}


class MongoError(Exception):
    """What a command, or one statement of it, is refused with."""

    def __init__(self, code: int, message: str, **details: Any) -> None:
        """An error with one of MongoDB's codes.

        Args:
            details: further fields of the answer, such as keyPattern.
        """
        super().__init__(message)
        self.code, self.details = code, details

    @property
    def name(self) -> str:
        """MongoDB's name of the code."""
        return NAMES.get(self.code, f"Location{self.code}")

    def answer(self) -> dict[str, Any]:
        """The reply of a command that failed."""
        described = {"errmsg": str(self), "code": self.code, "codeName": self.name}
        return {"ok": 0.0, **described, **self.details}

    def write_error(self, index: int) -> dict[str, Any]:
        """The entry for one statement among several."""
        return {"index": index, "code": self.code, "errmsg": str(self), **self.details}
