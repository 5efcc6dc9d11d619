"""What a job on this machine does: python cluster/local_job.py FOLDER

It holds redis and the head, and as many machines as job.json says, now and later: each is a process
group with a relay and workers of its own, as if it were another computer.
"""

import contextlib
import fcntl
import logging
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import click

from cluster.addresses import PASSWORD_FILE_VARIABLE, URL_VARIABLE
from cluster.jobs import (
    DONE,
    FAILED,
    INTERRUPTED,
    ROOT,
    RUNNING,
    STOPPED,
    Head,
    JobError,
    JobFolder,
    last_words,
)
from cluster.redis_server import ServerError, start_server
from cluster.server_config import Listening
from cluster.sitting import end_store, environment_of, free_port, secret_file
from utils.program import set_up_program, until_told_to_end

log = logging.getLogger("job")

HOST = "127.0.0.1"
LOOK_SECONDS = 0.1
END_SECONDS = 15.0  # that a machine has for its end
HEAD_END_SECONDS = 60.0  # that the head has for its checkpoint


@dataclass
class Machines:
    """As many as are wanted, the oldest first."""

    job: JobFolder
    command: list[str]
    env: dict[str, str]
    there: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    def be(self, number: int) -> None:
        """Start those that are missing, again if they have ended; end those that are too many."""
        self.there = [each for each in self.there if each.poll() is None]
        while len(self.there) < number:
            said = self.job.path / f"node_{len(self.there)}.txt"
            with said.open("ab") as log_file:
                self.there.append(
                    subprocess.Popen(
                        self.command,
                        env=self.env,
                        stdin=subprocess.PIPE,  # whose end tells it of ours
                        stdout=log_file,
                        stderr=log_file,
                        start_new_session=True,
                    )
                )
        over, self.there = self.there[number:], self.there[:number]
        for each in over:
            each.terminate()
        for each in over:
            try:
                each.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                each.kill()
                each.wait()


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
def cli(folder: Path) -> None:
    """Begin the run that FOLDER describes, or go on with it."""
    set_up_program()
    job = JobFolder(folder)
    with open(folder / "lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise click.ClickException(f"{job.name} is at work already") from None
        job.note(RUNNING, pid=os.getpid(), reason="")
        try:
            status, code = run_job(job)
        except (JobError, ServerError, OSError, subprocess.SubprocessError) as error:
            reason = " ".join(str(error).split())
            job.note(FAILED, reason=reason)
            raise click.ClickException(reason) from error
        reason = last_words(job.said()) if status == FAILED else ""
        job.note(status, exit=code, reason=reason)
        log.info("%s: %s", job.name, status)
    sys.exit(code)


def run_job(job: JobFolder) -> tuple[str, int]:
    """Until the run is done, its time is over, or this process is told to end; says which."""
    lasts = until_told_to_end()
    described, port = job.read(), free_port(HOST)
    deadline = time.monotonic() + 3600 * described["hours"]
    with contextlib.ExitStack() as opened:
        password = opened.enter_context(secret_file(job.path / "password"))
        listening = Listening(HOST, port, worker_password=password.read_text())
        server = opened.enter_context(start_server(listening))
        env = environment_of(job)
        opened.callback(end_store, env)
        place = [f"--master_host={HOST}", f"--master_port={port}"]
        workers = f"--num_workers={described['cpus_per_node']}"
        program = [sys.executable, str(ROOT / "es" / "worker.py"), "workers", *place, workers]
        program.append("--until_stdin_ends")
        machines = Machines(job, program, {**env, PASSWORD_FILE_VARIABLE: str(password)})
        opened.callback(machines.be, 0)
        head = Head(job, ["local=False"], {**env, URL_VARIABLE: server.url}, apart=True)
        opened.callback(head.end, HEAD_END_SECONDS)
        job.note(RUNNING, head=head.process.pid)
        while head.code is None and lasts(LOOK_SECONDS) and time.monotonic() < deadline:
            machines.be(job.read()["nodes"])
        if head.code is not None:
            return (FAILED if head.code else DONE), head.code
        in_time = time.monotonic() < deadline
        head.end(HEAD_END_SECONDS)
        return (INTERRUPTED if in_time else STOPPED), 1


if __name__ == "__main__":
    cli()
