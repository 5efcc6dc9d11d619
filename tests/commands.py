"""Our scripts as real processes, each test's in a place of its own, and what they leave there."""

import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from sacred import Experiment
from sacred.run import Run

from cluster.keys import Keys, workers_alive
from cluster.redis_server import connect
from es.experiment import ex

ROOT = Path(__file__).resolve().parent.parent
EXPERIMENT, HEAD, WORKER = (f"es/{name}.py" for name in ("experiment", "head", "worker"))
NEVERGRAD = "nevergrad_es/experiment.py"
DEADLINE = 180.0  # seconds; a machine that is not busy needs a twentieth of it
GRACE = 10.0  # seconds for what is left at the end of a test
HAS_PROC = Path("/proc/self/environ").exists()
# The user's own settings, from which tests must be free.
SETTINGS = (
    *("MONGO_URL", "EVO_REDIS", "EVO_RUNS", "EVO_SETTINGS"),
    *("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"),
)

# With the programs that are installed beside this Python, active or not.
PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

T = TypeVar("T")


def wait_until(condition: Callable[[], T], what: object, seconds: float = DEADLINE) -> T:
    """The first true value of ``condition``.

    Args:
        what: is waited for, or who; shown if it is in vain.
    Raises:
        AssertionError: it did not come within ``seconds``.
    """
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {seconds} s in vain for {what}"
        time.sleep(0.01)
    return value


class Command:
    """A running script, or one that has ended."""

    def __init__(self, process: subprocess.Popen[bytes], out: Path, err: Path) -> None:
        self.process, self._out, self._err = process, out, err

    @property
    def out(self) -> str:
        """What it has written to standard output so far."""
        return self._out.read_text()

    @property
    def err(self) -> str:
        """What it, and its children, have written to standard error so far."""
        return self._err.read_text()

    def end(self, seconds: float = DEADLINE) -> int:
        """Wait for its end; returns the exit code."""
        wait_until(lambda: self.process.poll() is not None, ("the end", self), seconds)
        return self.process.returncode

    def succeed(self) -> str:
        """Wait for its end, which must be a good one; returns the standard output."""
        assert self.end() == 0, f"{self} failed"
        return self.out

    def says(self, text: str) -> None:
        """Wait until it has written ``text``; to end without it is a failure."""

        def said() -> bool:
            ended = self.process.poll() is not None
            found = text in self.out + self.err
            assert found or not ended, f"{self} ended without {text!r}"
            return found

        wait_until(said, (text, self))

    def send(self, number: signal.Signals) -> None:
        """Send a signal to this process alone."""
        self.process.send_signal(number)

    def ctrl_c(self) -> None:
        """Interrupt the whole process group, as a terminal does."""
        os.killpg(self.process.pid, signal.SIGINT)

    def __repr__(self) -> str:
        return f"{self.process.args}\n{self.out}\n{self.err}"


