"""Whoever evaluates a task, and whatever happens meanwhile, the result is the same bits."""

import os
import pickle
import re
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from conftest import FORK, WAIT_SECONDS, Crew, WaitFor
from test_wire import Canary

from cluster.clients import AnotherHeadError, WorkerClient
from cluster.keys import Keys, head_status
from cluster.redis_server import connect
from cluster.wire import pack
from env import envpool_engine
from evolution import noise as noise_module
from evolution import problem as problem_module
from evolution import redis_evaluator
from evolution.evaluation import Evaluations, LocalEvaluator, Part, PieceRunner
from evolution.exchange import lookout
from evolution.exchange.lookout import WorkerFailure
from evolution.exchange.messages import Rows
from evolution.noise import NoiseTable
from evolution.problem import Problem, choose_problem
from evolution.redis_evaluator import RedisEvaluator

MakeTask = Callable[[int, int, NoiseTable], list[Part]]
KEYS = Keys()


def linear(env_name: str, **kwargs: Any) -> Problem:
    return choose_problem(env_name=env_name, policy_kwargs={"hidden_sizes": []}, **kwargs)


PROBLEMS: dict[str, Callable[[], Problem]] = {
    "sphere": lambda: linear("Sphere-v0"),
    "lander": lambda: linear("LunarLanderContinuous-v3", engine="gymnasium", max_steps=50),
    "lander on envpool": lambda: linear("LunarLanderContinuous-v3", engine="envpool", max_steps=50),
    "recurrent": lambda: choose_problem(
        env_name="PartiallyObservablePendulum-v0",
        engine="gymnasium",
        network="lstm",
        policy_kwargs={"hidden_sizes": [3], "output_activation": "gaussian"},
        max_steps=20,
    ),
}


class Walk(gym.Env):
    """Pays random sums for a random time; each process may be told to misbehave in it."""

    observation_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    steps = 0
    killed_at = -1
    broken = False

    @classmethod
    def die_at(cls, step: int) -> None:
        cls.steps, cls.killed_at = 0, step

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple:
        super().reset(seed=seed)
        return np.ones(1, np.float32), {}

    def step(self, action: np.ndarray) -> tuple:
        Walk.steps += 1
        if Walk.steps == self.killed_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.broken:
            raise ValueError("broken on purpose")
        reward = self.np_random.random() + float(action[0])
        return np.ones(1, np.float32), reward, self.np_random.random() < 0.1, False, {}


