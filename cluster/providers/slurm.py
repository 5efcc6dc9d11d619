"""SLURM: one job for a run. On its first node are redis and the head, on every node are workers."""

import dataclasses
import getpass
import math
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster.jobs import (
    CANCELLED,
    REQUEUED,
    ROOT,
    RUNNING,
    SUBMITTED,
    JobFolder,
    check_name,
)
from cluster.providers import (
    Change,
    Cluster,
    Plan,
    Provider,
    ProviderError,
    cannot,
)
from cluster.providers.kept import KeptJobs

ANSWER_SECONDS = 60.0  # that SLURM's programs have
END_SECONDS = 90.0  # that a job has to end by itself, and then that SLURM has to end it
LOOK_SECONDS = 0.2
SCRIPT_NAME = "job.sbatch"
JOB_PROGRAM = ROOT / "cluster" / "slurm_job.py"
LOST = ("down", "drain", "drng", "fail", "futr", "unk", "maint")  # states of nodes

SCRIPT = """\
#!/bin/bash
{directives}
# Begins the run in this folder, or goes on with it: sbatch may be told to do so by hand.
# The variable `gym`, if it is set, is the id of the environment.
trap '' USR1 # until the program has its own answer to it
exec {program}
"""


@dataclass(frozen=True)
class Partition:
    """What sinfo says of a partition."""

    name: str
    nodes: int
    usable: int  # those that are neither down nor drained
    cpus: int  # of the smallest node
    minutes: float  # that a job may last


class SlurmProvider:
    """Submits, shows and cancels jobs of this user; a shared folder holds what they say."""

    name = "slurm"

    def __init__(self, folder: Path) -> None:
        """Keep the jobs in ``folder``, which all nodes must see."""
        self._jobs = KeptJobs(folder, self.name)

    def check(self, plan: Plan) -> Plan:
        _check_plan(plan)
        partition = find_partition(plan.partition)
        where = f"partition {partition.name} has"
        if plan.nodes > partition.nodes:
            raise ProviderError(f"--nodes={plan.nodes}: {where} {partition.nodes}")
        if plan.nodes > partition.usable:
            raise ProviderError(
                f"--nodes={plan.nodes}: {where} {partition.usable} that are up, of"
                f" {partition.nodes}; see sinfo -R"
            )
        if plan.cpus_per_node is not None and plan.cpus_per_node > partition.cpus:
            cpus = plan.cpus_per_node
            raise ProviderError(f"--cpus-per-node={cpus}: {where} nodes with {partition.cpus}")
        if _minutes(plan.hours) > partition.minutes:
            raise ProviderError(
                f"--hours={plan.hours:g}: {where} a limit of {partition.minutes / 60:g} hours;"
                " a run that is not done then goes on in another sitting"
            )
        return dataclasses.replace(
            plan, partition=partition.name, cpus_per_node=plan.cpus_per_node or partition.cpus
        )

    def estimate(self, plan: Plan) -> str:
        hours = plan.nodes * (plan.cpus_per_node or 1) * plan.hours
        return (
            f"{plan.nodes} nodes of {plan.cpus_per_node} cores, {plan.hours:g} hours a sitting, at"
            f" most {plan.sittings} sittings: {hours:,.1f} core-hours a sitting, at most"
            f" {hours * plan.sittings:,.1f}"
        )

    def preview(self, plan: Plan) -> str:
        return job_script(plan, self._jobs.folder / plan.name)

    def create(self, plan: Plan) -> Cluster:
        job = self._jobs.free(plan)
        if job.is_described and (number := job.read().get("job")) in queued():
            raise ProviderError(f"{job.path}: job {number} is in the queue already")
        self._jobs.prepare(job, plan, {SCRIPT_NAME: job_script(plan, job.path)})
        number = _run(["sbatch", "--parsable", str(job.path / SCRIPT_NAME)]).partition(";")[0]
        job.write(**{**job.read(), "job": number.strip()})
        job.note(SUBMITTED, reason="")
        return Cluster(
            plan.name, self.name, number.strip(), SUBMITTED, plan.nodes, f"in {job.path}"
        )

    def list(self) -> list[Cluster]:
        jobs = self._jobs.all()
        queue = queued() if jobs else {}
        return [_cluster(job, queue) for job in jobs]

    def tail(self, name: str, lines: int, node: int | None = None) -> str:
        return self._jobs.tail(name, lines, node)

    def exec(self, name: str, command: str, node: int | None = None) -> str:
        job = self._jobs.find(name)
        number = job.read().get("job")
        if number is None or number not in queued():
            raise ProviderError(f"{name} is not in the queue: it is {job.status or 'new'}")
        step = [f"--jobid={number}", "--overlap", "--nodes=1", "--ntasks=1"]
        return _run(["srun", *step, f"--relative={node or 0}", "/bin/sh", "-c", command])

    def resize(self, name: str, size: int) -> None:
        self._jobs.find(name)
        raise cannot(
            "slurm", "change the nodes of a job", f"kill {name}, and launch it with --nodes={size}"
        )

    def set_price(self, name: str, change: Change) -> None:
        self._jobs.find(name)
        raise cannot("slurm", "set prices", "its nodes have none")

    def upload(self, machine: str, dry_run: bool = False) -> str:
        raise cannot("slurm", "upload", "all nodes see the folder that jobs are submitted from")

    def destroy(self, name: str) -> None:
        job = self._jobs.find(name)
        number = job.read().get("job")
        if number is None or number not in queued():
            raise ProviderError(f"{name} is not in the queue: it is {job.status or 'new'}")
        if not (job.status == RUNNING and _tell_to_end(number)):
            _run(["scancel", number])
        if not _is_gone(number, END_SECONDS):
            raise ProviderError(f"job {number} of {name} does not end; see squeue")
        if job.status in (SUBMITTED, REQUEUED, RUNNING):  # it had no time to say so itself
            job.note(CANCELLED)


