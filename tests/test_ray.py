"""Ray's actors evaluate as everybody does; a cluster is only there if somebody asks for it."""

import contextlib
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from algorithms import EXPERIMENTS, found, found_alone
from commands import (
    HAS_PROC,
    NEVERGRAD,
    Place,
    noise_file,
    run_here,
    setting,
    wait_until,
)
from test_anchors import random_genome, task_of
from test_evaluators import PROBLEMS, MakeTask, check, linear

from cluster.redis_server import ServerError
from evolution import ray_cluster
from evolution.evaluation import Evaluations, LocalEvaluator, Part
from evolution.exchange.lookout import WorkerFailure
from evolution.noise import NoiseTable
from evolution.problem import Problem
from evolution.ray_cluster import check_ray, open_cluster
from nevergrad_es.experiment import ex as nevergrad

if TYPE_CHECKING:
    from evolution.ray_evaluator import RayEvaluator

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None,
    reason="Ray is not installed: pip install -r requirements-ray.txt",
)
pytestmark = [pytest.mark.slow, pytest.mark.alone]  # a Ray takes seconds to start
NOBODY = "127.0.0.1:1"  # a port where nothing listens
SECONDS = 60.0  # that a generation may last, on a busy machine
BROKEN = """
import gymnasium as gym
import numpy as np

class Broken(gym.Env):
    observation_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        return np.ones(1, np.float32), {}

    def step(self, action):
        raise ValueError("broken on purpose")

gym.register("Broken-v0", Broken)
"""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A private Ray of two CPUs, whose nodes know a module of the user's."""
    folder = tmp_path_factory.mktemp("modules")
    (folder / "broken.py").write_text(BROKEN)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder))
        patch.syspath_prepend(folder)
        with ray_cluster._private(2) as address:
            yield address


@pytest.fixture(scope="module")
def driver(address: str) -> Iterator[None]:
    with open_cluster(address, 0):
        yield


def start(problem: Problem, noise: NoiseTable, count: int | None, **more: Any) -> "RayEvaluator":
    """An evaluator that waits for an answer no longer than a test may."""
    from evolution.ray_evaluator import RayEvaluator

    deadline, watch = time.monotonic() + SECONDS, more.pop("watch", lambda: None)

    def watch_for_long() -> None:
        assert time.monotonic() < deadline, "the generation does not end"
        watch()

    settings = {"num_workers": count, "min_seconds": 0.0, "watch": watch_for_long, **more}
    return RayEvaluator(problem, noise, **settings)


def alone(problem: Problem, noise: NoiseTable, task: Sequence[Part]) -> list[Evaluations]:
    with LocalEvaluator(problem, noise) as local:
        return local.evaluate(task)


def who(got: Sequence[Evaluations]) -> set[int]:
    return set(np.concatenate([part.worker for part in got]).tolist())


# --- the bits


@needs_ray
@pytest.mark.parametrize(
    ("name", "count"), [("sphere", 1), ("sphere", 2), ("lander on envpool", 2), ("recurrent", None)]
)
def test_every_evaluator_gives_the_same_bits(
    name: str, count: int | None, driver: None, noise: NoiseTable, make_task: MakeTask
) -> None:
    """None: as many actors as there are CPUs that are free, here two."""
    problem = PROBLEMS[name]()
    dim, workers = problem.make_policy().num_params, count or 2
    tasks = [make_task(dim, seed, noise) for seed in (0, 1)]
    right = [alone(problem, noise, task) for task in tasks]
    with start(problem, noise, count) as evaluator:
        seen, deadline = set[int](), time.monotonic() + SECONDS
        while len(seen) < workers:  # until each actor has had a part in it
            assert time.monotonic() < deadline, f"only {seen} of {workers} workers"
            for task, expected in zip(tasks, right, strict=True):
                got = evaluator.evaluate(task)
                check(got, expected)
                seen |= who(got)
        metrics = evaluator.metrics()
        assert metrics["results skipped"] == metrics["messages rejected"] == 0
        assert metrics["workers alive"] == workers
        assert metrics["machines alive"] == 1
        assert metrics["time_to_obtain"] > 0
        assert seen == set(range(1, workers + 1))
        rows = np.concatenate([each.rows for each in evaluator.answers() if each.age == 0])
        assert sorted(rows) == list(range(sum(len(part.population) for part in tasks[1])))