@pytest.fixture
def walk() -> Iterator[Problem]:
    gym.register("Walk-v0", entry_point=lambda **_: Walk())
    yield linear("Walk-v0")
    del gym.registry["Walk-v0"]


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look around often; and unless a test is about lost tickets, not one may be lost."""
    monkeypatch.setattr(redis_evaluator, "TICK", 0.02)
    monkeypatch.setattr(lookout, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(lookout, "PATIENCE", 1e6)
    monkeypatch.setattr(lookout, "COPY_SECONDS", 1e6)


class Stage:
    """A server, its workers, and what tasks must give."""

    def __init__(self, crew: Crew, noise: NoiseTable, make_task: MakeTask) -> None:
        self.crew, self.noise, self._make_task = crew, noise, make_task
        self.db = connect(crew.url)

    def head(self, problem: Problem, run_id: str = "run", **settings: Any) -> RedisEvaluator:
        deadline = time.monotonic() + WAIT_SECONDS
        watch = settings.pop("watch", lambda: None)

        def watch_for_long() -> None:
            assert time.monotonic() < deadline, "the generation does not end"
            watch()

        settings |= {"run_id": run_id, "min_seconds": 0.0, "watch": watch_for_long}
        return RedisEvaluator(self.db, problem, self.noise, **settings)

    def reference(self, problem: Problem, seed: int = 0) -> tuple[list[Part], list[Evaluations]]:
        """A task, and what it must give."""
        task = self._make_task(problem.make_policy().num_params, seed, self.noise)
        with LocalEvaluator(problem, self.noise) as local:
            return task, local.evaluate(task)


@pytest.fixture
def stage(crew: Crew, noise: NoiseTable, make_task: MakeTask) -> Stage:
    return Stage(crew, noise, make_task)


def check(got: Sequence[Evaluations], right: Sequence[Evaluations]) -> None:
    for one, other in zip(got, right, strict=True):
        assert one.fitness.dtype == other.fitness.dtype == np.float32
        assert one.steps.dtype == other.steps.dtype == np.int64
        assert one.fitness.tobytes() == other.fitness.tobytes()
        assert one.steps.tobytes() == other.steps.tobytes()
        assert one.episodes == other.episodes
        assert one.worker.shape == one.seconds.shape == one.fitness.shape
        assert (one.seconds >= 0).all()


@pytest.mark.parametrize("name", PROBLEMS)
def test_every_evaluator_gives_the_same_bits(name: str, stage: Stage) -> None:
    if "envpool" in name and not envpool_engine.is_installed():
        pytest.skip("EnvPool is not installed")
    problem = PROBLEMS[name]()
    tasks = [stage.reference(problem, seed) for seed in (0, 1)]
    first = tasks[0][1]
    assert len(np.unique(np.concatenate([part.fitness for part in first]))) > 8
    assert [part.episodes for part in first] == [2, 1, 3]
    for count in (1, 2, 3):
        stage.crew.start(1)
        with stage.head(problem, f"run-{count}") as evaluator:
            seen, deadline = set[int](), time.monotonic() + WAIT_SECONDS
            while len(seen) < count:  # until each worker has had a part in it
                assert time.monotonic() < deadline, f"only {seen} of {count} workers"
                for task, right in tasks:
                    got = evaluator.evaluate(task)
                    check(got, right)
                    seen |= set(np.concatenate([part.worker for part in got]).tolist())
            metrics = evaluator.metrics()
            assert metrics["results skipped"] == metrics["frac. results skipped"] == 0
            assert metrics["messages rejected"] == 0
            assert metrics["time_to_obtain"] > 0
            assert seen == set(range(1, count + 1))


@pytest.mark.parametrize("share_of_steps", [0.01, 0.4, 0.9])
def test_a073_a_worker_killed_in_mid_task_changes_nothing(
    share_of_steps: float,
    walk: Problem,
    stage: Stage,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    task, right = stage.reference(walk)
    total = sum(int(part.steps.sum()) for part in right)
    monkeypatch.setattr(lookout, "PATIENCE", 0.05)
    doomed = 1 + int(share_of_steps * total)
    stage.crew.start(1, lambda: Walk.die_at(doomed))

    def replace_the_dead() -> None:
        if len(stage.crew.processes) == 1 and not stage.crew.processes[0].is_alive():
            stage.crew.start(1)

    with stage.head(walk, watch=replace_the_dead) as evaluator:
        check(evaluator.evaluate(task), right)
        check(evaluator.evaluate(task), right)
    assert stage.crew.processes[0].exitcode == -signal.SIGKILL
    assert "asking again for" in caplog.text


def test_a073_flushed_keys_are_posted_again(
    walk: Problem, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And garbage in their place does no harm."""
    task, right = stage.reference(walk)
    monkeypatch.setattr(lookout, "PATIENCE", 0.05)
    db, looks = stage.db, 0

    def spoil() -> None:
        nonlocal looks
        looks += 1
        if looks == 1:
            db.delete(*db.keys())
            db.mset({KEYS.run: b"garbage", KEYS.task("run", 0): b"\0garbage"})
            db.rpush(KEYS.tickets, "run/0#1+1", b"\xffgarbage", "elsewhere/5#1+1")
            stage.crew.start(1)

    with stage.head(walk, watch=spoil) as evaluator:
        check(evaluator.evaluate(task), right)
    assert stage.crew.processes[0].is_alive()


def test_a077_only_sound_new_rows_count(walk: Problem, stage: Stage, tmp_path: Path) -> None:
    """The results are there before the head asks; 12 pieces, the first five are pairs."""
    task, right = stage.reference(walk)
    client = WorkerClient(stage.db, "w", KEYS)
    runner = PieceRunner(walk, stage.noise)

    def rows(*pieces: int, lie: float = 0.0) -> dict[str, Any]:
        fitness, steps = runner.evaluate(task, pieces)
        numbers = np.array(pieces, np.int32)
        answer = Rows(numbers, fitness + np.float32(lie), steps.astype(np.int32), 0.5, 0.125)
        return {"task": 0, **answer.to_fields()}

    with stage.head(walk) as evaluator:
        client.run_spec("run")
        client.push("run", rows(0, 3, 7))
        raw = [b"garbage", b"", pickle.dumps(Canary(tmp_path / "song")), b"evo\0\1\0"]
        stage.db.rpush(KEYS.results("run"), *raw)
        client.push("run", {**rows(1), "fitness": np.array([np.nan, 0], np.float32)})
        client.push("run", {**rows(1), "pieces": np.array([12], np.int32)})
        client.push("run", {"task": 0})
        client.push("run", rows(3, lie=9))  # 2 rows, answered twice
        client.push("run", rows(3, 4, 7, lie=0))  # 3 of them twice
        client.push("run", {**rows(1, lie=9), "task": 5})  # of a task that nobody posted
        client.push("run", {**rows(2, lie=9), "task": -1, "fitness": 5})
        stage.db.rpush(KEYS.results("run"), pack({**rows(5, 6, lie=9), "run": "run"}))  # no key
        client.push("run", rows(1, 2, 5, 6, 8, 9, 10, 11))
        check(evaluator.evaluate(task), right)
        metrics = evaluator.metrics()
    runner.close()
    assert metrics["messages rejected"] == 4 + 3 + 3
    assert metrics["results skipped"] == 2 + 3
    assert metrics["frac. results skipped"] == 5 / (5 + 17)
    assert metrics["time_to_obtain"] == 0.125
    assert not list(tmp_path.iterdir())