class Place:
    """A private machine, as far as our programs can tell; a context manager.

    Attributes:
        folder: has a short path, as unix sockets need; no process of another place names it.
        runs: where experiments keep their runs.
        env: what the programs find in their environment.
    """

    def __init__(self, *, store: bool = False) -> None:
        """A new place.

        Args:
            store: experiments keep their runs in the embedded store, as users have it; else in
                files, which are easier to look at, and no server lingers.
        """
        self._store = store
        self.folder = Path(tempfile.mkdtemp(prefix="evo-place-", dir="/tmp"))
        self.runs = self.folder / "runs"
        self.temporary = self.folder / "tmp"
        self.runtime = self.folder / "run"
        for folder in (self.temporary, self.runtime):
            folder.mkdir(mode=0o700)
        self.env = {name: value for name, value in os.environ.items() if name not in SETTINGS} | {
            "EVO_RUNS": str(self.runs),
            "TMPDIR": str(self.temporary),
            "XDG_RUNTIME_DIR": str(self.runtime),
            "COLUMNS": "200",
        }
        self._numbers = itertools.count()
        self._started: list[Command] = []

    def start(self, script: str, *arguments: str) -> Command:
        """Start one of our scripts, in a process group of its own."""
        if script == EXPERIMENT and not self._store:
            arguments = (*arguments, "-F", str(self.runs))
        number = next(self._numbers)
        out, err = (self.folder / f"{number}.{end}" for end in ("out", "err"))
        with out.open("wb") as out_file, err.open("wb") as err_file:
            process = subprocess.Popen(
                [sys.executable, str(ROOT / script), *arguments],
                env=self.env,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=out_file,
                stderr=err_file,
                start_new_session=True,
            )
        self._started.append(Command(process, out, err))
        return self._started[-1]

    def run(self, script: str, *arguments: str) -> str:
        """Run one of our scripts to its good end; returns its standard output."""
        return self.start(script, *arguments).succeed()

    def server(self) -> Command:
        """Start run-server, and wait until others can use it."""
        server = self.start(HEAD, "run-server")
        server.says("server ready")
        return server

    def send(self, pid: int, number: signal.Signals) -> None:
        """Send a signal to a process of this place, and to no other."""
        assert not HAS_PROC or pid in self.processes()
        os.kill(pid, number)

    @property
    def url(self) -> str:
        """Where the server is that run-server has started."""
        (note,) = self.runtime.glob("*/server.json")
        return json.loads(note.read_text())["url"]

    def has_workers(self, number: int) -> None:
        """Wait until the server has heard of so many workers, and of no more."""
        server = connect(self.url)
        wait_until(lambda: len(workers_alive(server, Keys())) == number, self._started)

    def processes(self) -> dict[int, str]:
        """The command lines of all processes that began here; needs /proc."""
        found = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                with contextlib.suppress(OSError):  # it has just ended, or is not ours to see
                    # servers write over their environment, but stay in their folder
                    inside = os.readlink(entry / "cwd").startswith(str(self.temporary))
                    if inside or bytes(self.temporary) in (entry / "environ").read_bytes():
                        line = (entry / "cmdline").read_bytes()
                        found[int(entry.name)] = line.replace(b"\0", b" ").decode()
        return found

    def leftovers(self) -> list[str]:
        """Processes, and files outside of the run folders, that are here."""
        files = [str(path) for top in (self.temporary, self.runtime) for path in top.iterdir()]
        # an empty folder that torch makes when it is imported, the same for all programs
        ours = [path for path in files if "torchinductor" not in path]
        return [*self.processes().values(), *ours]

    def __enter__(self) -> "Place":
        return self

    def __exit__(self, *_: object) -> None:
        for command in self._started:
            command.process.terminate()
        for command in self._started:
            try:
                command.process.wait(GRACE)
            except subprocess.TimeoutExpired:
                command.process.kill()
                command.process.wait()
        self._end_the_rest()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _end_the_rest(self) -> None:
        """Children end by themselves a moment after their parents, or are made to."""
        deadline = time.monotonic() + GRACE
        while HAS_PROC and (left := self.processes()):
            for pid in left if time.monotonic() > deadline else ():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)


def record(run: Path, name: str) -> Any:
    """A file that an experiment has left in its run folder, read as JSON."""
    return json.loads((run / f"{name}.json").read_text())


def setting(**config: Any) -> list[str]:
    """A config as words of the command line."""
    return [f"{name}={value!r}" for name, value in config.items()]


def noise_file(size: int, seed: int) -> Path:
    """Where a noise table lies while somebody uses it, on Linux."""
    return Path(f"/dev/shm/evo-{os.getuid()}-noise-{size}-{seed}")


def complaint(err: str) -> str:
    """The one line on standard error that is no message of the log.

    Raises:
        AssertionError: there are none or more of them.
    """
    lines = [line for line in err.splitlines() if line and not line.startswith(("INFO", "WARN"))]
    assert len(lines) == 1, err
    assert "Traceback" not in lines[0]
    return lines[0]


def run_here(
    *named_configs: str, folder: Path | None = None, experiment: Experiment = ex, **config: Any
) -> Run:
    """Run an experiment inside this process: as good, and cheaper by seconds.

    Args:
        folder: where to keep the run; None: nowhere.
    """
    options = {"--file_storage": str(folder)} if folder else {"--unobserved": True}
    handler = signal.getsignal(signal.SIGTERM)
    try:
        return experiment.run(named_configs=named_configs, config_updates=config, options=options)
    finally:
        signal.signal(signal.SIGTERM, handler)
