"""Start scripts, run for real: machines are folders here, AWS's programs a few lines of bash."""

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
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from aws_moto import plan
from commands import HAS_PROC, ROOT, Place, run_here, setting, wait_until

from cluster.bundle import Bundle, make_bundle
from cluster.providers.aws_scripts import Start
from cluster.providers.aws_session import Mine

pytestmark = [
    pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no git checkout"),
    pytest.mark.skipif(not HAS_PROC, reason="no /proc"),
]
SPHERE = {"num_generations": 3, "noise_size": 50_000, "seed": 7, "final_episodes": 3}
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
"ssm get-parameter") echo 'a password' ;;
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
        self.env |= {
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


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    with Cloud() as cloud:
        yield cloud


@pytest.mark.slow
def test_a126_the_cluster_ends_when_the_run_has_ended(cloud: Cloud) -> None:
    """And the result is that of a run on one machine."""
    head = cloud.head(config=("sphere", *setting(**SPHERE)))
    worker = cloud.worker()
    wait_until(lambda: head.text("ended"), lambda: head.log + worker.log, 100)
    expected = run_here("sphere", evaluator="local", **SPHERE)
    stored = (cloud.bucket / "runs" / "ann" / "one" / "head.txt").read_text()
    assert expected.info["theta sha256"] in stored
    assert (cloud.bucket / "runs" / "ann" / "one" / "state.txt").read_text() == "done\n"
    assert (cloud.bucket / "runs" / "ann" / "one" / "runs" / "store.sqlite").exists()
    calls = head.text("calls")
    assert "delete-auto-scaling-group --auto-scaling-group-name evo-ann-one --force" in calls
    assert "delete-launch-template --launch-template-name evo-ann-one" in calls
    assert not list((cloud.bucket / "code").rglob("*.gz"))
    assert head.text("ended") == "-h now\n"
    assert (head.evo / "redis-password").stat().st_mode & 0o777 == 0o600
    assert "a password" not in head.log + worker.log + "".join(cloud.processes().values())
    assert "autoscaling" not in worker.text("calls") and worker.text("ended") == ""


@pytest.mark.slow
def test_a126_the_cluster_ends_when_its_time_is_over(cloud: Cloud) -> None:
    """The run has left a checkpoint; whoever has launched it may be gone."""
    endless = {**SPHERE, "num_generations": 10_000_000}
    head = cloud.head(config=("sphere", *setting(**endless)), lasts=20)  # so that it begins
    wait_until(lambda: head.text("ended"), lambda: head.log, 100)
    assert "the time is over" in head.log
    assert "ended with exit code" in head.text("state.txt")
    assert "delete-auto-scaling-group" in head.text("calls")


def test_a126_the_cluster_ends_when_the_run_cannot_begin(cloud: Cloud) -> None:
    (code,) = (cloud.bucket / "code").rglob("*.gz")
    code.write_bytes(b"something else")
    head = cloud.head(config=("sphere",))
    wait_until(lambda: head.text("ended"), lambda: head.log, 60)
    assert "failed before the run began" in head.log
    assert "delete-auto-scaling-group" in head.text("calls")


def test_a126_machines_that_are_to_stay_do(cloud: Cloud) -> None:
    (code,) = (cloud.bucket / "code").rglob("*.gz")
    code.write_bytes(b"something else")
    head = cloud.head(config=("sphere",), keep=True)
    wait_until(lambda: "stay until their time is over" in head.log, lambda: head.log, 60)
    assert "delete" not in head.text("calls") and head.text("ended") == ""


def test_workers_of_a_machine_that_is_taken_back_take_no_more_work(cloud: Cloud) -> None:
    command = (
        "sh -c 'trap \"echo told to end; exit\" TERM; echo at work; while :; do sleep 0.1; done'"
    )
    worker = cloud.worker(worker_command=command)
    wait_until(lambda: "at work" in worker.log, lambda: worker.log, 60)
    (worker.evo / "notice").write_text('{"action": "terminate"}\n')
    wait_until(lambda: "told to end" in worker.log, lambda: worker.log, 60)
    stored = cloud.bucket / "runs" / "ann" / "one" / "worker-i-1.txt"
    wait_until(stored.exists, lambda: worker.log, 60)
    assert "is taken back" in stored.read_text()
