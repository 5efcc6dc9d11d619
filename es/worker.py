"""Workers: python es/worker.py start-workers --num_workers=7"""

import importlib.util
import logging
import multiprocessing
import os
import select
import signal
import socket
import sys
import threading
import time
from dataclasses import dataclass
from multiprocessing.context import ForkProcess
from types import FrameType

import click
import redis
from threadpoolctl import threadpool_limits

from cluster.clients import WorkerClient
from cluster.keys import Keys
from cluster.redis_server import ServerError, connect, find_url, without_password
from evolution.worker import serve
from utils.program import set_up_program

log = logging.getLogger("worker")

LOOK_SECONDS = 0.5
RESTART_SECONDS = 1.0  # pause before a dead worker is started anew
SHORT_LIFE_SECONDS = 5.0
SHORT_LIVES = 5  # so many short lives in a row, and the cause is not an accident


@click.group()
def cli() -> None:
    """Processes that evaluate candidates for a head."""


@cli.command()
@click.option("--num_workers", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--redis", "url", help="URL of the server; default: EVO_REDIS, else run-server's.")
@click.option("--preload", default="envpool", hidden=True, help="Imported once, before forking.")
@click.option("--until_stdin_ends", is_flag=True, hidden=True, help="End when the parent does.")
def start_workers(num_workers: int, url: str | None, preload: str, until_stdin_ends: bool) -> None:
    """Start workers that talk to the head's server directly; they wait for it if need be."""
    set_up_program()
    if preload and importlib.util.find_spec(preload):
        importlib.import_module(preload)  # once here rather than once in every worker
    end = threading.Event()

    def stop(signal_number: int, frame: FrameType | None) -> None:
        end.set()

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    crew = [Member(i, url) for i in range(num_workers)]
    try:
        while not end.is_set():
            for member in crew:
                member.look_after()
            if until_stdin_ends and _stdin_has_ended():
                break
            end.wait(0 if until_stdin_ends else LOOK_SECONDS)
    finally:
        for member in crew:
            member.stop()
        for member in crew:
            member.join()


def _stdin_has_ended() -> bool:
    """Wait a moment for the end of standard input: whoever holds its other end has died."""
    readable, _, _ = select.select([sys.stdin], [], [], LOOK_SECONDS)
    return bool(readable) and not os.read(sys.stdin.fileno(), 1)


@dataclass
class Member:
    """One worker process, started again should it die."""

    number: int
    url: str | None
    process: ForkProcess | None = None
    started: float = 0.0
    short_lives: int = 0

    def look_after(self) -> None:
        """Start the process if it is not running; SystemExit if it never lives for long."""
        if self.process and self.process.is_alive():
            return
        if self.process:
            log.error("worker %d died (exit code %s)", self.number, self.process.exitcode)
            lived = time.monotonic() - self.started
            self.short_lives = self.short_lives + 1 if lived < SHORT_LIFE_SECONDS else 0
            if self.short_lives >= SHORT_LIVES:
                raise SystemExit(
                    f"worker {self.number} died {SHORT_LIVES} times at once: giving up"
                )
            time.sleep(RESTART_SECONDS)
        fork = multiprocessing.get_context("fork")
        self.process = fork.Process(target=_work, args=(self.number, self.url, os.getpid()))
        self.process.start()
        self.started = time.monotonic()

    def stop(self) -> None:
        if self.process:
            self.process.terminate()

    def join(self) -> None:
        """Wait for the end, which is made sure of."""
        if self.process:
            self.process.join(timeout=3)
            if self.process.is_alive():
                self.process.kill()
                self.process.join()


def _work(number: int, configured_url: str | None, parent: int) -> None:
    """A worker process: serve whichever server is there, for as long as the parent lives."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, who tells us
    signal.signal(signal.SIGTERM, _exit)
    if not sys.stdin.closed:
        sys.stdin.close()
    name = f"{socket.gethostname()}-{os.getpid()}"
    complained = False

    def goes_on() -> bool:
        return os.getppid() == parent

    with threadpool_limits(1):
        while goes_on():
            url = find_url(configured_url)
            try:
                if url is None:
                    raise ServerError("no server: start one with 'python es/head.py run-server'")
                serve(WorkerClient(connect(url), name, Keys()), goes_on)
            except (redis.RedisError, ServerError) as error:
                if not complained and number == 0:
                    log.warning("waiting: %s", _first_line(error, url))
                complained = True
                time.sleep(LOOK_SECONDS)
            else:
                complained = False


def _exit(signal_number: int, frame: FrameType | None) -> None:
    sys.exit(0)


def _first_line(error: Exception, url: str | None) -> str:
    text = str(error).splitlines()[0]
    return text.replace(url, without_password(url)) if url else text


if __name__ == "__main__":
    cli()
