"""Workers: python es/worker.py start-workers --num_workers=7; on another machine: workers"""

import functools
import importlib
import importlib.util
import logging
import os
import queue
import socket
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import click
import redis
from threadpoolctl import threadpool_limits

from cluster.addresses import PORT, find_url, url_of
from cluster.clients import WorkerClient
from cluster.connections import client_of
from cluster.keys import Keys
from cluster.notes import NoteError, announce, mirror, running_server, withdraw
from cluster.redis_server import (
    PasswordError,
    Server,
    ServerError,
    connect,
    start_server,
    without_password,
)
from cluster.relay import Relay
from cluster.server_config import WORKER_USER
from evolution.worker import NO_TURNS, serve
from utils.keeping import HopelessError, Keeper, Kept
from utils.program import set_up_program, until_told_to_end

log = logging.getLogger("worker")

LOOK_SECONDS = 0.5  # between attempts to find a server
CHECK_SECONDS = 1.0  # between looks whether another server has taken its place

Find = Callable[[], str]  # the URL of a server; a ServerError if there is none
Lasts = Callable[[], bool]  # false when it is time to end


@click.group()
def cli() -> None:
    """Processes that evaluate candidates for a head."""
    set_up_program()


def _at_least_one(context: click.Context, option: click.Parameter, value: int) -> int:
    if value < 1:
        raise click.ClickException(f"--{option.name}={value}: must be 1 or more")
    return value


def _keys(context: click.Context, option: click.Parameter, value: str) -> tuple[Keys, ...]:
    try:
        return tuple(Keys(name) for name in dict.fromkeys(value.split(",")))
    except ValueError as error:
        raise click.ClickException(f"--{error}") from error


def _one(context: click.Context, option: click.Parameter, value: str) -> Keys:
    (first, *others) = _keys(context, option, value)
    if others:
        raise click.ClickException(f"--group={value}: a relay serves one group")
    return first


_num_workers = click.option(
    "--num_workers", type=int, default=1, show_default=True, callback=_at_least_one
)
_groups = click.option(
    "--group",
    "groups",
    default="default",
    show_default=True,
    callback=_keys,
    help="Serve heads of this group only; of A,B,C in turn.",
)
_group = click.option("--group", "keys", default="default", show_default=True, callback=_one)
_socket = click.option(
    "--relay_socket_path",
    type=click.Path(path_type=Path),
    help="Where this machine's own server listens; default: in a private folder.",
)
_preload = click.option(
    "--preload", default="envpool", hidden=True, help="Imported once, before forking."
)

_until_stdin_ends = click.option(
    "--until_stdin_ends", is_flag=True, hidden=True, help="End when the parent does."
)


def _master(command: Callable[..., None]) -> Callable[..., None]:
    """The options that say where the head's server is."""
    host = click.option(
        "--master_host", help="Of the head's server; default: EVO_REDIS, else run-server's."
    )
    port = click.option("--master_port", type=click.IntRange(1, 65535), default=PORT)
    return host(port(command))


# --- commands


@cli.command()
@_num_workers
@click.option(
    "--force_relay/--no_force_relay",
    default=False,
    help="Talk to this machine's run-mirror instead of the head's server.",
)
@_socket
@_groups
@click.option("--redis", "url", help="URL of the server; default: EVO_REDIS, else run-server's.")
@_preload
@_until_stdin_ends
def start_workers(
    *,
    num_workers: int,
    force_relay: bool,
    relay_socket_path: Path | None,
    groups: tuple[Keys, ...],
    url: str | None,
    preload: str,
    until_stdin_ends: bool,
) -> None:
    """Start workers that talk to the head's server directly; they wait for it if need be."""
    if force_relay:
        find = functools.partial(_mirror_url, relay_socket_path)
    else:
        find = functools.partial(_master_url, url)
    with Keeper() as keeper:
        _import(preload)
        _keep(keeper, _crew(num_workers, find, groups), until_stdin_ends=until_stdin_ends)


@cli.command()
@_master
@_num_workers
@_socket
@_groups
@_preload
@_until_stdin_ends
def workers(
    *,
    master_host: str | None,
    master_port: int,
    num_workers: int,
    relay_socket_path: Path | None,
    groups: tuple[Keys, ...],
    preload: str,
    until_stdin_ends: bool,
) -> None:
    """Be a machine: workers with a server of their own, and a relay to the head's server."""
    find = _find_master(master_host, master_port)
    with Keeper() as keeper, _own_server(relay_socket_path) as below:
        _import(preload)
        crew = _crew(num_workers, lambda: below.url, groups, below)
        for keys in groups:
            relay = functools.partial(_relay, find, lambda: below.url, _machine(), keys, _always)
            crew.append(Kept("the relay", functools.partial(_without, below, relay)))
        _keep(keeper, crew, until_stdin_ends=until_stdin_ends)


@cli.command()
@_socket
def run_mirror(relay_socket_path: Path | None) -> None:
    """Start this machine's own server, for run-relay and start-workers --force_relay."""
    lasts, name = until_told_to_end(), mirror(relay_socket_path)
    if running := running_server(name):
        raise click.ClickException(f"a mirror runs already (process {running['pid']}): use it")
    with _own_server(relay_socket_path) as server:
        try:
            announce(server.url, name)
        except NoteError as error:
            raise click.ClickException(str(error)) from error
        click.echo(f"mirror ready at {without_password(server.url)}; end it with Ctrl-C")
        try:
            while lasts(1.0):
                pass
        finally:
            withdraw(name)


