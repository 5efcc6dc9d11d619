"""The configuration of a server that we start: nothing on disk, nobody without a password."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

WORKER_USER = "worker"
# All that `WorkerClient` and `Relay` need of the head's server. What every server of the last years
# knows, written so that they all read it.
WORKER_COMMANDS = (
    *("ping", "get", "set", "del", "exists", "expire"),
    *("blpop", "lpop", "lpush", "rpush", "llen"),
    *("sismember", "smembers"),
)
WORKER_KEYS = "evo:*"


@dataclass(frozen=True)
class Listening:
    """Where a server can be reached beside its unix socket, and by whom."""

    host: str = "127.0.0.1"
    port: int = 0  # 0: nowhere
    certificate: Path | None = None  # with its key: the port speaks TLS, and nothing else
    key: Path | None = None
    worker_password: str | None = None  # of a user who may do no more than workers must


def config_text(folder: Path, socket: Path, password: str, listening: Listening) -> str:
    """The file that redis-server and valkey-server read.

    Args:
        folder: of the server's own.
        password: of the default user, who may do everything.
    """
    tls = listening.certificate is not None
    settings = {
        "port": 0 if tls else listening.port,
        "bind": listening.host,
        "unixsocket": _quoted(socket),
        "unixsocketperm": 700,
        "requirepass": password,
        "save": '""',
        "appendonly": "no",
        "dir": _quoted(folder),
        "daemonize": "no",
    }
    if tls:
        settings |= {
            "tls-port": listening.port,
            "tls-cert-file": _quoted(listening.certificate),
            "tls-key-file": _quoted(listening.key),
            "tls-auth-clients": "no",  # workers show a password
        }
    if listening.worker_password is not None:
        settings["user"] = _worker(listening.worker_password)
    return "".join(f"{name} {value}\n" for name, value in settings.items())


def _worker(password: str) -> str:
    """The access rules of the workers' user; the server is told no more than the hash."""
    hashed = hashlib.sha256(password.encode()).hexdigest()
    commands = " ".join(f"+{name}" for name in WORKER_COMMANDS)
    return f"{WORKER_USER} on #{hashed} ~{WORKER_KEYS} -@all {commands}"


def _quoted(path: Path | None) -> str:
    text = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'