@needs_ray
def test_tasks_overlap_and_are_forgotten(
    driver: None, noise: NoiseTable, make_task: MakeTask
) -> None:
    problem = PROBLEMS["sphere"]()
    tasks = [make_task(20, seed, noise) for seed in range(4)]
    right = [alone(problem, noise, task) for task in tasks]
    with start(problem, noise, 2) as evaluator:
        for task in tasks[:3]:
            evaluator.submit(task)
        place, got = evaluator.gather_any()
        check(got, right[place])
        left = [number for number in range(3) if number != place]
        check(evaluator.gather(), right[left[0]])
        evaluator.discard()
        check(evaluator.evaluate(tasks[3]), right[3])


@needs_ray
def test_genomes_are_told_by_anchors_that_are_put_once(driver: None, noise: NoiseTable) -> None:
    problem = PROBLEMS["lander"]()
    shapes = np.array([[2, 8], [2, 0]])
    genomes = [random_genome(200), (*random_genome(200), 5), random_genome(20, seed=1)]
    task = task_of(genomes, shapes)
    right = alone(problem, noise, task)
    with start(problem, noise, 2) as evaluator:
        check(evaluator.evaluate(task), right)
        (first,) = evaluator._supplies.values()
        check(evaluator.evaluate(task), right)
        (second,) = evaluator._supplies.values()
        assert first == second
        plain = task_of([(3,)], shapes)
        check(evaluator.evaluate(plain), alone(problem, noise, plain))
        assert evaluator._supplies == {}


@needs_ray
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a018_actors_find_what_one_process_finds(
    name: str, count: int, address: str, driver: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_cluster, "_knock", lambda address: None)  # saves seconds
    where = {"evaluator": "ray", "ray_address": address, "num_workers": count}
    assert found(name, **where) == found_alone(name)


# --- faults