def make(folder: Path, owner: str | None = None) -> Provider:
    """The provider; see `cluster.providers.provider`. Jobs are this user's own."""
    if owner is not None:
        raise cannot("slurm", "show jobs of others", "leave --owner out")
    return SlurmProvider(folder)


def job_script(plan: Plan, folder: Path) -> str:
    """What sbatch reads.

    Args:
        folder: of the job, absolute.
    """
    log = str(folder / "slurm.txt").replace("\\", "\\\\").replace("%", "%%")
    options = [
        f"--job-name={plan.name}",
        *([f"--partition={plan.partition}"] if plan.partition else []),
        f"--nodes={plan.nodes}",
        "--ntasks-per-node=1",
        f"--cpus-per-task={plan.cpus_per_node or 1}",
        f"--time={_minutes(plan.hours)}",
        f"--signal=B:USR1@{plan.warning_seconds}",
        "--requeue",
        "--no-kill",
        "--open-mode=append",
        f"--chdir={Path.cwd()}",
        f"--output={log}",
        *plan.options,
    ]
    directives = "\n".join(f"#SBATCH {shlex.quote(option)}" for option in options)
    program = shlex.join([sys.executable, str(JOB_PROGRAM), str(folder)])
    return SCRIPT.format(directives=directives, program=program)


def find_partition(name: str | None) -> Partition:
    """A partition, or the default one.

    Raises:
        ProviderError: there is none of that name, or no SLURM here.
    """
    lines = _run(["sinfo", "--noheader", "--format=%P|%D|%t|%c|%l"]).splitlines()
    rows = [line.strip().split("|") for line in lines if line.count("|") == 4]
    names = list(dict.fromkeys(row[0].rstrip("*") for row in rows))
    default = [row[0].rstrip("*") for row in rows if row[0].endswith("*")]
    if name is None and not default:
        raise ProviderError(f"no default partition: name one of {', '.join(names)}")
    wanted = name or default[0]
    mine = [row for row in rows if row[0].rstrip("*") == wanted]
    if not mine:
        raise ProviderError(f"--partition={wanted}: there is none; known: {', '.join(names)}")
    return Partition(
        wanted,
        sum(int(row[1]) for row in mine),
        sum(int(row[1]) for row in mine if not row[2].lower().startswith(LOST)),
        min(int(row[3].rstrip("+")) for row in mine),
        parse_limit(mine[0][4]),
    )


def parse_limit(text: str) -> float:
    """Minutes of a time limit: minutes:seconds, hours:minutes:seconds, days-…, infinite."""
    days, _, rest = text.rpartition("-")
    parts = [int(part) for part in rest.split(":") if part.isdigit()]
    if not parts:
        return math.inf
    hours, minutes, seconds = ([0, 0, 0] + (parts if len(parts) > 1 else [*parts, 0]))[-3:]
    return int(days or 0) * 1440 + hours * 60 + minutes + seconds / 60


def queued() -> dict[str, tuple[str, str]]:
    """This user's jobs that are in the queue: by number, SLURM's state and its reason or nodes."""
    format_ = "--format=%i|%T|%M of %l, %R"
    lines = _run(["squeue", "--noheader", f"--user={getpass.getuser()}", format_]).splitlines()
    rows = [line.strip().split("|", 2) for line in lines]
    return {row[0]: (row[1].lower(), row[2]) for row in rows if len(row) == 3}


def _tell_to_end(number: str) -> bool:
    """Tell a job's program to end, which takes a checkpoint; true if it has.

    scancel would give it no more than KillWait, 30 seconds or what the cluster has set.
    """
    try:
        _run(["scancel", "--batch", "--signal=TERM", number])
    except ProviderError:
        return False  # it has just ended, or waits for its turn
    return _is_gone(number, END_SECONDS)


def _is_gone(number: str, seconds: float) -> bool:
    """True as soon as a job is not in the queue; false if it does not leave in time."""
    deadline = time.monotonic() + seconds
    while number in queued():
        if time.monotonic() > deadline:
            return False
        time.sleep(LOOK_SECONDS)
    return True


def _cluster(job: JobFolder, queue: dict[str, tuple[str, str]]) -> Cluster:
    described = job.read()
    number = str(described.get("job", ""))
    state, detail = queue.get(number, ("", ""))
    status = state or job.status
    if not state and job.status in (SUBMITTED, RUNNING, REQUEUED):
        status, detail = "lost", "gone from the queue without a word; see slurm.txt"
    return Cluster(job.name, "slurm", number, status, int(described.get("nodes", 0)), detail)


def _check_plan(plan: Plan) -> None:
    check_name(plan.name)
    if plan.warning_seconds >= _minutes(plan.hours) * 60:
        raise ProviderError(
            f"--warning-seconds={plan.warning_seconds}: must be less than the"
            f" {_minutes(plan.hours) * 60} seconds of a sitting"
        )
    for option in plan.options:
        if not option.startswith("--") or "\n" in option:
            raise ProviderError(f"--option={option!r}: write it as --account=NAME")


def _minutes(hours: float) -> int:
    """SLURM counts in minutes."""
    return max(math.ceil(round(hours * 60, 6)), 1)


def _run(command: Sequence[str]) -> str:
    """Run one of SLURM's programs; returns what it says."""
    if shutil.which(command[0]) is None:
        raise ProviderError(f"no {command[0]} on the PATH: go where SLURM's programs are")
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=ANSWER_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise ProviderError(f"{command[0]} does not answer") from None
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split())
        raise ProviderError(said or f"{command[0]} failed with exit code {done.returncode}")
    return done.stdout
