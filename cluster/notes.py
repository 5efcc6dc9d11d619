"""Where this user's servers are: each writes a note that only its user can read."""

import contextlib
import hashlib
import json
import os
import stat
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

SERVER = "server"  # the head's, by run-server


class NoteError(RuntimeError):
    """A note that could not be written where nobody else can write."""


def mirror(socket: Path | None = None) -> str:
    """The name of the note about a machine's own server.

    Args:
        socket: where it was told to listen; None: it chose by itself.
    """
    if socket is None:
        return "mirror"
    return "mirror-" + hashlib.sha256(bytes(socket.resolve())).hexdigest()[:12]


def announce(url: str, name: str = SERVER) -> Path:
    """Write down where the running server is, readable by this user only.

    Raises:
        NoteError: there is no folder that is safe for it.
    """
    note = _private_folder() / f"{name}.json"
    temporary = note.with_suffix(f".{os.getpid()}")
    temporary.touch(0o600)
    temporary.write_text(json.dumps({"url": url, "pid": os.getpid()}))
    temporary.replace(note)
    return note


def withdraw(name: str = SERVER) -> None:
    """Remove what ``announce`` of this process wrote."""
    if (noted := _noted(name)) and noted["pid"] == os.getpid():
        with contextlib.suppress(OSError):
            (_folder() / f"{name}.json").unlink()
            _folder().rmdir()


def running_server(name: str = SERVER) -> dict[str, Any] | None:
    """The url and pid of this user's server; None if there is none, or it has died."""
    noted = _noted(name)
    try:
        if noted is not None:
            os.kill(noted["pid"], 0)
            os.stat(urlsplit(noted["url"]).path)  # the pid of a dead one may be another's by now
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    return noted


def _noted(name: str) -> dict[str, Any] | None:
    """What the last ``announce`` wrote, if it is still there."""
    with contextlib.suppress(FileNotFoundError, ValueError):
        if _is_private(_folder().lstat()):
            noted = json.loads((_folder() / f"{name}.json").read_text())
            if isinstance(noted, dict) and type(noted.get("pid")) is int:
                return noted if isinstance(noted.get("url"), str) else None
    return None


def _folder() -> Path:
    base = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
    return Path(base) / f"evo-{os.getuid()}"


def _private_folder() -> Path:
    """Make the folder of this user's notes, the same for all our processes of the machine."""
    with contextlib.suppress(FileExistsError):
        _folder().mkdir(mode=0o700)
    if not _is_private(_folder().lstat()):
        raise NoteError(f"{_folder()} must be a folder of yours that nobody else can enter")
    return _folder()


def _is_private(status: os.stat_result) -> bool:
    ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid()
    return ours and not status.st_mode & 0o077
