"""This machine: a cluster is a few processes, machines of workers are process groups.

For trying things out as they are on many machines, and for long runs that outlive the terminal.
"""

import contextlib
import dataclasses
import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from cluster.jobs import (
    INTERRUPTED,
    ROOT,
    RUNNING,
    SUBMITTED,
    JobFolder,
    check_name,
)
from cluster.providers import Change, Cluster, Plan, Provider, ProviderError, cannot
from cluster.providers.kept import KeptJobs
from cluster.sitting import end_store, environment_of

PROGRAM = ROOT / "cluster" / "local_job.py"
BEGIN_SECONDS = 30.0  # that a job has to say that it runs
END_SECONDS = 120.0  # that it has for its end: the head's checkpoint, then all others
ANSWER_SECONDS = 60.0  # that a command has
LOOK_SECONDS = 0.05
MOST_PER_CORE = 4  # workers; more than one gain nothing, but show how many behave


class LocalProvider:
    """Jobs of this user on this machine; each has a folder."""

    name = "local"

    def __init__(self, folder: Path) -> None:
        self._jobs = KeptJobs(folder, self.name)

    def check(self, plan: Plan) -> Plan:
        check_name(plan.name)
        cores = os.cpu_count() or 1
        each = plan.cpus_per_node or max(cores // plan.nodes, 1)
        _check_size(plan.nodes, each)
        return dataclasses.replace(plan, cpus_per_node=each)

    def estimate(self, plan: Plan) -> str:
        hours = plan.nodes * (plan.cpus_per_node or 1) * plan.hours
        return (
            f"{plan.nodes} machines of {plan.cpus_per_node} workers, all of them this one, at most"
            f" {plan.hours:g} hours: at most {hours:,.1f} core-hours"
        )

    def preview(self, plan: Plan) -> str:
        return f"{sys.executable} {PROGRAM} {self._jobs.folder / plan.name}"

    def create(self, plan: Plan) -> Cluster:
        job = self._jobs.free(plan)
        if _at_work(job):
            raise ProviderError(f"{job.path}: this job is at work already")
        self._jobs.prepare(job, plan)
        job.note(SUBMITTED, reason="")
        with (job.path / "local.txt").open("ab") as said:
            begun = subprocess.Popen(
                [sys.executable, str(PROGRAM), str(job.path)],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                start_new_session=True,  # it outlives this process, and Ctrl-C in its terminal
            )
        deadline = time.monotonic() + BEGIN_SECONDS
        while job.status == SUBMITTED and begun.poll() is None and time.monotonic() < deadline:
            time.sleep(LOOK_SECONDS)
        if job.status == SUBMITTED:
            begun.kill()
            lines = (job.path / "local.txt").read_text(errors="replace").splitlines()
            raise ProviderError(f"{plan.name} does not begin: {(lines or ['it said nothing'])[-1]}")
        number = str(job.state()["pid"])
        return Cluster(plan.name, self.name, number, job.status, plan.nodes, f"in {job.path}")

    def list(self) -> list[Cluster]:
        return [_cluster(job) for job in self._jobs.all()]

    def tail(self, name: str, lines: int, node: int | None = None) -> str:
        return self._jobs.tail(name, lines, node)

    def exec(self, name: str, command: str, node: int | None = None) -> str:
        job = self._jobs.find(name)
        try:
            done = subprocess.run(
                ["/bin/sh", "-c", command],
                cwd=job.path,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=ANSWER_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise ProviderError(f"{command!r} takes longer than {ANSWER_SECONDS:g} s") from None
        if done.returncode:
            said = " ".join((done.stderr or done.stdout).split())
            raise ProviderError(said or f"{command!r} failed with exit code {done.returncode}")
        return done.stdout

    def resize(self, name: str, size: int) -> None:
        job = self._jobs.find(name)
        if not _at_work(job):
            raise ProviderError(f"{name} is not at work: it is {job.status}")
        described = job.read()
        _check_size(size, described["cpus_per_node"])
        job.write(**{**described, "nodes": size})

    def set_price(self, name: str, change: Change) -> None:
        self._jobs.find(name)
        raise cannot("local", "set prices", "this machine has none")

    def upload(self, machine: str, dry_run: bool = False) -> str:
        raise cannot("local", "upload", "the code is here already")

    def destroy(self, name: str) -> None:
        job = self._jobs.find(name)
        if job.status == RUNNING and not _at_work(job):  # all others have ended with it
            _end_head(job)
            job.note(INTERRUPTED)
            return
        if not _at_work(job):
            raise ProviderError(f"{name} is not at work: it is {job.status or 'new'}")
        with contextlib.suppress(ProcessLookupError):
            os.kill(job.state()["pid"], signal.SIGTERM)
        deadline = time.monotonic() + END_SECONDS
        while _at_work(job):
            if time.monotonic() > deadline:
                raise ProviderError(f"process {job.state()['pid']} of {name} does not end")
            time.sleep(LOOK_SECONDS)


def make(folder: Path, owner: str | None = None) -> Provider:
    """The provider; see `cluster.providers.provider`. Jobs are this user's own."""
    if owner is not None:
        raise cannot("local", "show jobs of others", "leave --owner out")
    return LocalProvider(folder)


def _check_size(machines: int, workers: int) -> None:
    cores = os.cpu_count() or 1
    if machines < 1 or machines * workers > MOST_PER_CORE * cores:
        raise ProviderError(
            f"{machines} machines of {workers} workers: this machine has {cores} cores, for"
            f" {MOST_PER_CORE * cores} workers at most"
        )


def _at_work(job: JobFolder) -> bool:
    """True while the job's own process lives: it holds a lock, whatever else has its number now."""
    try:
        with open(job.path / "lock") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _end_head(job: JobFolder) -> None:
    """End the head of a job that was killed, and its store."""
    pid, deadline = int(job.state().get("head", 0)), time.monotonic() + END_SECONDS
    if _is_of(job, pid):
        os.kill(pid, signal.SIGTERM)
    while _is_of(job, pid) and time.monotonic() < deadline:
        time.sleep(LOOK_SECONDS)
    end_store(environment_of(job))


def _is_of(job: JobFolder, pid: int) -> bool:
    """True if a process of that number is there, and is no other that has got it meanwhile."""
    try:
        return bytes(job.path / "runs") in Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False


def _cluster(job: JobFolder) -> Cluster:
    described, state, status = job.read(), job.state(), job.status
    detail = str(state.get("reason") or "")
    if status == RUNNING and not _at_work(job):
        status, detail = "lost", "gone without a word; see local.txt"
    number = str(state.get("pid", ""))
    return Cluster(job.name, "local", number, status, int(described.get("nodes", 0)), detail)
