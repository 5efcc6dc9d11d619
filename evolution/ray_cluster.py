"""The Ray cluster of a run: one that is there, or a private one of this machine's cores.

Ray is imported by `evolution.ray_evaluator` alone, and only when a run asks for it.
"""

import contextlib
import functools
import importlib.util
import logging
import os
import re
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cluster.redis_server import ServerError

log = logging.getLogger(__name__)

INSTALL = "pip install -r requirements-ray.txt"
START_SECONDS = 90.0  # that a private Ray has to come up, on a busy machine, …
START_ATTEMPTS = 2  # … on which it gives up earlier itself: its parts wait 15 s for each other
ANSWER_SECONDS = 5.0  # that a cluster has to accept a connection
JOIN_SECONDS = 60.0  # that it has to let us in
PATH_LIMIT = 40  # bytes; Ray's sockets lie 66 below, and the path of a socket has 107
ADDRESS = re.compile(r"(?:ray://)?(\[[0-9a-fA-F:]+\]|[\w.-]+):(\d{1,5})")
TOKEN_BYTES = 32
INSIDE = "r"  # Ray opens its folder to everybody, so that it gets one inside a private one

# Whatever Ray's own variables say elsewhere: a private Ray is reached from this machine alone, by
# those who know its token, and reports to nobody.
PRIVATE = {
    "RAY_AUTH_MODE": "token",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # Ray's way to say: listen on 127.0.0.1
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # else it warns of GPUs that nobody asked for
}
QUIET = ("RAY_USAGE_STATS_ENABLED", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO")
TOKENS = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
# Ray's own command, to which its client's server is not there: it would take port 10001.
COMMAND = "import sys; sys.modules['grpc'] = None; from ray.scripts.scripts import main; main()"
START = (
    *("start", "--head", "--block", "--port=0", "--include-dashboard=false"),
    *("--disable-usage-stats", "--include-log-monitor=false", "--no-monitor"),
)

# Waits until its own standard input ends, which happens however the owner dies; then ends Ray,
# whose processes are in one group or end with those that are, and removes what Ray had.
GUARDIAN = """
trap '' INT HUP TERM
exec 2>/dev/null
read -r ray
while read -r _; do :; done
[ -z "$ray" ] || kill -KILL -$ray
while rm -rf -- "$1"; [ -e "$1" ]; do sleep 0.05; done
"""

# Asks for admission in a process of its own: whatever Ray does if it is refused, and however long.
KNOCK = """
import logging, sys
logging.disable(logging.CRITICAL)
from cluster.redis_server import ServerError
from evolution.ray_evaluator import connect, disconnect
try:
    connect(sys.argv[1])
    disconnect()
except ServerError as error:
    sys.exit(f"REFUSED {error}")
"""


def check_ray(address: Any, audit: float = 0.0) -> None:
    """Refuse a Ray that could not be used, before anything is started.

    Args:
        address: of a cluster; None: a private one is to be started.
        audit: the share of the work that two workers were to do; Ray's nodes are believed.
    Raises:
        ValueError: Ray is not installed, the address is none, or an audit was asked for.
        ServerError: nobody answers there, or the cluster does not let us in.
    """
    if address is not None and not isinstance(address, str):
        raise ValueError(f"ray_address={address!r}: must be an address, such as auto or host:6379")
    if audit:
        raise ValueError(f"audit={audit}: needs evaluator=redis")
    if importlib.util.find_spec("ray") is None:
        raise ValueError(f"evaluator=ray needs Ray, which is not installed: {INSTALL}")
    if address is None:
        return
    if address != "auto":
        found = ADDRESS.fullmatch(address)
        if found is None:
            raise ValueError(f"ray_address={address!r}: must be auto, host:port or ray://host:port")
        _check_answers(address, found[1].strip("[]"), int(found[2]))
    _knock(address)


def _check_answers(address: str, host: str, port: int) -> None:
    """Refuse an address at which nobody listens: Ray itself would wait for long."""
    try:
        socket.create_connection((host, port), ANSWER_SECONDS).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ServerError(f"no Ray cluster answers at {address}: {reason}") from error


def _knock(address: str) -> None:
    command = [sys.executable, "-c", KNOCK, address]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=JOIN_SECONDS,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ServerError(
            f"the Ray cluster at {address} has not let us in within {JOIN_SECONDS:.0f} s"
        ) from None
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        told = [line.removeprefix("REFUSED ") for line in said if line.startswith("REFUSED ")]
        raise ServerError((told or said[-1:] or [f"no Ray cluster at {address}"])[0])


@contextlib.contextmanager
def open_cluster(address: str | None, cpus: int) -> Iterator[None]:
    """Make this process a driver of a cluster; of a private one if there is no address.

    A cluster that was there goes on without us; a private one ends with this process. Who is a
    driver already, as in a notebook, stays it.

    Args:
        cpus: of a private one.
    Raises:
        ServerError: it is not there, or did not start.
    """
    known = sys.modules.get("ray")
    if known is not None and known.is_initialized():
        yield
        return
    with contextlib.ExitStack() as opening:
        if address is None:
            address = opening.enter_context(_private(cpus))
        for name in QUIET:
            os.environ.setdefault(name, PRIVATE[name])
        from evolution.ray_evaluator import connect, disconnect  # takes a second

        connect(address)
        opening.callback(disconnect)
        yield


@contextlib.contextmanager
def _private(cpus: int) -> Iterator[str]:
    """Start a Ray of our own; gives its address."""
    for attempt in range(1, START_ATTEMPTS + 1):
        with contextlib.ExitStack() as opening:
            try:
                address = opening.enter_context(_node(cpus))
            except ServerError as error:
                if attempt == START_ATTEMPTS:
                    raise
                log.warning("%s; trying again", error)
                continue
            yield address
            return


@contextlib.contextmanager
def _node(cpus: int) -> Iterator[str]:
    """Ray's processes, and the address at which they are."""
    folder = _folder()
    guardian = subprocess.Popen(
        ["/bin/sh", "-c", GUARDIAN, "sh", str(folder)],
        stdin=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for the head, which then ends its Ray
    )
    assert guardian.stdin is not None
    with _environment():
        ray = _start(folder, cpus)
        guardian.stdin.write(f"{ray.pid}\n".encode())
        guardian.stdin.flush()
        try:
            yield _address(folder, ray)
        finally:
            guardian.stdin.close()
            ray.wait()
            guardian.wait()


def _start(folder: Path, cpus: int) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-c", COMMAND, *START]
    command += [f"--num-cpus={cpus}", f"--temp-dir={folder / INSIDE}"]
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            umask=0o077,
        )


