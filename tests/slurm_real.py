"""A SLURM of three nodes on this machine: daemons, ports, keys and folders of its own."""

import contextlib
import getpass
import os
import secrets
import shutil
import signal
import socket
import subprocess
from pathlib import Path

from commands import Place, wait_until

from cluster.jobs import JobFolder

PROGRAMS = ("setpriv", "munged", "slurmctld", "slurmd", "sbatch", "srun", "sinfo")
HOW = "apt-get install --no-install-recommends slurmctld slurmd slurm-client munge"
NODES = ("n1", "n2", "n3")
UP_SECONDS = 60.0
CONFIG = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock,cred_expire=5
CryptoType=crypto/munge
SlurmctldPort={ports[0]}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
SlurmdParameters=config_overrides
SlurmdTimeout=10
ReturnToService=2
KillWait=5
MpiDefault=none
JobRequeue=1
"""
NODE = "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=4 State=UNKNOWN\n"
PARTITION = "PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP\n"
CGROUP = "CgroupPlugin=cgroup/v1\nCgroupAutomount=no\nConstrainCores=no\nConstrainRAMSpace=no\n"


def missing() -> list[str]:
    """Which of SLURM's programs are not installed; all, if there is no root to run them."""
    if os.getuid() != 0:
        return ["root"]
    return [name for name in PROGRAMS if _program(name) is None]


def _program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")


class RealSlurm(Place):
    """A cluster of this test's own; a context manager that leaves nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.slurm = self.folder / "slurm"
        self.env["SLURM_CONF"] = str(self.slurm / "slurm.conf")
        self.jobs = self.runs / "clusters"
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> "RealSlurm":
        self._configure()
        self._daemon(
            "munged",
            *("--foreground", "--force", f"--socket={self.slurm}/munge.sock"),
            *(f"--{name}-file={self.slurm}/munge.{name}" for name in ("key", "pid", "log", "seed")),
        )
        wait_until((self.slurm / "munge.sock").exists, self.slurm, UP_SECONDS)
        self._daemon("slurmctld", "-D", "-f", self.env["SLURM_CONF"])
        for name in NODES:
            self.start_node(name)
        wait_until(self.is_up, self.slurm, UP_SECONDS)
        return self

    def _configure(self) -> None:
        self.slurm.mkdir(mode=0o700)
        (self.slurm / "state").mkdir()
        for name in NODES:
            (self.slurm / f"spool-{name}").mkdir()
        key = self.slurm / "munge.key"
        key.touch(0o400)
        key.write_bytes(secrets.token_bytes(1024))
        with contextlib.ExitStack() as held:
            free = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(4)]
            ports = [each.getsockname()[1] for each in free]
        host, user = socket.gethostname(), getpass.getuser()
        text = CONFIG.format(host=host, user=user, folder=self.slurm, ports=ports)
        for name, port in zip(NODES, ports[1:], strict=True):
            text += NODE.format(name=name, host=host, port=port)
        (self.slurm / "slurm.conf").write_text(text + PARTITION)
        (self.slurm / "cgroup.conf").write_text(CGROUP)

    def _daemon(self, name: str, *words: str, called: str = "") -> None:
        program = _program(name)
        assert program is not None
        with (self.slurm / f"{called or name}.out").open("ab") as out:
            self._daemons[called or name] = subprocess.Popen(
                ["setpriv", "--pdeathsig=TERM", program, *words],  # ends with the tests
                env=self.env,
                cwd=self.slurm,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    def start_node(self, name: str) -> None:
        """Begin, or come back."""
        self._daemon("slurmd", "-D", "-f", self.env["SLURM_CONF"], "-N", name, called=name)

    def kill_node(self, name: str) -> None:
        """All at once, as a cut cable would: SLURM's daemon, and all that it has started."""
        mark = f"SLURMD_NODENAME={name}".encode()
        victims = {self._daemons[name].pid}
        for pid in self.processes():
            with contextlib.suppress(OSError):
                if mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                    victims |= {pid, _slurm_parent(pid)} - {0}
        victims |= {pid for pid in self.processes() if _parent(pid) in victims}  # servers
        for pid in victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._daemons[name].wait()

    def say(self, *command: str) -> str:
        """Run one of SLURM's programs."""
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, check=False)
        return done.stdout

    def is_up(self) -> bool:
        return self.say("sinfo", "--noheader", "--format=%D %t").split() == ["3", "idle"]

    def job(self, name: str) -> JobFolder:
        return JobFolder(self.jobs / name)

    def strangers(self) -> list[str]:
        """Processes that are here and not SLURM's own."""
        ours = [program for program in map(_program, PROGRAMS) if program is not None]
        return [
            each for each in self.processes().values() if not each.startswith((*ours, *PROGRAMS))
        ]

    def __exit__(self, *_: object) -> None:
        for line in self.say("squeue", "--noheader", "--format=%i").split():
            self.say("scancel", line)
        with contextlib.suppress(AssertionError):
            wait_until(lambda: not self.say("squeue", "--noheader"), "an empty queue", 20)
        for daemon in reversed(self._daemons.values()):
            daemon.terminate()
        for daemon in self._daemons.values():
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        super().__exit__()


def _slurm_parent(pid: int) -> int:
    """The slurmstepd above a process, or 0."""
    parent = _parent(pid)
    with contextlib.suppress(OSError):
        if Path(f"/proc/{parent}/cmdline").read_bytes().startswith(b"slurmstepd"):
            return parent
    return 0


def _parent(pid: int) -> int:
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0