def test_a_workers_error_is_told_in_its_own_words(walk: Problem, stage: Stage) -> None:
    task, _ = stage.reference(walk)
    stage.crew.start(1, lambda: setattr(Walk, "broken", True))
    with (
        stage.head(walk) as evaluator,
        pytest.raises(WorkerFailure, match=r"^worker worker-0: ValueError: broken on purpose$"),
    ):
        evaluator.evaluate(task)
    sphere = PROBLEMS["sphere"]()  # the worker lives on, and serves the next run
    task, right = stage.reference(sphere)
    with stage.head(sphere, "next") as evaluator:
        check(evaluator.evaluate(task), right)


def other_noise(folder: Path) -> None:
    """As on a machine whose NumPy draws other numbers."""

    def fill(block: np.ndarray, number: int, seed: int) -> bytes:
        block[:] = number
        return b"other"

    noise_module._fill_block = fill
    noise_module._folder = lambda: folder


def other_versions(folder: Path) -> None:
    problem_module.versions = lambda name, env_id: {"numpy": "0.1"}


@pytest.fixture(
    params=[
        (other_noise, r"noise table \w{16} here, \w{16} at the head"),
        (other_versions, r"this worker has numpy 0.1 but the run needs .*numpy"),
    ],
    ids=["noise", "versions"],
)
def refusal(request: pytest.FixtureRequest, stage: Stage, tmp_path: Path) -> str:
    """Start a worker that cannot serve; returns why."""
    prepare, reason = request.param
    stage.crew.start(1, lambda: prepare(tmp_path))
    return reason


def test_a015_a_worker_that_disagrees_refuses_and_gives_the_ticket_back(
    refusal: str, stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    sphere = PROBLEMS["sphere"]()
    task, right = stage.reference(sphere)

    def help_out() -> None:
        refused = "worker-0 refuses this run" in caplog.text
        if len(stage.crew.processes) == 1 and refused and stage.db.llen(KEYS.tickets) == 12:
            stage.crew.start(1)

    with stage.head(sphere, watch=help_out) as evaluator:
        got = evaluator.evaluate(task)
    check(got, right)
    assert set(np.concatenate([part.worker for part in got]).tolist()) == {1}
    assert re.search(refusal, caplog.text)


def test_a015_the_head_gives_up_if_only_refusing_workers_can_be_expected(
    refusal: str, stage: Stage
) -> None:
    sphere = PROBLEMS["sphere"]()
    task, _ = stage.reference(sphere)
    with (
        stage.head(sphere, expect_others=False) as evaluator,
        pytest.raises(WorkerFailure, match=f"all workers refuse the run: {refusal}"),
    ):
        evaluator.evaluate(task)


def test_a_second_head_is_refused_and_the_first_works_on(stage: Stage) -> None:
    sphere = PROBLEMS["sphere"]()
    task, right = stage.reference(sphere)
    stage.crew.start(1)
    with stage.head(sphere, "first") as evaluator:
        check(evaluator.evaluate(task), right)
        with pytest.raises(AnotherHeadError, match="a head of run first is at work"):
            stage.head(sphere, "second")
        check(evaluator.evaluate(task), right)
    with stage.head(sphere, "third") as evaluator:
        check(evaluator.evaluate(task), right)


def test_a073_the_place_of_a_killed_head_is_taken_over(
    walk: Problem, stage: Stage, wait_for: WaitFor
) -> None:
    task, right = stage.reference(walk)
    first = FORK.Process(target=lambda: stage.head(walk, "first").evaluate(task))
    first.start()
    db = stage.db
    wait_for(lambda: db.llen(KEYS.tickets) == 12)
    first.kill()
    first.join()
    stage.crew.start(1)
    with stage.head(walk, "second") as evaluator:
        check(evaluator.evaluate(task), right)
        assert (head_status(db, KEYS) or {})["run"] == "second"
    late_answer = KEYS.results("first").encode()  # it expires
    assert set(db.keys()) - {late_answer} == {KEYS.worker("worker-0").encode()}


def test_a_head_that_was_suspended_while_it_looked_looks_again_soon(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, looks = 1000.0, 0
    monkeypatch.setattr(lookout, "time", SimpleNamespace(monotonic=lambda: now))

    def be_suspended_once() -> None:
        nonlocal now, looks
        now += 1000 if looks == 0 else 0
        looks += 1

    sphere = PROBLEMS["sphere"]()
    task, _ = stage.reference(sphere)
    with stage.head(sphere, watch=be_suspended_once) as evaluator:
        evaluator.submit(task)
        for _ in range(2):
            evaluator._lookout.look(evaluator._tasks[0])
            now += lookout.MOST_LOOK_SECONDS
    assert looks == 2


def test_a081_without_workers_the_head_says_so_and_waits(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sphere = PROBLEMS["sphere"]()
    task, right = stage.reference(sphere)
    fast = SimpleNamespace(monotonic=lambda: 100 * time.monotonic())
    monkeypatch.setattr(lookout, "time", fast)

    def come_late() -> None:
        if not stage.crew.processes and caplog.text.count("no worker is here; start some with") > 1:
            stage.crew.start(1)

    with stage.head(sphere, watch=come_late) as evaluator:
        check(evaluator.evaluate(task), right)
    assert "python es/worker.py start-workers" in caplog.text
