"""Machines that are folders here and run start scripts, with a few lines of bash for AWS."""

import contextlib
import functools
import hashlib
import io
import os
import signal
import socket
import subprocess
import sys
import tarfile
import time
from dataclasses import replace
from typing import Any

from aws_moto import plan
from commands import ROOT, Place, wait_until

from cluster.bundle import Bundle, make_bundle
from cluster.providers.aws.scripts import Start
from cluster.providers.aws.session import Mine

PROGRAMS = {
    "aws": """\
#!/bin/bash
printf '%s\\n' "$*" >>"$CALLS"
case "$1 $2" in
"s3 cp")
    shift 2
    [ "$1" != --recursive ] || shift
    to=${2/#s3:/$BUCKETS}
    mkdir -p "$(dirname "$to")"
    cp -r "${1/#s3:/$BUCKETS}" "$to"
    ;;
"s3 rm") rm "${3/#s3:/$BUCKETS}" ;;
"ssm get-parameter") cat "$SECRETS/${4##*/}" ;;
"secretsmanager get-secret-value") cat "$SECRETS/redis-password" ;;
"logs put-log-events")
    events=${*: -3:1}
    cat "${events#file://}" >>"$CALLS"
    ;;
esac
""",
    "curl": """\
#!/bin/bash
case "${*: -1}" in
*/api/token) echo token ;;
*/local-ipv4) echo 127.0.0.1 ;;
*/instance-id) echo i-1 ;;
*/instance-action) cat "$NOTICE" 2>/dev/null ;;
*) exit 22 ;;
esac
""",
    "shutdown": '#!/bin/sh\necho "$*" >"$ENDED"\n',
}


class Machine:
    """A machine whose /opt/evo is a folder."""

    def __init__(self, place: "Cloud", name: str, script: str) -> None:
        self.evo = place.folder / name
        (self.evo / "venv" / "bin").mkdir(parents=True)
        python = self.evo / "venv" / "bin" / "python"
        python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        python.chmod(0o700)
        (self.evo / "installed").write_text(place.requirements)
        for plain, here in {
            "/opt/evo": str(self.evo),
            "HOME=/root": f"HOME={self.evo}",
            "/run/systemd/system": str(self.evo / "none"),
            "PORT=6379": f"PORT={place.port}",
        }.items():
            script = script.replace(plain, here)
        (self.evo / "part-001").write_text(script)
        (self.evo / "part-001").chmod(0o700)
        names = {"CALLS": "calls", "ENDED": "ended", "NOTICE": "notice"}
        env = place.env | {name: str(self.evo / file) for name, file in names.items()}
        subprocess.run([str(self.evo / "part-001")], env=env, check=True)

    def text(self, name: str) -> str:
        """What is in a file of it so far."""
        file = self.evo / name
        return file.read_text() if file.exists() else ""

    @property
    def log(self) -> str:
        return self.text("log.txt")


@functools.cache
def code_of_ours() -> Bundle:
    return make_bundle(ROOT, committed_only=True)


class Cloud(Place):
    """Where machines are booted, with a bucket that has the code."""

    def __init__(self) -> None:
        super().__init__()
        programs, self.bucket = self.folder / "bin", self.folder / "buckets" / "bucket"
        programs.mkdir()
        for name, text in PROGRAMS.items():
            (programs / name).write_text(text)
            (programs / name).chmod(0o700)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        code = code_of_ours()
        mine = Mine("ann", "eu-west-1")
        names = mine.cluster("one")
        key = f"{names.code}x.tar.gz"
        deadline = int(time.time()) + 3600
        self.start_of = Start(
            names, "eu-west-1", "bucket", key, code.sha256, mine.password, "", deadline
        )
        (self.bucket / key).parent.mkdir(parents=True)
        (self.bucket / key).write_bytes(code.data)
        with tarfile.open(fileobj=io.BytesIO(code.data)) as packed:
            found = packed.extractfile("requirements.txt")
            assert found
            self.requirements = hashlib.sha256(found.read()).hexdigest()
        self.secrets = self.folder / "secrets"
        self.secrets.mkdir()
        (self.secrets / "redis-password").write_text("a password\n")
        self.env |= {
            "SECRETS": str(self.secrets),
            "PATH": f"{programs}:{os.environ['PATH']}",
            "BUCKETS": str(self.bucket.parent) + "/",
        }

    def __exit__(self, *stopped: object) -> None:
        """Machines have processes that would stay for hours: switch all of them off."""
        wait_until(self._is_off, "the end of all machines")
        super().__exit__(*stopped)

    def _is_off(self) -> bool:
        there = self.processes()
        for pid in there:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not there

    def head(self, *, config: tuple[str, ...], lasts: int = 3600, **more: Any) -> Machine:
        """Boot a head whose time is over after so many seconds."""
        start = replace(self.start_of, deadline=int(time.time()) + lasts)
        return Machine(self, "head", start.head(plan("one", config=config, **more)))

    def worker(self, **more: Any) -> Machine:
        return Machine(self, "worker", self.start_of.worker(plan("one", **more), "127.0.0.1"))
