"""Strangers, junk and mistakes at the embedded store's door: told off, never fatal."""

import contextlib
import hashlib
import socket
import struct
from pathlib import Path
from typing import Any

import bson
import pytest
from pymongo.errors import OperationFailure
from stores import TestDatabase, connect

from store.embedded.commands import WIRE_VERSION
from store.embedded.login import Credentials, Login
from store.embedded.mongo_errors import MongoError

HEADER = struct.Struct("<iiii")
OP_QUERY, OP_MSG = 2004, 2013


@pytest.fixture
def address(embedded_store: str) -> tuple[str, int]:
    """Host and port of the embedded store."""
    host, _, port = embedded_store.partition("@")[2].partition("/")[0].partition(":")
    return host, int(port)


def exchange(address: tuple[str, int], *messages: bytes) -> list[dict[str, Any]]:
    """Send raw bytes, then read replies until the server is done with us."""
    replies = []
    with socket.create_connection(address, 5) as connection:
        connection.settimeout(5)
        connection.sendall(b"".join(messages))
        connection.shutdown(socket.SHUT_WR)
        stream = connection.makefile("rb")
        with contextlib.suppress(ConnectionError):  # it has left what we sent unread
            while header := stream.read(HEADER.size):
                length, _, _, kind = HEADER.unpack(header)
                body = stream.read(length - HEADER.size)
                replies.append(bson.decode(body[5 if kind == OP_MSG else 20 :]))
    return replies


def message(body: bytes, kind: int = OP_MSG, length: int | None = None) -> bytes:
    size = HEADER.size + len(body) if length is None else length
    return HEADER.pack(size, 7, 0, kind) + body


def op_msg(command: dict[str, Any], flags: int = 0) -> bytes:
    return message(struct.pack("<IB", flags, 0) + bson.encode(command))


def op_query(command: dict[str, Any], name: bytes = b"admin.$cmd") -> bytes:
    return message(bytes(4) + name + b"\0" + struct.pack("<ii", 0, -1) + bson.encode(command), 2004)


PING = op_msg({"ping": 1, "$db": "admin"})
JUNK = {
    "http": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "zeros": bytes(64),
    "negative length": message(b"", length=-1),
    "length of nothing": message(b"", length=16),
    "too long": message(b"", length=48_000_001),
    "cut short": PING[:-9],
    "unknown kind": message(b"abcdefgh", 2002),
    "compressed": message(b"abcdefgh", 2012),
    "no body": message(struct.pack("<I", 0)),
    "unknown flag": op_msg({"ping": 1, "$db": "admin"}, 1 << 5),
    "unknown section": message(struct.pack("<IB", 0, 9) + bson.encode({"ping": 1})),
    "bad bson": message(struct.pack("<IB", 0, 0) + struct.pack("<i", 20) + b"\x77" * 16),
    "bad text": message(struct.pack("<IB", 0, 0) + b"\x0e\0\0\0\x02\xff\0\x02\0\0\0\xff\0\0"),
    "section too long": message(struct.pack("<IBi", 0, 0, 1000) + b"x" * 20),
    "no database": op_msg({"ping": 1}),
    "empty command": op_msg({}),
    "a query": op_query({"a": 1}, b"sacred.runs"),
    "empty query": op_query({}),
    "deep": message(struct.pack("<IB", 0, 0) + b"\x03a\0" * 5000),
}


@pytest.mark.parametrize("name", JUNK)
def test_junk_ends_only_its_connection(
    address: tuple[str, int], database: TestDatabase, name: str
) -> None:
    database.things.insert_one({"_id": 1})
    assert exchange(address, PING, JUNK[name])[0]["ok"] == 1
    assert len(exchange(address, PING, JUNK[name], PING)) <= 1
    assert database.things.find_one() == {"_id": 1}


def test_old_and_new_greetings(address: tuple[str, int]) -> None:
    """What the drivers of pymongo 4 and of mongoose 5 ask first."""
    greetings = (op_query({"ismaster": 1}), op_msg({"hello": 1, "$db": "admin"}))
    old, new = exchange(address, *greetings)
    assert old["ismaster"] is new["isWritablePrimary"] is True
    assert old["maxWireVersion"] == WIRE_VERSION
    assert old["maxBsonObjectSize"] == 16 * 1024 * 1024
    assert len(exchange(address, op_msg({"ping": 1, "$db": "x"}, 2), PING)) == 1  # wants no reply


def test_strangers_learn_nothing(address: tuple[str, int]) -> None:
    for command in ("find", "insert", "listDatabases", "drop", "serverStatus"):
        (reply,) = exchange(address, op_msg({command: "runs", "$db": "sacred"}))
        assert (reply["ok"], reply["code"]) == (0, 13)


