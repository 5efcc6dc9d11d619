"""Workers that are checked on one another: a liar is found, named, and changes nothing."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from conftest import Crew
from test_evaluators import PROBLEMS, Stage, check

from cluster.clients import WorkerClient
from cluster.keys import Keys, workers_alive
from evolution import evaluation, redis_evaluator
from evolution.evaluation import LocalEvaluator, Part, PieceRunner
from evolution.exchange import lookout
from evolution.exchange.audit import Audit, Said, said_of_each
from evolution.exchange.messages import Rows
from evolution.noise import NoiseTable


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_evaluator, "TICK", 0.02)
    monkeypatch.setattr(lookout, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(lookout, "COPY_SECONDS", 1e6)


@pytest.fixture
def stage(
    crew: Crew, noise: NoiseTable, make_task: Callable[[int, int, NoiseTable], list[Part]]
) -> Stage:
    return Stage(crew, noise, make_task)


def lie() -> None:
    """As a processor does that computes wrongly."""
    honest = PieceRunner.evaluate

    def evaluate(
        self: PieceRunner, parts: Sequence[Part], pieces: Sequence[int]
    ) -> tuple[np.ndarray, np.ndarray]:
        fitness, steps = honest(self, parts, pieces)
        return np.nextafter(fitness, np.float32(np.inf), dtype=np.float32), steps

    evaluation.PieceRunner.evaluate = evaluate  # type: ignore[method-assign]


def test_one_of_four_workers_lies_and_nothing_changes(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    sphere = PROBLEMS["sphere"]()
    tasks = [stage.reference(sphere, seed) for seed in range(12)]
    stage.crew.start(3)
    stage.crew.start(1, lie)
    with stage.head(sphere, audit=0.1) as evaluator:
        lies = 0
        for task, right in tasks:
            check(evaluator.evaluate(task), right)
            lies += "worker-3 gave a wrong result" in caplog.text
            if "worker-3 refuses this run" in caplog.text:
                break
        assert lies
        able = {each["name"] for each in workers_alive(stage.db, Keys()) if each["workers"]}
        assert able == {"worker-0", "worker-1", "worker-2"}
        check(evaluator.evaluate(task), right)


def test_what_a_liar_says_beside_the_lie_that_finds_it_out_is_forgotten(stage: Stage) -> None:
    """Asked to check a piece, it lies of that, and in the same answer of a new one."""
    sphere = PROBLEMS["sphere"]()
    task, right = stage.reference(sphere)
    runner = PieceRunner(sphere, stage.noise)

    def answer(worker: str, *pieces: int, lie: float = 0.0) -> None:
        client = WorkerClient(stage.db, worker, Keys())
        assert client.run_spec("run")
        fitness, steps = runner.evaluate(task, pieces)
        said = fitness + np.float32(lie), steps.astype(np.int32)
        rows = Rows(np.array(pieces, np.int32), *said, 0.5, 0.125)
        client.push("run", {"task": 0, **rows.to_fields()})

    with stage.head(sphere, audit=0.1) as evaluator:
        answer("honest", 0)
        answer("liar", 0, 1, lie=1.0)
        answer("other", *range(12))
        answer("honest", *range(12))
        check(evaluator.evaluate(task), right)
    runner.close()


def test_all_are_honest_and_a_share_is_done_twice(stage: Stage) -> None:
    sphere = PROBLEMS["sphere"]()
    tasks = [stage.reference(sphere, seed) for seed in range(10)]
    stage.crew.start(2)
    audited = 0.0
    with stage.head(sphere, audit=0.25) as evaluator:
        for task, right in tasks * 3:
            check(evaluator.evaluate(task), right)
            audited += evaluator.metrics()["results audited"]
            assert evaluator.metrics()["messages rejected"] == 0
    assert 0.15 < audited / (17 * 30) < 0.35


def test_a_worker_alone_is_not_waited_for(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    sphere = PROBLEMS["sphere"]()
    task, right = stage.reference(sphere)
    stage.crew.start(1)
    with stage.head(sphere, audit=1.0) as evaluator:
        check(evaluator.evaluate(task), right)


def test_this_process_judges(noise: NoiseTable, stage: Stage) -> None:
    sphere = PROBLEMS["sphere"]()
    task, (first, *_) = stage.reference(sphere)
    fitness, steps = first.fitness[:2], first.steps[:2].astype(np.int32)
    right = Said("honest", fitness.tobytes(), steps.tobytes())
    wrong = Said("liar", (fitness + 1).tobytes(), steps.tobytes())
    other = Said("other", fitness.tobytes(), (steps + 1).tobytes())
    for said, same, caught in (
        (right, right, []),
        (right, wrong, ["liar"]),
        (wrong, right, ["liar"]),
        (other, wrong, ["other", "liar"]),
    ):
        audit = Audit(0.5, PieceRunner(sphere, noise))
        assert audit.judge(task, 0, said, same) == caught
        assert audit.liars == set(caught)
        audit.close()


def test_what_is_said_of_each_piece() -> None:
    fitness, steps = np.arange(5, dtype=np.float32), np.arange(5, dtype=np.int32)
    rows = Rows(np.array([0, 2, 3], np.int32), fitness, steps, 1.0, 0.0)
    said = said_of_each("w", rows, np.array([2, 2, 1, 2]))
    assert list(said) == [0, 2, 3]
    assert said[2] == Said("w", fitness[2:3].tobytes(), steps[2:3].tobytes())
    assert said[3] == Said("w", fitness[3:].tobytes(), steps[3:].tobytes())


def test_every_worker_is_checked_at_once_and_then_by_share(noise: NoiseTable) -> None:
    sphere = PROBLEMS["sphere"]()
    with LocalEvaluator(sphere, noise):
        audit = Audit(0.1, PieceRunner(sphere, noise))
    assert len(audit.choose("a", [4])) == 1
    assert len(audit.choose("b", range(4, 9))) == 1
    chosen = [audit.choose("a", range(10)) for _ in range(20)]
    assert all(len(each) in (0, 1, 2) for each in chosen)
    assert sum(map(len, chosen)) == 20
    audit.close()
