"""Messages as bytes: a JSON header for scalars and shapes, then the arrays' raw memory.

No pickle: whoever can reach the redis port must not be able to run code on our machines. Every
message carries a code over all of it: with the key of a run only who knows that run can have sent
it; without a key it is a checksum.
"""

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
            arrays[name] = [value.dtype.str, *value.shape]
            buffers.append(np.ascontiguousarray(value).tobytes())
        else:
            header[name] = value
    head = json.dumps([header, arrays]).encode()
    code = _code(key, len(head), head, *buffers)
    return b"".join([_PREFIX.pack(_MAGIC, VERSION, len(head), code), head, *buffers])


def unpack(data: bytes, key: bytes = b"", limit: int = MAX_BYTES) -> dict[str, Any]:
    """Decode what ``pack`` wrote; arrays are read-only views of ``data``.

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
        dtype, shape = _array_type(name, description)
        count = math.prod(shape)
        end = at + count * dtype.itemsize
        if end > len(data):
            raise MessageError(f"array {name!r} is cut off")
        message[name] = np.frombuffer(data, dtype, count, at).reshape(shape)
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


def _array_type(name: str, description: Any) -> tuple[np.dtype, list[int]]:
    if not isinstance(description, list) or not description or description[0] not in _DTYPES:
        raise MessageError(f"array {name!r} has no dtype that the wire carries")
    dtype, *shape = description
    sane = len(shape) <= 8 and all(type(n) is int and 0 <= n <= MAX_BYTES for n in shape)
    if not sane or math.prod(max(n, 1) for n in shape) > MAX_BYTES:  # NumPy counts a 0 as a 1
        raise MessageError(f"array {name!r} has the impossible shape {shape}")
    return np.dtype(dtype), shape
