"""A running server: connections in, replies out, one commit for all that came together.

One thread does everything, so commands never meet. A reply waits until what it tells is on the
disk; all commands that have arrived by then share the commit.
"""

import asyncio
import contextlib
import itertools
import logging
import os
import sqlite3
import time
from pathlib import Path
from socket import socket

from store.embedded.commands import run
from store.embedded.database import Database, Reply, Request
from store.embedded.login import Credentials, Login
from store.embedded.mongo_errors import MongoError
from store.embedded.mongo_wire import Message, WireError, encode_reply, read_message

log = logging.getLogger(__name__)
TICK_SECONDS = 0.5
BUFFER = 1 << 20  # bytes per connection


class Service:
    """Serves a database until it is told to stop, or nobody has been there for a while."""

    def __init__(self, database: Database, password: str, idle_seconds: float) -> None:
        """A service for those who know the password.

        Args:
            idle_seconds: end after so long without a connection.
        """
        self._database, self._idle = database, idle_seconds
        self._credentials = Credentials(password)
        self._numbers = itertools.count(1)
        self._connections: set[asyncio.Task[None]] = set()
        self._commit: asyncio.Future[MongoError | None] | None = None
        self._stop = asyncio.Event()

    def stop(self) -> None:
        """End soon."""
        self._stop.set()

    async def serve(self, listening: socket) -> None:
        """Serve connections to a socket until the end."""
        server = await asyncio.start_server(self._connection, sock=listening, limit=BUFFER)
        await self._wait_for_the_end()
        server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        self._database.documents.commit()

    async def _wait_for_the_end(self) -> None:
        used = time.monotonic()
        while not self._stop.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), min(TICK_SECONDS, self._idle))
            self._database.cursors.expire()
            if self._connections:
                used = time.monotonic()
            if time.monotonic() - used >= self._idle:
                log.info("nobody was here for %.0f s", self._idle)
                return
            if _inode(self._database.file) != self._database.inode:
                log.warning("%s is gone", self._database.file)
                return

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await self._converse(reader, writer)
        except (WireError, OSError, TimeoutError) as error:
            log.info("a connection ends: %s", error)
        finally:
            self._connections.discard(task)
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        login = Login(self._credentials)
        while message := await read_message(reader):
            reply = self._answer(message, login)
            refused = await self._kept()
            if refused is not None:
                reply = refused.answer()
            if message.wants_reply:
                writer.write(self._encoded(message, reply))
                await writer.drain()

    def _encoded(self, message: Message, reply: Reply) -> bytes:
        return encode_reply(message, reply, next(self._numbers) & 0x7FFFFFFF)

    def _answer(self, message: Message, login: Login) -> Reply:
        try:
            return run(self._database, Request(message.database, message.body), login)
        except MongoError as error:
            return error.answer()
        except sqlite3.Error as error:
            log.error("%s: %s", message.command, error)
            return _refusal(error).answer()
        except Exception as error:
            log.exception("%s failed", message.command)
            return MongoError(1, f"{type(error).__name__}: {error}").answer()

    async def _kept(self) -> MongoError | None:
        """Wait until all changes so far are on the disk; returns what came between."""
        if self._commit is None:
            if not self._database.documents.changed:
                return None
            loop = asyncio.get_running_loop()
            self._commit = loop.create_future()
            loop.call_soon(self._commit_now)
        return await asyncio.shield(self._commit)

    def _commit_now(self) -> None:
        waiting, self._commit = self._commit, None
        refused = None
        try:
            self._database.documents.commit()
        except sqlite3.Error as error:
            log.error("commit: %s", error)
            self._database.documents.rollback()
            refused = _refusal(error)
        if waiting is not None:
            waiting.set_result(refused)


def _refusal(error: sqlite3.Error) -> MongoError:
    full = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
    return MongoError(14031 if full else 1, f"the store cannot be written: {error}")


def _inode(file: Path) -> int | None:
    try:
        return os.stat(file).st_ino
    except FileNotFoundError:
        return None
