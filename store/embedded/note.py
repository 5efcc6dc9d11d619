"""Where the server of a store is: a note and a lock beside the file, readable by this user only."""

import contextlib
import fcntl
import json
import os
import socket
import stat
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import bson

from store.embedded.login import MECHANISM, USER
from store.embedded.mongo_wire import HEADER, OP_MSG

HOST = "127.0.0.1"
ANSWER_SECONDS = 5.0
NOBODY = 0  # in place of the pid when the server has ended


@dataclass(frozen=True)
class Note:
    """How to reach a server; port and password stay the same when it is started again."""

    pid: int
    port: int
    password: str

    @property
    def url(self) -> str:
        """The MongoDB URL, with the password in it."""
        return (
            f"mongodb://{USER}:{self.password}@{HOST}:{self.port}/sacred"
            f"?authSource=admin&authMechanism={MECHANISM}"
        )


def beside(file: Path, ending: str) -> Path:
    """A file that belongs to a store."""
    return file.with_name(f"{file.name}.{ending}")


def write_note(file: Path, note: Note) -> None:
    """Write down where the server of a store is."""
    path = beside(file, "server")
    temporary = beside(path, str(os.getpid()))
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as opened:
        json.dump(asdict(note), opened)
    temporary.replace(path)


def read_note(file: Path) -> Note | None:
    """The last note of a server of this user, which may have ended; None if there is none."""
    path = beside(file, "server")
    with contextlib.suppress(OSError, ValueError, TypeError):
        with path.open() as opened:
            status = os.fstat(opened.fileno())
            noted = Note(**json.load(opened))
        private = stat.S_ISREG(status.st_mode) and not status.st_mode & 0o077
        kinds = [type(value) for value in (noted.pid, noted.port, noted.password)]
        if private and status.st_uid == os.getuid() and kinds == [int, int, str]:
            return noted
    return None


def running_server(file: Path) -> Note | None:
    """The note of a store's server if that is alive and answers for this file; else None."""
    noted = read_note(file)
    if noted is None or noted.pid == NOBODY or not 0 < noted.port < 1 << 16:
        return None
    with contextlib.suppress(OSError, ValueError, LookupError):
        os.kill(noted.pid, 0)
        wanted = (noted.pid, str(file.resolve()), file.stat().st_ino)
        answer = _ask(noted.port, {"buildInfo": 1, "$db": "admin"})
        if (answer["pid"], answer["file"], answer["inode"]) == wanted:
            return noted
    return None


def _ask(port: int, command: dict[str, Any]) -> dict[str, Any]:
    """The answer to one command that strangers may give, without the threads of a client."""
    body = bytes(5) + bson.encode(command)
    with socket.create_connection((HOST, port), ANSWER_SECONDS) as connection:
        connection.sendall(HEADER.pack(HEADER.size + len(body), 1, 0, OP_MSG) + body)
        with connection.makefile("rb") as replies:
            length, *_ = HEADER.unpack(replies.read(HEADER.size).ljust(HEADER.size, b"\0"))
            return bson.decode(replies.read(min(length, 1 << 16) - HEADER.size)[5:])


@contextlib.contextmanager
def try_lock(file: Path) -> Iterator[bool]:
    """Hold the right to serve a store, which ends with the process; False if another has it."""
    descriptor = os.open(beside(file, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield True
    except BlockingIOError:
        yield False
    finally:
        os.close(descriptor)
