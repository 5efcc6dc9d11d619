"""Messages as bytes: a JSON header for scalars and shapes, then the arrays' raw memory.

No pickle: whoever can reach the redis port must not be able to run code on our machines. Every
message carries a code over all of it: with the key of a run only who knows that run can have sent
it; without a key it is a checksum.
"""

import functools
import hashlib
import hmac
import json
import math
import struct
from typing import Any

import numpy as np

VERSION = 2
MAX_BYTES = 1 << 30  # a task of a 250-million-parameter policy
_CODE_BYTES = 16
_PREFIX = struct.Struct(f"<4sHI{_CODE_BYTES}s")  # magic, version, bytes of header, code
_MAGIC = b"evo\0"
_DTYPES = ("<f4", "<f8", "<i8", "<i4", "|b1")
_NARROW = ("|u1", "|i1", "<u2", "<i2", "<u4", "<i4")  # as which whole numbers travel if they fit
_NARROW_FROM = 16  # so many numbers


class MessageError(ValueError):
    """Bytes that are not a message of ours."""


class VersionError(MessageError):
    """A message of ours, in another version than this program's."""


def pack(message: dict[str, Any], key: bytes = b"") -> bytes:
    """Encode a flat dict of JSON values and NumPy arrays.

    Args:
        key: of the run, up to 64 bytes.
    Raises:
        TypeError: a value that is neither.
    """
    header: dict[str, Any] = {}
    arrays: dict[str, list[Any]] = {}
    buffers: list[bytes] = []
    for name, value in message.items():
        if isinstance(value, np.ndarray):
            if value.dtype.str not in _DTYPES:
                raise TypeError(f"{name} has dtype {value.dtype}, the wire carries {_DTYPES}")
            stored = _narrowed(value)
            kinds = value.dtype.str, stored.dtype.str
            arrays[name] = ["".join(dict.fromkeys(kinds)), *value.shape]
            buffers.append(np.ascontiguousarray(stored).tobytes())
        else:
            header[name] = value
    head = json.dumps([header, arrays]).encode()
    code = _code(key, len(head), head, *buffers)
    return b"".join([_PREFIX.pack(_MAGIC, VERSION, len(head), code), head, *buffers])


def unpack(data: bytes, key: bytes = b"", limit: int = MAX_BYTES) -> dict[str, Any]:
    """Decode what ``pack`` wrote; arrays are read-only, most of them views of ``data``.

    Args:
        limit: bytes that such a message may have at most.
    Raises:
        MessageError: anything else, with the reason.
    """
    if not _PREFIX.size <= len(data) <= limit:
        raise MessageError(f"{len(data)} bytes are too few or too many for a message")
    magic, version, size, code = _PREFIX.unpack_from(data)
    if magic != _MAGIC:
        raise MessageError("the bytes do not begin as a message of ours does")
    if version != VERSION:
        older = "its sender" if version < VERSION else "this program"
        raise VersionError(
            f"message version {version}, this program speaks {VERSION}: {older} is the older one,"
            " to be brought up to date"
        )
    if not hmac.compare_digest(code, _code(key, size, memoryview(data)[_PREFIX.size :])):
        raise MessageError("the code does not fit: damaged, or of another run")
    at = _PREFIX.size + size
    message, arrays = _header(data[_PREFIX.size : at], size)
    for name, description in arrays.items():
        dtype, stored, shape = _array_type(name, description)
        count = math.prod(shape)
        end = at + count * stored.itemsize
        if end > len(data):
            raise MessageError(f"array {name!r} is cut off")
        array = np.frombuffer(data, stored, count, at).reshape(shape)
        if stored != dtype:
            array = array.astype(dtype)
            array.flags.writeable = False
        message[name] = array
        at = end
    if at != len(data):
        raise MessageError(f"{len(data) - at} bytes too many behind the last array")
    return message


def _code(key: bytes, size: int, *parts: bytes | memoryview) -> bytes:
    """Keyed BLAKE2 (RFC 7693) over the length of the header and what follows the prefix."""
    code = hashlib.blake2b(size.to_bytes(4, "little"), key=key, digest_size=_CODE_BYTES)
    for part in parts:
        code.update(part)
    return code.digest()


def _header(data: bytes, size: int) -> tuple[dict[str, Any], dict[str, Any]]:
    try:
        header, arrays = json.loads(data)
    except (ValueError, TypeError, RecursionError) as error:
        raise MessageError(f"the header is not readable: {error}") from error
    if len(data) != size or not isinstance(header, dict) or not isinstance(arrays, dict):
        raise MessageError("the header is cut off or of the wrong form")
    return header, arrays


def _narrowed(array: np.ndarray) -> np.ndarray:
    """Whole numbers in as few bytes as they need."""
    if array.dtype.kind != "i" or array.size < _NARROW_FROM:
        return array
    least, most = int(array.min()), int(array.max())
    for kind in _NARROW[: 6 if array.itemsize == 8 else 4]:
        if np.iinfo(kind).min <= least and most <= np.iinfo(kind).max:
            return array.astype(kind)
    return array


def _array_type(name: str, description: Any) -> tuple[np.dtype, np.dtype, tuple[int, ...]]:
    """An array's dtype, the one as which it travels, and its shape."""
    try:
        if not isinstance(description, list):
            raise TypeError
        return _known_array_type(*description)
    except TypeError as error:
        raise MessageError(f"array {name!r} has no dtype that the wire carries") from error
    except ValueError as error:
        raise MessageError(f"array {name!r} has {error}") from error


@functools.lru_cache(1024, typed=True)
def _known_array_type(kinds: str, *shape: Any) -> tuple[np.dtype, np.dtype, tuple[int, ...]]:
    kind, stored = kinds[:3], kinds[3:] or kinds
    narrow = kind[1:2] == "i" and stored in _NARROW and stored[2] < kind[2]
    if kind not in _DTYPES or not (stored == kind or narrow):
        raise ValueError("no dtype that the wire carries")
    sane = len(shape) <= 8 and all(type(n) is int and 0 <= n <= MAX_BYTES for n in shape)
    if not sane or math.prod(max(n, 1) for n in shape) > MAX_BYTES:  # NumPy counts a 0 as a 1
        raise ValueError(f"the impossible shape {list(shape)}")
    return np.dtype(kind), np.dtype(stored), shape
