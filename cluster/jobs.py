"""One run as a job: a folder says what is to run, how far it is, and how it goes on.

| file | what it holds |
|---|---|
| job.json | the experiment, its config, and whatever else the launcher has noted |
| state.json | how it is, one of the words below, and the run's id once that is known |
| head.txt | what the experiment has said, in all of its sittings |
"""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
DONE, FAILED, RUNNING, SUBMITTED = "done", "failed", "running", "submitted"
INTERRUPTED, CANCELLED, REQUEUED, STOPPED = "interrupted", "cancelled", "requeued", "stopped"
ENV_VARIABLE = "gym"  # the id of the environment, as ga-dist's users pass it to a job
# Config keys that a job decides.
CHOSEN = ("redis", "local", "evaluator", "num_workers", "group", "ray_address")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=+-]{0,99}")
REASON_LENGTH = 300
CHECK_SECONDS = 120.0  # that an experiment has to look at its config


class JobError(ValueError):
    """A job that cannot be; the message is one line."""


def script_of(experiment: str) -> Path:
    """The script of an experiment, such as es or ga.

    Raises:
        JobError: there is none of that name.
    """
    known = sorted(path.parent.name for path in ROOT.glob("*/experiment.py"))
    if experiment not in {*known} - {"store"}:
        names = ", ".join(name for name in known if name != "store")
        raise JobError(f"no experiment {experiment!r}; known: {names}")
    return ROOT / experiment / "experiment.py"


def check_name(name: str) -> str:
    """Refuse a name that is no good for a folder, or for a job: JobError, with what would be."""
    if not NAME.fullmatch(name):
        raise JobError(f"name {name!r}: up to 100 letters, digits and . _ = + - are allowed")
    return name


def check_config(experiment: str, config: Sequence[str]) -> None:
    """Have the experiment look at a config, in a process of its own.

    Args:
        config: words behind ``with``.
    Raises:
        JobError: with the experiment's own words.
    """
    for word in config:
        if word.partition("=")[0] in CHOSEN and "=" in word:
            raise JobError(f"{word}: leave it out, the job decides on {word.partition('=')[0]}")
    command = [sys.executable, str(script_of(experiment)), "check_config"]
    # The server that experiments of this machine use is none of the job's.
    env = {name: value for name, value in os.environ.items() if not name.startswith("EVO_REDIS")}
    done = subprocess.run(
        [*command, *(("with", *config) if config else ()), "evaluator=local"],
        env=env,
        capture_output=True,
        text=True,
        timeout=CHECK_SECONDS,
        check=False,
    )
    if done.returncode:
        raise JobError(f"{experiment} with {' '.join(config)}: {last_words(done.stderr)}")


def last_words(text: str) -> str:
    """The last line that is no message of the log, without the name of an error of ours."""
    lines = [line for line in text.splitlines() if line and not line.startswith(("INFO", "WARN"))]
    last = lines[-1] if lines else "it said nothing"
    return re.sub(r"^(store\.\w+\.\w+Error|ERROR|Error):? ", "", last)[:REASON_LENGTH]


@dataclass(frozen=True)
class JobFolder:
    """Where a job is described and leaves its traces."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def is_described(self) -> bool:
        """True if `write` was called for it, ever."""
        return (self.path / "job.json").exists()

    @property
    def head_log(self) -> Path:
        return self.path / "head.txt"

    def write(self, **described: Any) -> None:
        """Describe the job: ``experiment``, ``config``, and more."""
        self.path.mkdir(parents=True, exist_ok=True)
        _write(self.path / "job.json", described)

    def read(self) -> dict[str, Any]:
        """What `write` has written.

        Raises:
            JobError: nothing that can be read.
        """
        return _read(self.path / "job.json")

    def note(self, status: str, **more: Any) -> None:
        """Say how the job is; what was noted before and is not named stays."""
        known = self.state()
        run = self.run_id()
        found = {} if run is None else {"run": run}
        _write(self.path / "state.json", {**known, **found, **more, "status": status})

    def state(self) -> dict[str, Any]:
        """What `note` has written; empty if nothing."""
        return _read(self.path / "state.json") if (self.path / "state.json").exists() else {}

    @property
    def status(self) -> str:
        return str(self.state().get("status", ""))

    def said(self) -> str:
        """All that the experiment has said."""
        return self.head_log.read_text(errors="replace") if self.head_log.exists() else ""

    def run_id(self) -> int | None:
        """The run's id in its store, once it has begun."""
        found = re.findall(r'Started run with ID "(\d+)"', self.said())
        return int(found[-1]) if found else None

    def command(self, where: Sequence[str] = ()) -> list[str]:
        """What begins the run, or lets it go on if it has begun.

        Args:
            where: config words that say where the work is done.
        """
        job, run = self.read(), self.run_id()
        script = [sys.executable, str(script_of(job["experiment"]))]
        if run is not None:
            return [*script, "resume", "with", f"run_id={run}", *where]
        words = [*job["config"], *where]
        return [*script, *(("with", *words) if words else ())]


def jobs_of(folder: Path, provider: str) -> list[JobFolder]:
    """The jobs in a folder that a provider has begun, the oldest first."""
    files = sorted(folder.glob("*/job.json"), key=lambda file: file.stat().st_mtime)
    jobs = [JobFolder(file.parent) for file in files]
    return [job for job in jobs if job.read().get("provider", "slurm") == provider]


class Head:
    """The experiment's process, in one sitting of a job."""

    def __init__(
        self, job: JobFolder, where: Sequence[str], env: Mapping[str, str], *, apart: bool = False
    ) -> None:
        """Begin the run, or go on with it; what it says is added to the job's head.txt.

        Args:
            where: config words that say where the work is done.
            apart: Ctrl-C is not for it, but for who started it.
        """
        self._job, self._heard = job, len(job.said())
        with job.head_log.open("ab") as log:
            self.process = subprocess.Popen(
                job.command(where),
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=apart,
            )
        self.began = time.monotonic()

    @property
    def code(self) -> int | None:
        """The exit code; None while it runs."""
        return self.process.poll()

    def said(self) -> str:
        """What it has said in this sitting."""
        return self._job.said()[self._heard :]

    def end(self, seconds: float) -> int:
        """Tell it to end, which leaves a checkpoint, and wait so long; then kill it."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


def _write(file: Path, values: Mapping[str, Any]) -> None:
    """At once or not at all."""
    temporary = file.with_name(f"{file.name}.{os.getpid()}")
    temporary.write_text(json.dumps(values, indent=2) + "\n")
    temporary.replace(file)


def _read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise JobError(f"{file} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise JobError(f"{file} holds no description of a job")
    return found
