"""All commands by name, and those about the server itself."""

import os
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import bson

from store.embedded import admin_commands, read_commands, write_commands
from store.embedded.database import Database, Reply, Request
from store.embedded.documents import MAX_DOCUMENT
from store.embedded.login import MECHANISM, USER, Login
from store.embedded.mongo_errors import MongoError
from store.embedded.mongo_wire import MAX_MESSAGE

VERSION = (5, 0, 0, 0)  # of MongoDB: what clients may expect of the commands
WIRE_VERSION = 13  # that of MongoDB 5.0
MAX_STATEMENTS = write_commands.MAX_STATEMENTS
Command = Callable[[Database, Request], Reply]


def run(database: Database, request: Request, login: Login) -> Reply:
    """The answer to a command.

    Raises:
        MongoError: 59, there is no such command; 13, it is not for strangers; its own otherwise.
    """
    name = request.name.lower()
    if name in ("saslstart", "saslcontinue"):
        return (login.start if name == "saslstart" else login.go_on)(request.body)
    if name not in ANYBODYS and name not in READS and name not in WRITES:
        raise MongoError(59, f"no such command: '{request.name}'")
    if name in ANYBODYS:
        return ANYBODYS[name](database, request)
    if not login.done:
        raise MongoError(13, f"command {request.name} requires authentication")
    if "startTransaction" in request.body or "txnNumber" in request.body:
        raise MongoError(20, "there are no transactions here")
    if name in READS:
        return READS[name](database, request)
    with database.documents.all_or_nothing():
        return WRITES[name](database, request)


def hello(_: Database, request: Request) -> Reply:
    """What clients ask first, and again and again."""
    limits = {
        "maxBsonObjectSize": MAX_DOCUMENT,
        "maxMessageSizeBytes": MAX_MESSAGE,
        "maxWriteBatchSize": MAX_STATEMENTS,
    }
    wire = {"minWireVersion": 0, "maxWireVersion": WIRE_VERSION}
    asked = request.body.get("saslSupportedMechs")
    mechanisms = {"saslSupportedMechs": [MECHANISM]} if str(asked).endswith(f".{USER}") else {}
    primary = "isWritablePrimary" if request.name == "hello" else "ismaster"
    now = {"localTime": datetime.now(UTC), "readOnly": False}
    return {"helloOk": True, primary: True, **limits, **now, **wire, **mechanisms, "ok": 1.0}


def build_info(database: Database, _: Request) -> Reply:
    """Which MongoDB this is like, and who it is."""
    own = {"pid": os.getpid(), "file": str(database.file), "inode": bson.Int64(database.inode)}
    version = {"version": ".".join(map(str, VERSION[:3])), "versionArray": list(VERSION)}
    return {
        **version,
        **own,
        "bits": 64,
        "maxBsonObjectSize": MAX_DOCUMENT,
        "modules": [],
        "ok": 1.0,
    }


def server_status(database: Database, _: Request) -> Reply:
    """What goes on here."""
    cursors = {"cursor": {"open": {"total": len(database.cursors)}}}
    process = {"process": "store.server", "pid": bson.Int64(os.getpid())}
    return {**process, "version": ".".join(map(str, VERSION[:3])), "metrics": cursors, "ok": 1.0}


def nothing(_: Database, __: Request) -> Reply:
    """Commands that have nothing to do here."""
    return {"ok": 1.0}


def last_error(_: Database, __: Request) -> Reply:
    """What old clients ask after a write: errors were in its own reply."""
    return {"err": None, "n": 0, "ok": 1.0}


def connection_status(_: Database, __: Request) -> Reply:
    """Who is asking."""
    users: list[dict[str, Any]] = [{"user": USER, "db": "admin"}]
    return {"authInfo": {"authenticatedUsers": users, "authenticatedUserRoles": []}, "ok": 1.0}


ANYBODYS: dict[str, Command] = {
    "hello": hello,
    "ismaster": hello,
    "ping": nothing,
    "buildinfo": build_info,
    "logout": nothing,
    "endsessions": nothing,
}
READS: dict[str, Command] = {
    "find": read_commands.find,
    "getmore": read_commands.get_more,
    "killcursors": read_commands.kill_cursors,
    "aggregate": read_commands.aggregate,
    "count": read_commands.count,
    "distinct": read_commands.distinct,
    "listcollections": admin_commands.list_collections,
    "listdatabases": admin_commands.list_databases,
    "listindexes": admin_commands.list_indexes,
    "dbstats": admin_commands.database_statistics,
    "collstats": admin_commands.collection_statistics,
    "serverstatus": server_status,
    "connectionstatus": connection_status,
    "getlasterror": last_error,
    "refreshsessions": nothing,
    "killsessions": nothing,
}
WRITES: dict[str, Command] = {
    "insert": write_commands.insert,
    "update": write_commands.update,
    "delete": write_commands.delete,
    "findandmodify": write_commands.find_and_modify,
    "create": admin_commands.create,
    "drop": admin_commands.drop,
    "dropdatabase": admin_commands.drop_database,
    "createindexes": admin_commands.create_indexes,
    "dropindexes": admin_commands.drop_indexes,
}
