"""Programs that do not fit together: each says so in one line, and serves whom it can."""

import functools
import logging
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import FORK, Crew, WaitFor
from test_evaluators import KEYS, PROBLEMS, Stage, check, other_noise

from cluster import wire
from cluster.clients import HeadClient, WorkerClient
from cluster.keys import workers_alive
from cluster.redis_server import Server, connect, start_server
from cluster.relay import Relay
from cluster.wire import VersionError
from env import envpool_engine
from evolution import problem as problem_module
from evolution import redis_evaluator
from evolution.evaluation import Part
from evolution.exchange import lookout
from evolution.noise import NoiseTable
from evolution.problem import Problem, ProblemError

OTHERS = {"older": wire.VERSION - 1, "newer": wire.VERSION + 1}


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look around often."""
    monkeypatch.setattr(redis_evaluator, "TICK", 0.02)
    monkeypatch.setattr(lookout, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(lookout, "COPY_SECONDS", 1e6)


@pytest.fixture
def stage(
    crew: Crew, noise: NoiseTable, make_task: Callable[[int, int, NoiseTable], list[Part]]
) -> Stage:
    return Stage(crew, noise, make_task)


class Machine(Crew):
    """Workers behind a relay."""

    def start_relay(self, above: str, prepare: Callable[[], None] = lambda: None) -> None:
        """Start a relay, and wait until the head's server has heard of it.

        Args:
            prepare: called in the new process before it works.
        """
        parent = os.getpid()

        def work() -> None:
            prepare()
            relay = Relay(connect(above), connect(self.url), "machine", KEYS)
            relay.run(lambda: os.getppid() == parent)

        self.relay = FORK.Process(target=work)
        self.relay.start()
        self.wait(lambda: connect(above).exists(KEYS.worker("machine")))


@pytest.fixture
def machine(crew: Crew, wait_for: WaitFor) -> Iterator[Machine]:
    """A machine without workers and relay, until they are started."""
    with start_server() as below:
        machine = Machine(below.url, wait_for, "behind")
        yield machine
        machine.end()
        crew.end()
        if hasattr(machine, "relay"):  # what was forked holds the server
            machine.relay.kill()
            machine.relay.join()


def log_to(file: Path) -> None:
    """In a process of its own."""
    handler = logging.FileHandler(file)
    logging.getLogger().handlers[:] = [handler]
    logging.getLogger().setLevel(logging.INFO)


def speak(version: int, file: Path) -> None:
    """Be a program of another version."""
    wire.VERSION = version
    log_to(file)


def said(stage: Stage, name: str) -> dict:
    (found,) = [w for w in workers_alive(stage.db, KEYS) if w["name"] == name]
    return found


@pytest.mark.parametrize("age", OTHERS)
@pytest.mark.parametrize("who", ["worker", "relay"])
def test_another_version_refuses_the_run_and_says_who_is_older(
    who: str, age: str, *, stage: Stage, machine: Machine, tmp_path: Path, wait_for: WaitFor
) -> None:
    """Only for what it can read does it take tickets; others do the work."""
    file, version = tmp_path / "log", OTHERS[age]
    prepare = functools.partial(speak, version, file)
    if who == "worker":
        stage.crew.start(1, prepare)
        name = "worker-0"
    else:
        machine.start_relay(stage.crew.url, prepare)
        machine.start(1)
        name = "machine"
    problem = PROBLEMS["sphere"]()
    task, right = stage.reference(problem)
    refusal = re.compile(rf"^{who} {name} refuses run run: message version {wire.VERSION}", re.M)

    def help_out() -> None:
        refused = file.exists() and refusal.search(file.read_text())
        known = len(stage.crew.processes) + (who == "relay")
        if known == 1 and refused and said(stage, name)["workers"] == 0:
            stage.crew.start(1)

    with stage.head(problem, watch=help_out) as evaluator:
        check(evaluator.evaluate(task), right)
        check(evaluator.evaluate(task), right)
        assert said(stage, name)["workers"] == 0
    assert len(refusal.findall(file.read_text())) == 1
    older = "its sender is the older one" if age == "newer" else "this program is the older one"
    assert older in file.read_text()
    # when it is over, it waits for others
    if who == "worker":
        wait_for(lambda: said(stage, name)["workers"] == 1)
        assert said(stage, name)["doing"] == ""


def without_envpool(folder: Path) -> None:
    """As on a machine where it is not installed."""
    problem_module.versions = lambda name, env_id: {"numpy": np.__version__}


@pytest.mark.parametrize("behind", [False, True])
@pytest.mark.parametrize(
    ("name", "prepare", "reason"),
    [
        ("lander on envpool", without_envpool, "but the run needs envpool"),
        ("sphere", other_noise, "noise table .* here, .* at the head"),
    ],
    ids=["envpool", "noise"],
)
def test_a_worker_that_lacks_something_refuses_by_name_and_serves_others(
    *,
    name: str,
    prepare: Callable[[Path], None],
    reason: str,
    behind: bool,
    stage: Stage,
    machine: Machine,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    if "envpool" in name and not envpool_engine.is_installed():
        pytest.skip("EnvPool is not installed")
    if behind:
        machine.start_relay(stage.crew.url)
    (tmp_path / "noise").mkdir()
    crew = machine if behind else stage.crew
    log_file = tmp_path / "log"

    def lack() -> None:
        log_to(log_file)
        prepare(tmp_path / "noise")

    crew.start(1, lack)
    refusal = f"worker {'behind-0' if behind else 'worker-0'} refuses this run"

    def help_out() -> None:
        if len(stage.crew.processes) == (not behind) and refusal in caplog.text:
            stage.crew.start(1)

    problem = PROBLEMS[name]()
    task, right = stage.reference(problem)
    with stage.head(problem, watch=help_out) as evaluator:
        check(evaluator.evaluate(task), right)
        assert caplog.text.count(refusal) == 1
    (told,) = re.findall(
        f"^{refusal.replace(' this run', ' run run')}: .*$", log_file.read_text(), re.M
    )
    assert re.search(reason, told)
    if name == "sphere":
        return  # whatever the run, it needs a noise table
    sphere = PROBLEMS["sphere"]()
    task, right = stage.reference(sphere)
    with stage.head(sphere, "other") as evaluator:
        while "serves run other" not in log_file.read_text():
            check(evaluator.evaluate(task), right)


def test_a_problem_of_another_version_says_who_is_older() -> None:
    fields = PROBLEMS["sphere"]().to_json()
    with pytest.raises(ProblemError, match=r"has \['gravity'\]: this program is older"):
        Problem.from_json({**fields, "gravity": 9.81})
    del fields["max_steps"]
    with pytest.raises(ProblemError, match=r"lacks \['max_steps'\]: its head is the older"):
        Problem.from_json(fields)


def test_the_client_tells_another_version_from_nonsense(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = HeadClient(connect(server.url), "run", KEYS)
    head.lead()
    head.post_run({})
    worker = WorkerClient(connect(server.url), "w", KEYS)
    assert worker.run_spec("run")
    monkeypatch.setattr(wire, "VERSION", wire.VERSION + 1)
    with pytest.raises(VersionError, match="its sender is the older one"):
        worker.run_spec("run")
    connect(server.url).set(KEYS.run, b"nonsense, and long enough to be a message of ours")
    assert worker.run_spec("run") is None
