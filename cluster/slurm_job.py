"""What a SLURM job does on its first node: python cluster/slurm_job.py FOLDER

It holds redis and the head, and has every node, this one too, serve them with a relay and workers.
When the time is nearly over, the head leaves a checkpoint and the job goes back into the queue.
"""

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import click

from cluster.jobs import (
    DONE,
    ENV_VARIABLE,
    FAILED,
    INTERRUPTED,
    REQUEUED,
    ROOT,
    RUNNING,
    STOPPED,
    Head,
    JobError,
    JobFolder,
    last_words,
)
from cluster.redis_server import Server, ServerError, start_server
from cluster.server_config import Listening
from cluster.sitting import end_store, environment_of, secret_file
from utils.program import set_up_program

log = logging.getLogger("job")

LOOK_SECONDS = 0.1
END_SECONDS = 15.0  # that the nodes' workers have for their end
HEAD_END_SECONDS = 60.0  # that the head has for its checkpoint
AGAIN_SECONDS = 5.0  # between attempts to go on with a run whose head was killed …
AGAIN_AT_MOST = 120.0  # … which its store believes at work for some 40 s
AT_WORK = "is at work"
TEMPORARY_FAILURE = 75  # the exit code, EX_TEMPFAIL, of a run that may go on


class Told:
    """What this process was told by signals."""

    def __init__(self) -> None:
        self.time_is_over, self.to_end = False, False
        signal.signal(signal.SIGUSR1, self._note)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGUSR1:
            self.time_is_over = True
        else:
            self.to_end = True

    def __bool__(self) -> bool:
        return self.time_is_over or self.to_end


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
def cli(folder: Path) -> None:
    """Begin the run that FOLDER describes, or go on with it."""
    set_up_program()
    told, job = Told(), JobFolder(folder)
    try:
        if job.status == DONE:
            click.echo("the run is done")
            return
        job.note(RUNNING, job=os.environ.get("SLURM_JOB_ID"))
        code = run_job(job, told)
        status, code = verdict(job, told, code)
        job.note(status, exit=code)
        log.info("%s: %s", job.name, status)
        if status == REQUEUED:
            _requeue(job)
    except (JobError, ServerError, OSError, subprocess.SubprocessError) as error:
        reason = " ".join(str(error).split())
        job.note(FAILED, reason=reason)
        raise click.ClickException(reason) from error
    sys.exit(code)


def run_job(job: JobFolder, told: Told) -> int:
    """One sitting; returns the head's exit code."""
    hosts = _lines("scontrol", "show", "hostnames", os.environ["SLURM_JOB_NODELIST"])
    address = own_address(hosts)
    with contextlib.ExitStack() as opened:
        password = opened.enter_context(secret_file(job.path / "password"))
        server = opened.enter_context(_server(address, password.read_text()))
        env = environment_of(job)
        opened.callback(end_store, env)
        log.info("head on %s (%s), workers on %s", hosts[0], address[0], ", ".join(hosts))
        crew = Crew(address, job.read()["cpus_per_node"], password, env)
        nodes: list[subprocess.Popen[bytes]] = []
        opened.callback(_end_all, nodes)
        for number, host in enumerate(hosts):
            nodes.append(crew.start(host, job.path / f"node_{number}.txt"))
        return _watch(job, nodes, {**env, "EVO_REDIS": server.url}, told)


def _watch(
    job: JobFolder, nodes: list["subprocess.Popen[bytes]"], env: dict[str, str], told: Told
) -> int:
    """Until the head has ended, or is told to."""
    where, started = _where(job), time.monotonic()
    head = Head(job, where, env)
    try:
        while not told:
            time.sleep(LOOK_SECONDS)
            if head.code is not None:
                patient = time.monotonic() - started < AGAIN_AT_MOST
                if not (head.code and patient and AT_WORK in last_words(head.said())):
                    return head.code
                time.sleep(AGAIN_SECONDS)
                head = Head(job, where, env)
            elif all(node.poll() is not None for node in nodes):
                raise JobError("no node is left that works: the node_*.txt files say why")
        return head.end(HEAD_END_SECONDS)
    finally:
        head.end(HEAD_END_SECONDS)


