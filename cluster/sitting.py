"""What a job needs in one of its sittings, on whatever machines it has."""

import contextlib
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from cluster.jobs import ROOT, JobFolder


@contextlib.contextmanager
def secret_file(file: Path) -> Iterator[Path]:
    """A new password that only this user can read, while it is needed."""
    file.unlink(missing_ok=True)
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as opened:
        opened.write(secrets.token_hex(24))
    try:
        yield file
    finally:
        file.unlink(missing_ok=True)


def environment_of(job: JobFolder) -> dict[str, str]:
    """Of all that is started: nothing of a server or a store that other jobs use on this node."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("EVO_REDIS")}
    return {**kept, "EVO_RUNS": str(job.path / "runs")}


def end_store(env: dict[str, str]) -> None:
    """The job's embedded store, should it have one, ends with it and not a minute later."""
    subprocess.run(
        [sys.executable, "-m", "store.server", "stop"],
        env=env,
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        check=False,
    )


def free_port(host: str) -> int:
    """A port that nobody uses just now."""
    with socket.create_server((host, 0)) as free:
        return int(free.getsockname()[1])