@needs_ray
def test_a_worker_that_is_killed_in_mid_task_changes_nothing(
    driver: None,
    noise: NoiseTable,
    make_task: MakeTask,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    from evolution import ray_evaluator

    monkeypatch.setattr(ray_evaluator, "LOOK_SECONDS", 0.0)
    problem = PROBLEMS["lander"]()
    task = make_task(18, 0, noise)
    right = alone(problem, noise, task)
    made, killed = list["RayEvaluator"](), list[int]()

    def kill_one_at_work() -> None:
        for worker in made[0]._ready() if made and not killed else ():
            if worker.asked:
                killed.append(int(worker.name.rpartition("-")[2]))
                os.kill(killed[0], signal.SIGKILL)
                return

    with start(problem, noise, 2, watch=kill_one_at_work) as evaluator:
        made.append(evaluator)
        for _ in range(2):
            check(evaluator.evaluate(task), right)
        wait_until(lambda: evaluator.evaluate(task) and len(evaluator._ready()) == 2, "another")
    assert len(killed) == 1
    assert "is lost: asking again for" in caplog.text


@needs_ray
def test_a_workers_error_is_told_in_its_own_words(
    driver: None, noise: NoiseTable, make_task: MakeTask
) -> None:
    problem = linear("broken:Broken-v0")
    task = make_task(problem.make_policy().num_params, 0, noise)
    with (
        start(problem, noise, 1) as evaluator,
        pytest.raises(WorkerFailure, match=r"^worker \S+-\d+: ValueError: broken on purpose$"),
    ):
        evaluator.evaluate(task)


@needs_ray
def test_a015_workers_that_disagree_refuse_the_run(
    driver: None, noise: NoiseTable, make_task: MakeTask
) -> None:
    problem = replace(PROBLEMS["sphere"](), versions={"numpy": "0.1"})
    with (
        start(problem, noise, 1) as evaluator,
        pytest.raises(WorkerFailure, match="all workers refuse the run: this worker has numpy"),
    ):
        evaluator.evaluate(make_task(20, 0, noise))


# --- the cluster


@needs_ray
def test_a091_use_ray_starts_a_private_ray_and_leaves_nothing() -> None:
    """Two runs: one ends by itself, the other's head is killed."""
    size, seed = 50_000, os.getpid()
    words = ["num_processors=2", f"noise_size={size}", f"noise_seed={seed}"]
    with Place() as place:
        # Short, so that Ray's sockets fit in; and what tells the place's processes from others.
        place.env |= {"TMPDIR": str(place.folder), "PLACE": str(place.temporary)}
        config = {"noise_size": size, "noise_seed": seed, "num_generations": 2, "seed": 1}
        names = [*setting(use_ray=True, num_processors=1, **config), "-F", str(place.runs)]
        short = place.start(NEVERGRAD, "with", "sphere", *names)
        alone = run_here("sphere", experiment=nevergrad, evaluator="local", **config)
        digest = alone.info["theta sha256"]
        assert f"theta sha256 {digest}" in short.succeed()
        assert not noise_file(size, seed).exists()
        assert not list(place.folder.glob("evo-ray-*"))
        wait_until(lambda: not HAS_PROC or not place.leftovers(), place)
        words += ["use_ray=True", "num_generations=10000000", "-F", str(place.runs)]
        endless = place.start(NEVERGRAD, "with", "sphere", *words)
        endless.says("generation 1/")
        wait_until(lambda: endless.err.count("of the Ray cluster is ready") == 2, endless)
        (folder,) = place.folder.glob("evo-ray-*")
        assert folder.stat().st_mode & 0o077 == 0
        assert listens_elsewhere(place) == []
        endless.send(signal.SIGKILL)
        endless.end()
        wait_until(lambda: not folder.exists() and not place.leftovers(), place)


LOOPS = {"0100007F", "0" * 24 + "01000000", "0" * 16 + "FFFF00000100007F"}  # as /proc writes them


def listens_elsewhere(place: Place) -> list[str]:
    """Addresses other than this machine's own loop at which a process of a place listens."""
    sockets = set()
    for pid in place.processes():
        with contextlib.suppress(OSError):  # it has just ended
            sockets |= {os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()}
    lines = [line.split() for name in ("tcp", "tcp6") for line in _sockets(name)]
    listening = [words for words in lines if words[3] == "0A" and f"socket:[{words[9]}]" in sockets]
    assert listening
    return [words[1] for words in listening if words[1].partition(":")[0] not in LOOPS]


def _sockets(name: str) -> list[str]:
    return Path(f"/proc/net/{name}").read_text().splitlines()[1:]


# --- bad input


@needs_ray
def test_a_cluster_that_refuses_the_token(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "00" * 32)
    with pytest.raises(ServerError, match=f"cannot join the Ray cluster at {address}: .*oken"):
        check_ray(address)


@needs_ray
def test_a_cluster_of_another_version(address: str) -> None:
    program = """
import sys
import ray
from cluster.redis_server import ServerError
from evolution.ray_evaluator import connect
ray.__version__ = "1.0"
try:
    connect(sys.argv[1])
except ServerError as error:
    sys.exit(str(error))
"""
    command = [sys.executable, "-c", program, address]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"cannot join the Ray cluster at {address}: RuntimeError: Version m" in done.stderr
    assert "Ray: 1.0" in done.stderr


@needs_ray
def test_an_address_that_never_says_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_cluster, "JOIN_SECONDS", 4.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(ServerError, match=f"{address} has not let us in within 4 s"):
            check_ray(address)
