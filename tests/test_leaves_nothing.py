"""However an experiment ends, no process, socket or file of it stays; its newest policy does."""

import secrets
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from commands import (
    EXPERIMENT,
    HAS_PROC,
    WORKER,
    Command,
    Place,
    noise_file,
    record,
    setting,
    wait_until,
)
from machines import Site

from evolution.problem import problem_of
from store.reader import read_policy
from store.recorder import theta_sha256

pytestmark = pytest.mark.skipif(not HAS_PROC, reason="reads /proc to see what is left")

ENDLESS = {"num_generations": 10_000_000, "num_workers": 2, "noise_size": 100_000}
FAILING = """
import gymnasium as gym

class Failing(gym.Env):
    observation_space = gym.spaces.Box(-1, 1, (2,))
    action_space = gym.spaces.Box(-1, 1, (2,))

    def reset(self, seed=None, options=None):
        return self.observation_space.sample(), {}

    def step(self, action):
        raise RuntimeError("the motor is on fire")

gym.register("Failing-v0", Failing)
"""
STUCK = """
import pathlib
import gymnasium as gym

class Stuck(gym.Env):
    observation_space = gym.spaces.Box(-1, 1, (2,))
    action_space = gym.spaces.Box(-1, 1, (1,))

    def reset(self, seed=None, options=None):
        return self.observation_space.sample(), {}

    def step(self, action):
        (pathlib.Path(__file__).parent / "stuck").touch()
        while True:
            try:
                pass
            except SystemExit:
                pass

gym.register("Stuck-v0", Stuck)
"""


class Endless:
    """An experiment under way, with a server, two workers and a noise table like no other's."""

    def __init__(self, place: Place) -> None:
        self.place, seed = place, secrets.randbelow(2**31)
        self.noise = noise_file(ENDLESS["noise_size"], seed)
        words = setting(**ENDLESS, noise_seed=seed)
        self.head = place.start(EXPERIMENT, "with", "sphere", *words)

    def works(self) -> None:
        """Wait until generations pass."""
        self.head.says("generation 1/")
        assert len(self.place.processes()) >= 5  # head, server, its guardian, crew, two workers

    def left(self) -> list[str]:
        """What is there although the experiment is over."""
        noise = [str(self.noise)] if self.noise.exists() else []
        return [*self.place.leftovers(), *noise]


@pytest.fixture
def endless() -> Iterator[Endless]:
    with Place() as place:
        yield Endless(place)


def nothing_is_left(endless: Endless) -> None:
    wait_until(lambda: not endless.left(), f"the end of {endless.left()}", seconds=30)


def check_interrupted(run: Path) -> None:
    """The record says how it ended, and has the newest policy."""
    assert record(run, "run")["status"] == "INTERRUPTED"
    last = record(run, "metrics")["current fitness"]["steps"][-1]
    newest = run / f"Policy_ep_{last + 1}.model"
    policy = problem_of(record(run, "config")).make_policy()
    theta = policy.theta_from_state_dict(read_policy(newest))
    assert np.isfinite(theta).all()
    policies = record(run, "info")["policies"]
    assert policies[newest.name] == {"generation": last + 1, "theta sha256": theta_sha256(theta)}
    assert "Policy_best.model" in policies