@contextlib.contextmanager
def _environment() -> Iterator[None]:
    """Ray's variables for a private cluster, in this process and those that it starts."""
    wanted = PRIVATE if any(map(os.environ.get, TOKENS)) else {**PRIVATE, TOKENS[0]: _token()}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


@functools.cache
def _token() -> str:
    """That of all private clusters of this process: Ray reads a token once."""
    return secrets.token_hex(TOKEN_BYTES)


def _folder() -> Path:
    """A private folder with a path that is short enough for sockets in it."""
    folder = Path(tempfile.mkdtemp(prefix="evo-ray-"))
    if len(bytes(folder)) > PATH_LIMIT:
        short = Path(tempfile.mkdtemp(prefix="evo-ray-", dir="/tmp"))
        folder.rmdir()
        folder = short
    return folder


def _address(folder: Path, ray: "subprocess.Popen[bytes]") -> str:
    """Wait until Ray has said where it is."""
    deadline, note = time.monotonic() + START_SECONDS, folder / INSIDE / "ray_current_cluster"
    while True:
        with contextlib.suppress(FileNotFoundError):
            if address := note.read_text().strip():
                return address
        if ray.poll() is not None or time.monotonic() > deadline:
            said = (folder / "log").read_text(errors="replace").splitlines()
            words = " ".join(" ".join(said[-3:]).split()) or f"silent for {START_SECONDS:.0f} s"
            raise ServerError(f"Ray did not start: {words}")
        time.sleep(0.05)
