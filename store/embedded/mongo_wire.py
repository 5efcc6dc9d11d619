"""MongoDB's wire protocol: messages with a header of 16 bytes, in little-endian order.

OP_MSG carries all commands of today's clients, OP_QUERY the first greeting of older ones.
https://www.mongodb.com/docs/manual/reference/mongodb-wire-protocol/
"""

import asyncio
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import bson

from store.embedded.documents import CODEC

HEADER = struct.Struct("<iiii")  # length, request id, answers to, kind
OP_REPLY, OP_QUERY, OP_MSG = 1, 2004, 2013
CHECKSUM, MORE_TO_COME, EXHAUST = 1, 2, 1 << 16  # flags of OP_MSG
KNOWN_FLAGS = CHECKSUM | MORE_TO_COME | EXHAUST
MAX_MESSAGE = 48_000_000  # bytes, as MongoDB


class WireError(ValueError):
    """Bytes that are no message: the connection is of no more use."""


@dataclass(frozen=True)
class Message:
    """A command on its way in."""

    request: int
    kind: int
    database: str
    body: dict[str, Any]
    wants_reply: bool

    @property
    def command(self) -> str:
        """The first field of a command names it."""
        return next(iter(self.body))


async def read_message(reader: asyncio.StreamReader) -> Message | None:
    """The next message; None at the end of the connection.

    Raises:
        WireError: what comes is no message, or is too large.
        OSError: the connection breaks.
    """
    try:
        length, request, _, kind = HEADER.unpack(await reader.readexactly(HEADER.size))
        if not HEADER.size < length <= MAX_MESSAGE:
            raise WireError(f"a message of {length} bytes; {MAX_MESSAGE} at most")
        data = await reader.readexactly(length - HEADER.size)
    except asyncio.IncompleteReadError:
        return None
    try:
        if kind == OP_MSG:
            return _op_msg(request, data)
        if kind == OP_QUERY:
            return _op_query(request, data)
    except (bson.errors.BSONError, struct.error, ValueError, LookupError, RecursionError) as error:
        raise WireError(f"no message: {error}") from error
    raise WireError(f"messages of kind {kind} are not known here")


def encode_reply(message: Message, reply: Mapping[str, Any], number: int) -> bytes:
    """The bytes that answer a message.

    Args:
        number: the id of the reply.
    """
    body = bson.encode(reply)
    if message.kind == OP_MSG:
        kind, before = OP_MSG, struct.pack("<IB", 0, 0)
    else:
        kind, before = OP_REPLY, struct.pack("<iqii", 8, 0, 0, 1)
    length = HEADER.size + len(before) + len(body)
    return HEADER.pack(length, number, message.request, kind) + before + body


def _op_msg(request: int, data: bytes) -> Message:
    """One section with the body, and any number of them with its long lists."""
    (flags,) = struct.unpack_from("<I", data)
    if flags & 0xFFFF & ~KNOWN_FLAGS:
        raise WireError(f"flags {flags:#x} are not known here")
    end = len(data) - (4 if flags & CHECKSUM else 0)
    position, body, lists = 4, dict[str, Any](), dict[str, Any]()
    while position < end:
        section, position = data[position], position + 1
        (size,) = struct.unpack_from("<i", data, position)
        if size < 5 or position + size > end:
            raise WireError(f"a section of {size} bytes in a message of {len(data)}")
        part = data[position : position + size]
        position += size
        if section == 0:
            body = bson.decode(part, CODEC)
        elif section == 1:
            name, _, documents = part[4:].partition(b"\0")
            lists[name.decode()] = bson.decode_all(documents, CODEC)
        else:
            raise WireError(f"sections of kind {section} are not known here")
    if not body or not isinstance(body.get("$db"), str):
        raise WireError("a command without a database")
    return Message(request, OP_MSG, body["$db"], {**body, **lists}, not flags & MORE_TO_COME)


def _op_query(request: int, data: bytes) -> Message:
    name, _, rest = data[4:].partition(b"\0")
    database, _, collection = name.decode().partition(".")
    if collection != "$cmd":
        raise WireError("queries must come as commands")
    (size,) = struct.unpack_from("<i", rest, 8)
    body = bson.decode(rest[8 : 8 + size], CODEC)
    body = body.get("$query", body)
    if not body:
        raise WireError("an empty command")
    return Message(request, OP_QUERY, database, body, True)
