"""The head's server: python es/head.py run-server, flush or status"""

import os
import signal
import sys
import threading
import time
from types import FrameType

import click
import redis

from cluster.keys import Keys, head_status, workers_alive
from cluster.keys import flush as delete_keys
from cluster.redis_server import (
    ServerError,
    announce,
    connect,
    find_url,
    running_server,
    start_server,
    withdraw,
    without_password,
)
from utils.program import set_up_program

STOP_SECONDS = 10


@click.group()
def cli() -> None:
    """The server between a head and its workers, on this machine."""
    set_up_program()


@cli.command()
@click.option("--stop/--not-stop", default=False, help="First end the one that runs.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Also listen on TCP.")
def run_server(stop: bool, port: int) -> None:
    """Start a server of this user's own and stay until Ctrl-C; head and workers find it."""
    running = running_server()
    if running and not stop:
        raise click.ClickException(
            f"a server runs already (process {running['pid']}): use it, or add --stop"
        )
    if running:
        _stop(running["pid"])
    end = threading.Event()

    def leave(signal_number: int, frame: FrameType | None) -> None:
        end.set()

    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGINT, leave)
    try:
        server = start_server(port=port)
    except ServerError as error:
        raise click.ClickException(str(error)) from error
    with server:
        announce(server.url)
        click.echo(f"server ready at {without_password(server.url)}; end it with Ctrl-C")
        sys.stdout.flush()
        try:
            while not end.wait(1.0):
                if server.ended:
                    raise click.ClickException("the server has ended by itself")
        finally:
            withdraw()


def _stop(pid: int) -> None:
    """End our earlier run-server, and no other process."""
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    while running_server() is not None:
        if time.monotonic() > deadline:
            raise click.ClickException(f"the server of process {pid} does not end")
        time.sleep(0.05)


@cli.command()
@click.option("--redis", "url", help="URL of the server; default: EVO_REDIS, else run-server's.")
def flush(url: str | None) -> None:
    """Delete the suite's keys, and no others: workers fall into waiting."""
    deleted = delete_keys(_connected(url), Keys())
    click.echo(f"deleted {len(deleted)} keys" + "".join(f"\n  {name}" for name in deleted))


@cli.command()
@click.option("--redis", "url", help="URL of the server; default: EVO_REDIS, else run-server's.")
def status(url: str | None) -> None:
    """Show the run, its generation, the workers alive and the rate."""
    server = _connected(url)
    head = head_status(server, Keys())
    workers = workers_alive(server, Keys())
    if head is None:
        click.echo("no head at work")
    else:
        click.echo(f"run {head['run']} (process {head['pid']} on {head['host']})")
        click.echo(f"generation {head['generation']}, {head['rate']:,.0f} steps/s")
    busy = sum(head is not None and worker["doing"] == head["run"] for worker in workers)
    click.echo(f"{len(workers)} workers alive, {busy} of them in the run")


def _connected(url: str | None) -> redis.Redis:
    found = find_url(url)
    if found is None:
        raise click.ClickException("no server: start one with 'python es/head.py run-server'")
    try:
        return connect(found)
    except ServerError as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    cli()
