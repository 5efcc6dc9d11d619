"""Shows all runs in a browser: python store/board.py"""

import contextlib
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from types import FrameType
from urllib.error import URLError

import click
from pymongo.database import Database

from store.location import StoreError, find_store, runs_folder, store_url
from utils.program import set_up_program

log = logging.getLogger("board")

RECIPE = Path(__file__).resolve().parent.parent / "sacred" / "omniboard"
COLUMNS = {"fitness": "current fitness", "generation": "gen", "steps/s": "steps/s"}
INSTALLED = "installed"  # in the folder of an installation: which recipe it was
OLDEST_NODE = 14
START_SECONDS = 60.0
SHORT_LIFE_SECONDS, SHORT_LIVES = 10.0, 5  # so many short lives in a row are no accident


class BoardError(click.ClickException):
    """No board; the user sees one line."""


@click.command()
@click.option("--port", default=9000, show_default=True, type=click.IntRange(1, 65535))
@click.option("--install", "only_install", is_flag=True, help="Install Omniboard and end.")
def cli(port: int, only_install: bool) -> None:
    """Install Omniboard, the first time, and run it on this machine's store until Ctrl-C."""
    set_up_program()
    node = find_node()
    if not only_install:
        check_port(port)  # before a long installation, and again after it
    folder = install(runs_folder() / "board")
    if only_install:
        return
    check_port(port)
    try:
        url = store_url()
        show_columns(find_store())
    except StoreError as error:
        raise BoardError(str(error)) from error
    with Board(node, folder, url, port) as board:
        board.wait_until_up()
        click.echo(f"all runs at http://127.0.0.1:{port}/sacred (Ctrl-C ends)")
        board.look_after()


def find_node() -> str:
    """The path of Node.js."""
    node = shutil.which("node")
    if node is None or shutil.which("npm") is None:
        raise BoardError(f"the board needs Node.js {OLDEST_NODE} or newer with npm: install them")
    version = subprocess.run(
        [node, "--version"], capture_output=True, text=True, check=False
    ).stdout
    match = re.match(r"v(\d+)", version)
    if match is None or int(match[1]) < OLDEST_NODE:
        raise BoardError(f"Node.js is {version.strip()}: the board needs {OLDEST_NODE} or newer")
    return node


def install(folder: Path) -> Path:
    """Install the pinned packages, once.

    Args:
        folder: where to.
    Returns:
        The folder.
    """
    lock = (RECIPE / "package-lock.json").read_text()
    marker = folder / INSTALLED
    if marker.exists() and marker.read_text() == lock:
        return folder
    click.echo("installing Omniboard: 530 MB, a minute or two, only this time …")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BoardError(f"no folder {folder}: {error.strerror}") from error
    for name in ("package.json", "package-lock.json"):
        shutil.copyfile(RECIPE / name, folder / name)
    command = ["npm", "ci", "--no-audit", "--no-fund", "--loglevel=error", "--ignore-scripts"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = (done.stderr or done.stdout).strip().splitlines()
        raise BoardError(f"npm could not install Omniboard: {reason[0] if reason else 'no reason'}")
    marker.write_text(lock)
    return folder


def show_columns(store: Database) -> None:
    """Add our metrics to the table of runs, unless the user has chosen some."""
    columns = store["omniboard.metric.columns"]
    if columns.count_documents({}, limit=1) == 0:
        columns.insert_many(
            [{"name": n, "metric_name": metric, "extrema": "last"} for n, metric in COLUMNS.items()]
        )


def check_port(port: int) -> None:
    """Refuse a port that is in use; Omniboard would quietly take the next one."""
    with contextlib.closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise BoardError(f"port {port}: {error.strerror}; choose another by --port") from error


class Board:
    """A running Omniboard; it ends with this process, however that ends."""

    def __init__(self, node: str, folder: Path, url: str, port: int) -> None:
        self._command = [
            node,
            "--require",
            str(RECIPE / "loopback.cjs"),
            str(folder / "node_modules" / "omniboard" / "dist" / "index.js"),
        ]
        self._env = {**os.environ, "NODE_ENV": "production", "PORT": str(port), "MONGO_URI": url}
        self._address = f"http://127.0.0.1:{port}/sacred"
        self._process: subprocess.Popen[bytes] | None = None
        self._lives: list[float] = []

    def __enter__(self) -> "Board":
        def end(number: int, frame: FrameType | None) -> None:
            raise KeyboardInterrupt

        signal.signal(signal.SIGTERM, end)
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        process = self._process
        if process is not None:
            assert process.stdin is not None
            process.stdin.close()
            process.terminate()
            process.wait()

    def wait_until_up(self) -> None:
        """Return when a browser would see something."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(URLError, ConnectionError, TimeoutError):
                urllib.request.urlopen(self._address, timeout=5).close()
                return
            self._restart_if_ended()
            time.sleep(0.1)
        raise BoardError(f"Omniboard does not answer at {self._address}")

    def look_after(self) -> None:
        """Start it again whenever it ends (a request for a file that is gone kills it)."""
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                assert self._process is not None
                self._process.wait()
                self._restart_if_ended()

    def _start(self) -> None:
        self._process = subprocess.Popen(
            self._command,
            env=self._env,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for us
        )
        self._lives.append(time.monotonic())

    def _restart_if_ended(self) -> None:
        assert self._process is not None
        if self._process.poll() is None:
            return
        recent = self._lives[-SHORT_LIVES:]
        if len(recent) == SHORT_LIVES and time.monotonic() - recent[0] < (
            SHORT_LIVES * SHORT_LIFE_SECONDS
        ):
            raise BoardError(f"Omniboard has ended {SHORT_LIVES} times: is the store there?")
        log.warning(
            "Omniboard has ended (exit code %s): starting it again", self._process.returncode
        )
        self._start()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        cli()
    sys.exit(0)