def test_a_wrong_password(embedded_store: str) -> None:
    user, _, rest = embedded_store.partition("@")
    for wrong in (user[:-1] + "x", user.replace("evo", "eve")):
        with connect(f"{wrong}@{rest}") as client, pytest.raises(OperationFailure) as caught:
            client.sacred.runs.find_one()
        assert caught.value.code == 18
    with pytest.raises(OperationFailure), connect(f"mongodb://{rest.partition('?')[0]}") as client:
        client.sacred.runs.find_one()


def test_a_login_out_of_turn() -> None:
    login = Login(Credentials("secret"))
    for payload in (b"", b"c=biws,r=x,p=eA==", "text", b"\xff", b"c=biws"):
        with pytest.raises(MongoError, match="failed"):
            login.go_on({"payload": payload})
    for payload in (b"", b"n,,n=evo", b"n,,n=eve,r=x", b"y,,n=evo,r=x", None):
        with pytest.raises(MongoError, match="failed"):
            login.start({"mechanism": "SCRAM-SHA-256", "payload": payload})
    with pytest.raises(MongoError, match="SCRAM-SHA-256"):
        login.start({"mechanism": "PLAIN", "payload": b"\0evo\0secret"})
    first = login.start({"mechanism": "SCRAM-SHA-256", "payload": b"n,,n=evo,r=abc"})["payload"]
    nonce = first.decode().partition(",")[0]
    proof = hashlib.sha256(b"a guess").hexdigest()
    for _ in range(2):
        with pytest.raises(MongoError, match="failed"):
            login.go_on({"payload": f"c=biws,{nonce},p={proof}".encode()})
    assert not login.done


WRONG: list[tuple[dict[str, Any], int]] = [
    ({"noSuchCommand": 1}, 59),
    ({"mapReduce": "things"}, 59),
    ({"find": 1}, 73),
    ({"find": ""}, 73),
    ({"find": "things", "filter": 5}, 14),
    ({"find": "things", "limit": "x"}, 14),
    ({"find": "things", "skip": -1}, 2),
    ({"find": "things", "tailable": True}, 238),
    ({"find": "things", "projection": {"x": "$y"}}, 238),
    ({"insert": "things"}, 40414),
    ({"insert": "things", "documents": []}, 16),
    ({"insert": "things", "documents": [{"_id": 1}], "txnNumber": 5}, 20),
    ({"aggregate": "things", "pipeline": 3, "cursor": {}}, 14),
    ({"aggregate": "things", "pipeline": [{"$where": 1}], "cursor": {}}, 40324),
    ({"getMore": bson.Int64(5), "collection": "things"}, 43),
    ({"distinct": "things"}, 40414),
    ({"findAndModify": "things"}, 9),
    ({"create": "capped", "capped": True}, 238),
    ({"create": "things"}, 48),
    ({"drop": "nothing"}, 26),
    ({"listIndexes": "nothing"}, 26),
    ({"dropIndexes": "things", "index": "x_1"}, 27),
    ({"createIndexes": "things", "indexes": [5]}, 9),
]  # fmt: skip


@pytest.mark.parametrize(("command", "code"), WRONG)
def test_wrong_commands(
    embedded_store: str, command: dict[str, Any], code: int, request: pytest.FixtureRequest
) -> None:
    with connect(embedded_store) as client:
        database = client["test-wrong"]
        database.things.replace_one({"_id": 1}, {"x": 1}, upsert=True)
        with pytest.raises(OperationFailure) as caught:
            database.command(command)
        assert caught.value.code == code
        assert list(database.things.find()) == [{"_id": 1, "x": 1}]


@pytest.mark.parametrize(
    "statements",
    [
        [{"q": 1, "u": {}}],
        [{"q": {}, "u": 5}],
        [{"q": {}}],
        [{"q": {}, "u": [{"$x": 1}]}],
        [{"q": {}, "u": {}, "arrayFilters": [1]}],
        [{"q": {"_id": 1}, "u": {"x": 2}, "multi": True}],
    ],
)
def test_wrong_statements(database: TestDatabase, statements: list[Any]) -> None:
    database.things.insert_one({"_id": 1})
    good = {"q": {"_id": 1}, "u": {"$set": {"x": 1}}}
    command = {"update": "things", "updates": [*statements, good], "ordered": False}
    try:
        reply = database.command(command)
    except OperationFailure as error:  # a MongoDB refuses some of them as a whole
        assert error.code
    else:
        assert [error["index"] for error in reply["writeErrors"]] == [0]
        assert database.things.find_one() == {"_id": 1, "x": 1}


def test_a_login_is_logged_nowhere(embedded_store: str, tmp_path_factory: Any) -> None:
    password = embedded_store.partition("//")[2].partition("@")[0].partition(":")[2]
    logs = Path(tmp_path_factory.getbasetemp()).rglob("store.sqlite.log")
    assert [log for log in logs if password in log.read_text()] == []