@cli.command()
@_master
@_socket
@_group
def run_relay(
    master_host: str | None, master_port: int, relay_socket_path: Path | None, keys: Keys
) -> None:
    """Carry tickets down to this machine's run-mirror, and results up to the head's server."""
    lasts = until_told_to_end()
    find = _find_master(master_host, master_port)
    below = functools.partial(_mirror_url, relay_socket_path)
    try:
        _relay(find, below, _machine(), keys, lasts)
    except HopelessError as error:
        raise click.ClickException(str(error)) from error


# --- what they share


def _find_master(host: str | None, port: int) -> Find:
    """Where the head's server is."""
    if host is None:
        return functools.partial(_master_url, None)
    try:
        url = url_of(host, port, WORKER_USER)
    except ServerError as error:
        raise click.ClickException(str(error)) from error
    return lambda: url


def _master_url(configured: str | None) -> str:
    if url := find_url(configured, WORKER_USER):
        return url
    raise ServerError("no server: start one with 'python es/head.py run-server'")


def _mirror_url(socket_path: Path | None) -> str:
    if noted := running_server(mirror(socket_path)):
        return noted["url"]
    raise ServerError("no mirror: start one with 'python es/worker.py run-mirror'")


def _own_server(socket_path: Path | None) -> Server:
    try:
        return start_server(socket_path=socket_path)
    except ServerError as error:
        raise click.ClickException(str(error)) from error


def _machine() -> str:
    """The name of this machine among those of the head; another machine has another."""
    return f"{socket.gethostname()}-{os.getpid()}"


def _import(package: str) -> None:
    if package and importlib.util.find_spec(package):
        importlib.import_module(package)  # once here rather than once in every worker


def _crew(
    number: int, find: Find, groups: tuple[Keys, ...], own: Server | None = None
) -> list[Kept]:
    """Workers; one that dies is followed by another of its name.

    So its successor's first word takes back what the dead one said to hold.
    """
    machine = _machine()
    crew = []
    for i in range(number):
        work: Callable[[], None] = functools.partial(_work, find, f"{machine}-{i}", groups, i == 0)
        if own is not None:
            work = functools.partial(_without, own, work)
        crew.append(Kept(f"worker {i}", work))
    return crew


def _keep(keeper: Keeper, kept: list[Kept], *, until_stdin_ends: bool = False) -> None:
    try:
        keeper.keep(kept, until_stdin_ends=until_stdin_ends)
    except HopelessError as error:
        raise click.ClickException(str(error)) from error


def _without(server: Server, work: Callable[[], None]) -> None:
    """In a fork: the server is its keeper's, and should not wait for this process."""
    server.let_go()
    work()


def _always(seconds: float = 0.0) -> bool:
    time.sleep(seconds)
    return True


# --- the processes


def _work(find: Find, name: str, groups: tuple[Keys, ...], speaks: bool) -> None:
    """A worker process: serve whichever server is there."""
    with threadpool_limits(1):
        if len(groups) == 1:
            _serve(find, name, groups[0], speaks, NO_TURNS)
        turn, ended = threading.Lock(), queue.SimpleQueue[BaseException]()

        def serve_one(keys: Keys, speaks: bool) -> None:
            try:
                _serve(find, name, keys, speaks, turn)
            except BaseException as error:
                ended.put(error)

        for number, keys in enumerate(groups):
            wanted = keys, speaks and number == 0
            threading.Thread(target=serve_one, args=wanted, name=keys.prefix, daemon=True).start()
        raise ended.get()


def _serve(
    find: Find, name: str, keys: Keys, speaks: bool, turn: AbstractContextManager[object]
) -> None:
    """Serve the heads of one group, when it is this group's turn."""
    waiting = _Waiting(speaks)
    while True:
        try:
            serve(WorkerClient(connect(find()), name, keys), lambda: True, turn)
        except PasswordError as error:
            raise HopelessError(str(error)) from error
        except (redis.RedisError, ServerError) as error:
            waiting.say(error)
            time.sleep(LOOK_SECONDS)
        else:
            waiting.over()


def _relay(find_above: Find, find_below: Find, name: str, keys: Keys, lasts: Any) -> None:
    """A relay between whichever servers are there."""
    waiting = _Waiting(True)
    while lasts():
        try:
            below, above = find_below(), find_above()
            for url in (below, above):
                connect(url).close()
            stay = _unless_moved({find_above: above, find_below: below}, lasts)
            Relay(client_of(above), client_of(below), name, keys).run(stay)
        except (PasswordError, redis.AuthenticationError) as error:
            raise HopelessError(str(error)) from error
        except ServerError as error:
            waiting.say(error)
            lasts(LOOK_SECONDS)
        else:
            waiting.over()


def _unless_moved(places: dict[Find, str], lasts: Lasts) -> Lasts:
    """As long as ``lasts``, and while the servers are where they were."""
    next_check = time.monotonic() + CHECK_SECONDS

    def stays() -> bool:
        nonlocal next_check
        if time.monotonic() < next_check:
            return lasts()
        next_check = time.monotonic() + CHECK_SECONDS
        return lasts() and all(_is_there(*place) for place in places.items())

    return stays


def _is_there(find: Find, url: str) -> bool:
    """False if ``find`` finds another one."""
    try:
        return find() == url
    except ServerError:
        return True


class _Waiting:
    """Says why it waits, and nothing again that it has just said."""

    def __init__(self, speaks: bool) -> None:
        self._speaks, self._said = speaks, ""

    def say(self, error: Exception) -> None:
        reason = str(error).partition("\n")[0]
        if self._speaks and reason != self._said:
            log.warning("waiting: %s", reason)
        self._said = reason

    def over(self) -> None:
        self._said = ""


if __name__ == "__main__":
    cli()
