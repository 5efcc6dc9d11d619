"""The head's server: python es/head.py run-server, flush or status"""

import functools
import os
import secrets
import signal
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click
import redis

from cluster.addresses import PORT, find_url, password_from_environment
from cluster.keys import Keys, head_status, workers_alive
from cluster.keys import flush as delete_keys
from cluster.notes import NoteError, announce, running_server, withdraw
from cluster.redis_server import Server, ServerError, connect, start_server, without_password
from cluster.server_config import Listening
from utils.program import set_up_program, until_told_to_end

STOP_SECONDS = 10
LOOPBACK = "127.0.0.1"


@click.group()
def cli() -> None:
    """The server between a head and its workers."""
    set_up_program()


@cli.command()
@click.option("--stop/--not-stop", default=False, help="First end the one that runs.")
@click.option("--host", help=f"Listen on TCP at this address; default with --port: {LOOPBACK}.")
@click.option("--port", type=click.IntRange(0, 65535), help=f"Of TCP; default with --host: {PORT}.")
@click.option("--tls_cert", type=click.Path(path_type=Path), help="Speak TLS, with this file …")
@click.option("--tls_key", type=click.Path(path_type=Path), help="… and its key.")
def run_server(
    stop: bool, host: str | None, port: int | None, tls_cert: Path | None, tls_key: Path | None
) -> None:
    """Start a server of this user's own and stay until Ctrl-C; head and workers find it."""
    listening = _listening(host, port, tls_cert, tls_key)
    if (running := running_server()) and not stop:
        raise click.ClickException(
            f"a server runs already (process {running['pid']}): use it, or add --stop"
        )
    if running:
        _stop(running["pid"])
    lasts = until_told_to_end()
    try:
        server = start_server(listening)
    except ServerError as error:
        raise click.ClickException(str(error)) from error
    with server:
        try:
            announce(server.url)
            _tell(server, listening)
            _stay(server, lasts)
        except NoteError as error:
            raise click.ClickException(str(error)) from error
        finally:
            withdraw()


def _listening(
    host: str | None, port: int | None, certificate: Path | None, key: Path | None
) -> Listening:
    """Where others are to find the server: always with a password of their own."""
    if (certificate is None) != (key is None):
        raise click.ClickException("--tls_cert and --tls_key belong together")
    for file in (certificate, key):
        if file is not None and not os.access(file, os.R_OK):
            raise click.ClickException(f"there is no file {file} that can be read")
    if port is None:
        port = PORT if host or certificate else 0
    try:
        password = password_from_environment() or secrets.token_hex(24)
    except ServerError as error:
        raise click.ClickException(str(error)) from error
    certificate, key = (file and file.absolute() for file in (certificate, key))
    return Listening(host or LOOPBACK, port, certificate, key, password)


def _tell(server: Server, listening: Listening) -> None:
    """Say where the server is, and what to type on other machines."""
    click.echo(f"server ready at {without_password(server.url)}; end it with Ctrl-C")
    if listening.port:
        authority = "EVO_REDIS_CA=FILE " if listening.certificate else ""
        click.echo(
            f"other machines need the password in {server.password_file}, there in a file of mode"
            f" 600:\n  EVO_REDIS_PASSWORD_FILE=FILE {authority}python es/worker.py workers"
            f" --master_host {listening.host} --master_port {listening.port} --num_workers N"
        )
    sys.stdout.flush()


def _stay(server: Server, lasts: Callable[..., bool]) -> None:
    deaths = 0
    while lasts(1.0):
        if server.ended:
            raise click.ClickException("the server has ended by itself")
        if server.deaths > deaths and server.answers:
            deaths = server.deaths
            click.echo(f"the server died and was started again, empty ({deaths} times so far)")
            sys.stdout.flush()


def _stop(pid: int) -> None:
    """End our earlier run-server, and no other process."""
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    while running_server() is not None:
        if time.monotonic() > deadline:
            raise click.ClickException(f"the server of process {pid} does not end")
        time.sleep(0.05)


def _about_a_server(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the server, and the keys of a group, that its options name."""

    @click.option(
        "--redis", "url", help="URL of the server; default: EVO_REDIS, else run-server's."
    )
    @click.option("--group", default="default", show_default=True, help="Of workers.")
    @functools.wraps(command)
    def wrapped(url: str | None, group: str) -> None:
        try:
            keys, found = Keys(group), find_url(url)
            if found is None:
                raise ServerError("no server: start one with 'python es/head.py run-server'")
            server = connect(found)
        except (ServerError, ValueError) as error:
            raise click.ClickException(str(error)) from error
        command(server, keys)

    return wrapped


@cli.command()
@_about_a_server
def flush(server: redis.Redis, keys: Keys) -> None:
    """Delete the keys of a group, and no others: its workers fall into waiting."""
    deleted = delete_keys(server, keys)
    click.echo(f"deleted {len(deleted)} keys" + "".join(f"\n  {name}" for name in deleted))


@cli.command()
@_about_a_server
def status(server: redis.Redis, keys: Keys) -> None:
    """Show the run, its generation, the rate, and the workers and machines alive."""
    head = head_status(server, keys)
    said = workers_alive(server, keys)
    if head is None:
        click.echo("no head at work")
    else:
        click.echo(f"run {head['run']} (process {head['pid']} on {head['host']})")
        click.echo(f"generation {head['generation']}, {head['rate']:,.0f} steps/s")
    machines: dict[str, list[dict[str, Any]]] = {}
    for each in said:
        machines.setdefault(each["host"], []).append(each)
    run = head["run"] if head else None
    click.echo(_workers(said, run))
    click.echo(f"{_number(len(machines), 'machine')} alive")
    for host, there in machines.items():
        click.echo(f"  {host}: {_workers(there, run)}, {sum(w['idle'] for w in there)} idle")


def _workers(said: Iterable[dict[str, Any]], run: str | None) -> str:
    alive = sum(each["workers"] for each in said)
    busy = sum(each["workers"] for each in said if run is not None and each["doing"] == run)
    return f"{_number(alive, 'worker')} alive, {busy} of them in the run"


def _number(count: int, what: str) -> str:
    return f"{count} {what}" + ("" if count == 1 else "s")


if __name__ == "__main__":
    cli()
