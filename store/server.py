"""The embedded store's server: python -m store.server run, stop or status"""

import asyncio
import errno
import logging
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import Callable
from logging.handlers import RotatingFileHandler
from pathlib import Path

import click

from store.embedded.database import Database
from store.embedded.documents import Documents, StoreFileError
from store.embedded.note import (
    HOST,
    NOBODY,
    Note,
    beside,
    read_note,
    running_server,
    try_lock,
    write_note,
)
from store.embedded.service import Service
from utils.program import set_up_program
from utils.settings import SettingsError, setting

log = logging.getLogger(__name__)
LOCK_SECONDS = 20.0  # for a server that is about to end
STOP_SECONDS = 20.0
LOG_BYTES = 1_000_000  # and one older file of that size


@click.group()
def cli() -> None:
    """The store of this machine's runs when there is no MongoDB."""
    set_up_program(logging.WARNING)


def _default_file() -> Path:
    try:
        folder = setting("runs", "folder")
    except SettingsError as error:
        raise click.ClickException(str(error)) from error
    return Path(folder or Path(__file__).resolve().parent.parent / "runs") / "store.sqlite"


def _file_option(function: Callable[..., None]) -> Callable[..., None]:
    return click.option(
        "--file",
        type=click.Path(dir_okay=False, path_type=Path),
        default=_default_file,
        help="The store; default: runs/store.sqlite.",
    )(function)


@cli.command()
@_file_option
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="0: any that is free.")
@click.option("--idle", type=float, default=60.0, help="End after so many seconds without use.")
def run(file: Path, port: int, idle: float) -> None:
    """Serve a store on 127.0.0.1 until nobody uses it, or until Ctrl-C."""
    file = file.resolve()
    os.umask(0o077)
    file.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + LOCK_SECONDS
    while time.monotonic() < deadline:
        with try_lock(file) as ours:
            if ours:
                _serve(file, port, idle)
                return
        if other := running_server(file):
            click.echo(f"{file} is served already, by process {other.pid}")
            return
        time.sleep(0.02)
    raise click.ClickException(f"another process holds {beside(file, 'lock')} and does not answer")


def _serve(file: Path, port: int, idle: float) -> None:
    """Serve with the lock in hand; the note says where from the first to the last moment."""
    try:
        documents = Documents(file)
    except StoreFileError as error:
        raise click.ClickException(str(error)) from error
    handler = RotatingFileHandler(
        beside(file, "log"), maxBytes=LOG_BYTES, backupCount=1, delay=True
    )
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logging.getLogger().addHandler(handler)
    last = read_note(file)
    password = last.password if last else secrets.token_hex(24)
    with _listen(port, last.port if last else 0) as listening:
        bound = listening.getsockname()[1]
        click.echo(f"serving {file} at {HOST}:{bound}")
        sys.stdout.flush()
        try:
            asyncio.run(_until_the_end(Database(documents, file), listening, password, idle))
        finally:
            if file.parent.exists():
                write_note(file, Note(NOBODY, bound, password))
    documents.close()


async def _until_the_end(
    database: Database, listening: socket.socket, password: str, idle: float
) -> None:
    service = Service(database, password, idle)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, service.stop)
    write_note(database.file, Note(os.getpid(), listening.getsockname()[1], password))
    await service.serve(listening)


def _listen(port: int, earlier: int) -> socket.socket:
    """Listen on the port that is asked for, else on the earlier one if that is free."""
    for each in [port] if port else [earlier, 0] if earlier else [0]:
        try:
            return socket.create_server((HOST, each), backlog=128)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise click.ClickException(f"cannot listen on {HOST}:{each}: {error}") from error
    raise click.ClickException(f"port {port} is in use: choose another, or 0 for any")


@cli.command()
@_file_option
def stop(file: Path) -> None:
    """End the server of a store, and wait until it has ended."""
    file = file.resolve()
    running = running_server(file)
    if running is None:
        click.echo(f"no server for {file}")
        return
    os.kill(running.pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    while not _is_free(file):
        if time.monotonic() > deadline:
            raise click.ClickException(f"process {running.pid} does not end")
        time.sleep(0.02)
    click.echo(f"process {running.pid} has ended")


def _is_free(file: Path) -> bool:
    with try_lock(file) as ours:
        return ours


@cli.command()
@_file_option
def status(file: Path) -> None:
    """Say whether a store has a server, and which."""
    running = running_server(file.resolve())
    where = f"process {running.pid} at {HOST}:{running.port}" if running else "no server"
    click.echo(f"{file}: {where}")


if __name__ == "__main__":
    cli()