def end(head: Command, number: signal.Signals) -> None:
    if number == signal.SIGINT:
        head.ctrl_c()
    else:
        head.send(number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a082_interrupted_experiment_keeps_its_newest_policy(
    endless: Endless, number: signal.Signals
) -> None:
    endless.works()
    end(endless.head, number)
    assert endless.head.end() == 128 + number
    assert "Traceback" not in endless.head.err
    check_interrupted(endless.place.runs / "1")
    nothing_is_left(endless)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a082_interrupted_while_it_starts(endless: Endless, number: signal.Signals) -> None:
    """The workers are being started, torch is being imported: nothing is there to be saved."""
    wait_until(lambda: len(endless.place.processes()) >= 4, endless.head)
    end(endless.head, number)
    assert endless.head.end() == 128 + number
    assert "Traceback" not in endless.head.err
    nothing_is_left(endless)
    assert record(endless.place.runs / "1", "run")["status"] == "INTERRUPTED"


def test_killed_experiment_leaves_nothing(endless: Endless) -> None:
    endless.works()
    endless.head.send(signal.SIGKILL)
    endless.head.end()
    nothing_is_left(endless)


def test_failing_environment_ends_the_experiment_in_one_line() -> None:
    with Place() as place:
        (place.folder / "fire.py").write_text(FAILING)
        place.env["PYTHONPATH"] = str(place.folder)
        words = setting(env_name="fire:Failing-v0", num_workers=1, noise_size=100_000)
        head = place.start(EXPERIMENT, "with", *words)
        assert head.end() == 1
        told = [line for line in head.err.splitlines() if line.startswith("store.")]
        assert len(told) == 1
        assert "the motor is on fire" in told[0]
        assert record(place.runs / "1", "run")["status"] == "FAILED"
        assert place.leftovers() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a082_server_and_workers_of_ones_own(number: signal.Signals) -> None:
    """The three terminals end as cleanly, each for itself."""
    with Place() as place:
        server = place.server()
        workers = place.start(WORKER, "start-workers", "--num_workers=2", "--preload=")
        place.has_workers(2)
        end(workers, number)
        assert workers.end() == (-number if number == signal.SIGKILL else 0)
        wait_until(lambda: len(place.processes()) == 4, place.processes())
        end(server, number)
        assert server.end() == (-number if number == signal.SIGKILL else 0)
        wait_until(lambda: not place.processes(), place.processes())
        assert not list(place.temporary.glob("evo-*"))
        if number != signal.SIGKILL:
            assert place.leftovers() == []
            assert "Traceback" not in server.err + workers.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a082_a_machine(number: signal.Signals) -> None:
    """Its server, relay and workers end with their keeper; also workers that never return."""
    with Site() as site:
        (site.folder / "stuck.py").write_text(STUCK)
        site.env["PYTHONPATH"] = str(site.folder)
        before = set(site.processes())
        machine = site.machine()
        machine.works()
        head = site.start(EXPERIMENT, "with", "sphere", *setting(env_name="stuck:Stuck-v0"))
        wait_until((site.folder / "stuck").exists, head)
        head.send(signal.SIGKILL)
        head.end()
        end(machine.command, number)
        assert machine.command.end() == (-number if number == signal.SIGKILL else 0)
        wait_until(lambda: set(site.processes()) <= before, site.processes(), seconds=30)
        assert not list(site.folder.glob("*.sock"))
        assert len(list(site.temporary.glob("evo-*"))) == 1  # the head's server
        assert "Traceback" not in machine.command.err
        wait_until(lambda: machine.statement() is None, machine.command)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a082_mirror_relay_and_workers(number: signal.Signals) -> None:
    with Site() as site:
        before = set(site.processes())
        commands = [
            site.start(WORKER, "run-mirror"),
            site.start(WORKER, "run-relay"),
            site.start(WORKER, "start-workers", "--force_relay", "--num_workers=2", "--preload="),
        ]
        wait_until(lambda: site.alive() == 2, commands)
        for command in commands:
            end(command, number)
        for command in commands:
            assert command.end() == (-number if number == signal.SIGKILL else 0)
            assert "Traceback" not in command.err
        wait_until(lambda: set(site.processes()) <= before, site.processes(), seconds=30)
        assert len(list(site.temporary.glob("evo-*"))) == 1  # the head's server
        notes = [path.name for path in site.runtime.glob("*/*")]
        # of a killed one stays a note, which nobody believes
        assert sorted(notes) == ["mirror.json", "server.json"][number != signal.SIGKILL :]
