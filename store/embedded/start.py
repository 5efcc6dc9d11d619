"""The store without a MongoDB: a server of our own over one file, started when it is needed."""

import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import IO

from store.embedded.note import Note, running_server

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 30.0
IDLE_SECONDS = 60.0


class EmbeddedError(RuntimeError):
    """A server that did not start; the message is one line."""


def embedded_url(file: Path, idle_seconds: float = IDLE_SECONDS) -> str:
    """The URL of the server of a store, which is started if none runs.

    All processes get the same one. It ends by itself, not with the process that started it.

    Args:
        idle_seconds: a server that is started here ends after so long without a connection.
    Raises:
        EmbeddedError: it did not come up, with its own words.
    """
    file = file.resolve()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EmbeddedError(f"no folder {file.parent}: {error.strerror}") from error
    deadline = time.monotonic() + START_SECONDS
    note = running_server(file)
    while note is None:
        if time.monotonic() > deadline:
            raise EmbeddedError(f"the server of {file} is silent for {START_SECONDS:.0f} s")
        note = _start(file, idle_seconds, deadline)
    return note.url


def _start(file: Path, idle_seconds: float, deadline: float) -> Note | None:
    """Start a server and wait for it, or for one that another process starts just now.

    Returns:
        None if it ended because another one was there, and that one has ended as well.
    """
    command = [sys.executable, "-m", "store.server", "run", "--file", str(file)]
    with tempfile.TemporaryFile() as words:
        process = subprocess.Popen(
            [*command, "--idle", str(idle_seconds)],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=words,
            start_new_session=True,  # Ctrl-C is for who started it
        )
        threading.Thread(target=process.wait, daemon=True).start()  # leave no zombie
        import pymongo  # noqa: F401  # takes as long as the server: whoever asks needs it next

        while time.monotonic() < deadline:
            ended = process.poll() is not None
            if note := running_server(file):
                return note
            if ended and process.returncode:
                raise EmbeddedError(f"the server of {file} did not start: {_last_line(words)}")
            if ended:
                return None
            time.sleep(0.01)
    return None


def _last_line(words: IO[bytes]) -> str:
    words.seek(0)
    lines = words.read().decode(errors="replace").strip().splitlines()
    return lines[-1].removeprefix("Error: ") if lines else "it said nothing"