def _where(job: JobFolder) -> list[str]:
    """Config words of this sitting."""
    gym = os.environ.get(ENV_VARIABLE)
    begins = job.run_id() is None
    return ["local=False", *([f"env_name={gym}"] if gym and begins else [])]


def verdict(job: JobFolder, told: Told, code: int) -> tuple[str, int]:
    """How the job is after a sitting, and the exit code for it."""
    if code == 0:
        return DONE, 0
    if told.to_end:
        return INTERRUPTED, 128 + signal.SIGTERM
    if not told.time_is_over:
        job.note(RUNNING, reason=last_words(job.said()))
        return FAILED, code
    if int(os.environ.get("SLURM_RESTART_COUNT") or 0) + 1 >= job.read()["sittings"]:
        log.warning("this was the last of its sittings; sbatch job.sbatch goes on")
        return STOPPED, TEMPORARY_FAILURE
    return REQUEUED, 0


def _requeue(job: JobFolder) -> None:
    number = os.environ["SLURM_JOB_ID"]
    done = subprocess.run(
        ["scontrol", "requeue", number], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise JobError(f"not requeued: {done.stderr or done.stdout}; sbatch job.sbatch goes on")


# --- what a sitting needs


def own_address(hosts: list[str]) -> tuple[str, int]:
    """An address of this node at which the others reach it, and a port that is free there."""
    here = "127.0.0.1"
    if len(hosts) > 1:
        # Its own name may stand for a loopback here; the way to another node does not.
        (line,) = _lines("scontrol", "show", "node", "-o", hosts[1])
        fields = dict(word.partition("=")[::2] for word in line.split())
        family, _, _, _, other = socket.getaddrinfo(fields["NodeAddr"], 9, type=socket.SOCK_DGRAM)[
            0
        ]
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(other)
            here = probe.getsockname()[0]
    family = socket.AF_INET6 if ":" in here else socket.AF_INET
    with socket.create_server((here, 0), family=family) as free:
        return here, free.getsockname()[1]


def _server(address: tuple[str, int], password: str) -> Server:
    host, port = address
    return start_server(Listening(host, port, worker_password=password))


@dataclass(frozen=True)
class Crew:
    """A relay and workers, the same on every node."""

    master: tuple[str, int]  # host and port of the head's server
    workers: int
    password: Path
    env: dict[str, str]

    def start(self, host: str, said: Path) -> "subprocess.Popen[bytes]":
        """Have a node work; the loss of another one is not its concern."""
        with said.open("ab") as log_file:
            return subprocess.Popen(
                self._command(host),
                env={**self.env, "EVO_REDIS_PASSWORD_FILE": str(self.password)},
                stdin=subprocess.DEVNULL,
                stdout=log_file,
                stderr=log_file,
            )

    def _command(self, host: str) -> list[str]:
        step = ["srun", "--nodes=1", "--ntasks=1", f"--cpus-per-task={self.workers}", "--overlap"]
        program = [sys.executable, str(ROOT / "cluster" / "slurm_node.py")]
        host_and_port = [self.master[0], str(self.master[1])]
        return [*step, f"--nodelist={host}", *program, *host_and_port, str(self.workers)]


def _end_all(processes: list["subprocess.Popen[bytes]"]) -> None:
    """Tell the workers to end; srun itself, told so, would kill them."""
    number = os.environ["SLURM_JOB_ID"]
    subprocess.run(["scancel", "--quiet", "--signal=TERM", number], check=False)
    deadline = time.monotonic() + END_SECONDS
    for each in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            each.wait(max(deadline - time.monotonic(), 0.1))
    for each in processes:
        each.kill()
        each.wait()


def _lines(*command: str) -> list[str]:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode or not done.stdout.strip():
        raise JobError(f"{' '.join(command)}: {done.stderr or 'said nothing'}")
    return done.stdout.split("\n")[:-1]


if __name__ == "__main__":
    cli()
