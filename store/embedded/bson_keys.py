"""Values as bytes that compare like the values: what SQLite's indexes hold.

Equal values have equal keys, whatever their type: 1, 1.0 and Int64(1) are one number. Keys of one
kind sort as MongoDB sorts the values, and kinds follow each other in MongoDB's order.
"""

import math
import struct
from datetime import datetime
from typing import Any

import bson
from bson.datetime_ms import DatetimeMS

NULL, NUMBER, TEXT, DOCUMENT, BINARY, OBJECT_ID, BOOLEAN, DATE = (
    bytes([order]) for order in (5, 10, 15, 20, 30, 35, 40, 45)
)
SIGN = 1 << 63
ALL_BITS = (1 << 64) - 1


def key_of(value: Any) -> bytes | None:
    """The key of a value; None if it has none, as an array, whose elements count as well."""
    for kinds, make in _MAKERS:
        if isinstance(value, kinds):
            return make(value)
    return None


def _number(value: float) -> bytes:
    """The nearest double, then what an integer beyond 2^53 differs from it."""
    double = float(value)
    if math.isnan(double):
        return NUMBER + bytes(10)  # below all other numbers
    (bits,) = struct.unpack(">Q", struct.pack(">d", double + 0.0))  # -0.0 becomes 0.0
    ordered = bits ^ (ALL_BITS if bits & SIGN else SIGN)
    rest = 0 if math.isinf(double) else int(value) - int(double)
    return NUMBER + struct.pack(">QH", ordered, rest + (1 << 15))


def _date(value: datetime | DatetimeMS) -> bytes:
    (milliseconds,) = struct.unpack_from("<q", bson.encode({"": value}), 6)
    return DATE + struct.pack(">Q", milliseconds + SIGN)


def _binary(value: bytes) -> bytes:
    subtype = value.subtype if isinstance(value, bson.Binary) else 0
    return BINARY + struct.pack(">IB", len(value), subtype) + bytes(value)


_MAKERS: tuple[tuple[Any, Any], ...] = (
    (bool, lambda value: BOOLEAN + bytes([value])),
    ((int, float), _number),
    (str, lambda value: TEXT + value.encode("utf-8", "surrogatepass")),
    (bson.ObjectId, lambda value: OBJECT_ID + value.binary),
    ((datetime, DatetimeMS), _date),
    (bytes, _binary),
    (type(None), lambda _: NULL),
    (dict, lambda value: DOCUMENT + bson.encode(value)),
)
