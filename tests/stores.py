"""Embedded stores of a test's own, and how to be rid of them."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pymongo
from commands import wait_until
from pymongo.database import Database

from store.embedded.note import running_server, try_lock
from store.embedded.start import embedded_url

TestDatabase = Database[dict[str, Any]]


def is_free(file: Path) -> bool:
    """True if no server holds a store."""
    with try_lock(file) as ours:
        return ours


def end_server(file: Path, number: signal.Signals = signal.SIGTERM) -> None:
    """End the server of a store, if there is one, and wait until it has ended."""
    if running := running_server(file):
        os.kill(running.pid, number)
    wait_until(lambda: is_free(file), f"the end of the server of {file}")


def connect(url: str, **options: Any) -> "pymongo.MongoClient[dict[str, Any]]":
    """A client that gives up soon."""
    return pymongo.MongoClient(url, serverSelectionTimeoutMS=5000, **options)


@contextmanager
def served(file: Path, idle_seconds: float = 60) -> "Iterator[pymongo.MongoClient[dict[str, Any]]]":
    """A client of an embedded store, whose server ends with the block."""
    try:
        with connect(embedded_url(file, idle_seconds)) as client:
            yield client
    finally:
        end_server(file)
