"""Generations that are asked ahead: a fixed rule, hence the same bits, and a run that can go on."""

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from conftest import Crew

from cluster.clients import WorkerClient
from cluster.keys import Keys
from cluster.redis_server import connect
from es.openai_es import OpenAIES
from evolution.evaluation import Evaluator, LocalEvaluator, Part, PieceRunner
from evolution.exchange.messages import Rows
from evolution.loop import STOP_WINDOW, Generation, History, evolve
from evolution.noise import NoiseTable
from evolution.population import Mirrored
from evolution.problem import choose_problem
from evolution.redis_evaluator import RedisEvaluator
from evolution.seeding import Seeding
from store.checkpoint import Checkpoints

POLICY = {"hidden_sizes": [], "output_activation": "none"}
PROBLEM = choose_problem(env_name="Sphere-v0", policy_kwargs=POLICY)
GENERATIONS = 8


def make(noise: NoiseTable) -> OpenAIES:
    return OpenAIES(np.ones(20, np.float32), noise, pop_size=10, sigma=0.1, lr=0.1)


def play(
    strategy: OpenAIES,
    evaluator: Evaluator,
    overlap: int,
    history: History | None = None,
    stop_fitness: float | None = None,
) -> Iterator[Generation]:
    return evolve(
        strategy,
        evaluator,
        generations=GENERATIONS,
        episodes=2,
        eval_episodes=2,
        seeding=Seeding(5),
        stop_fitness=stop_fitness,
        history=history,
        overlap=overlap,
    )


def thetas(run: Iterator[Generation]) -> list[bytes]:
    return [generation.theta.tobytes() for generation in run]


@pytest.mark.parametrize("overlap", [0, 1, 3, 20])
def test_a_generation_is_asked_so_many_updates_before_its_own(
    overlap: int, noise: NoiseTable
) -> None:
    strategy, updated = make(noise), list[bytes]()
    with LocalEvaluator(PROBLEM, noise) as evaluator:
        updated.append(strategy.theta.tobytes())
        seen = []
        for generation in play(strategy, evaluator, overlap):
            seen.append(generation.theta.tobytes())
            updated.append(strategy.theta.tobytes())
    assert len(set(updated)) == GENERATIONS + 1
    assert seen == [updated[max(0, number - overlap)] for number in range(GENERATIONS)]


@pytest.mark.parametrize("overlap", [1, 2])
def test_the_same_bits_for_any_evaluator(overlap: int, noise: NoiseTable, crew: Crew) -> None:
    with LocalEvaluator(PROBLEM, noise) as local:
        right = thetas(play(make(noise), local, overlap))
    for count in (1, 2):
        crew.start(1)
        server = connect(crew.url)
        with RedisEvaluator(server, PROBLEM, noise, run_id=f"run-{count}") as evaluator:
            assert thetas(play(make(noise), evaluator, overlap)) == right
            assert evaluator.metrics()["results skipped"] == 0
    assert [key for key in server.scan_iter("evo:*") if b"worker" not in key] == []


@pytest.mark.parametrize("overlap", [0, 1, 2])
@pytest.mark.parametrize("stop", [1, 4, GENERATIONS - 1])
def test_a106_a_run_goes_on_with_what_it_had_asked(
    overlap: int, stop: int, noise: NoiseTable, tmp_path: Any
) -> None:
    with LocalEvaluator(PROBLEM, noise) as evaluator:
        whole = make(noise)
        right = thetas(play(whole, evaluator, overlap))
        first, history = make(noise), History()
        seen = []
        for generation in play(first, evaluator, overlap, history):
            seen.append(generation.theta.tobytes())
            if generation.number + 1 == stop:
                break
        state = {"strategy": copy.deepcopy(first.state()), "history": history.state()}
        evaluator.discard()
    Checkpoints(tmp_path).save(stop, state)
    _, state = Checkpoints(tmp_path).newest()
    second, history = make(noise), History()
    second.restore(state["strategy"])
    history.restore(state["history"])
    with LocalEvaluator(PROBLEM, noise) as evaluator:
        seen += thetas(play(second, evaluator, overlap, history))
    assert seen == right
    assert second.theta.tobytes() == whole.theta.tobytes()


def test_what_was_asked_in_vain_is_taken_back(noise: NoiseTable, crew: Crew) -> None:
    """A run at its goal has generations on their way, and then its last theta is assessed."""
    crew.start(1)
    goal, history = -1e6, History()
    history.recent.extend([0.0] * (STOP_WINDOW - 1))
    with RedisEvaluator(connect(crew.url), PROBLEM, noise, run_id="run") as evaluator:
        run = play(make(noise), evaluator, 3, history, stop_fitness=goal)
        assert [generation.number for generation in run] == [0]
        population = Mirrored(np.zeros(20, np.float32), 0.1, np.arange(2))
        (got,) = evaluator.evaluate([Part(population, np.zeros((2, 1), np.int64))])
        assert got.fitness.shape == (4,)
        assert evaluator.metrics()["messages rejected"] == 0


class Answering:
    """A worker in this process, which answers what it is told to."""

    def __init__(self, noise: NoiseTable, crew: Crew) -> None:
        self._client = WorkerClient(connect(crew.url), "w", Keys())
        self._runner = PieceRunner(PROBLEM, noise)
        population = Mirrored(np.zeros(20, np.float32), 0.1, np.arange(2))
        self.task = [Part(population, np.zeros((2, 1), np.int64))]

    def answer(self, number: int, piece: int) -> None:
        assert self._client.run_spec("run")
        fitness, steps = self._runner.evaluate(self.task, [piece])
        pieces = np.array([piece], np.int32)
        rows = Rows(pieces, fitness, steps.astype(np.int32), 0.1, 0.1)
        self._client.push("run", {"task": number, **rows.to_fields()})


@pytest.fixture
def worker(noise: NoiseTable, crew: Crew) -> Answering:
    return Answering(noise, crew)


def test_answers_are_counted_with_their_generation_however_early(
    noise: NoiseTable, crew: Crew, worker: Answering
) -> None:
    """A head that is killed goes on with the generations it had asked, and asks all of them."""
    with RedisEvaluator(connect(crew.url), PROBLEM, noise, run_id="run") as evaluator:
        evaluator.submit(worker.task)
        evaluator.submit(worker.task)
        for number, piece in ((1, 0), (0, 0), (1, 1), (0, 1)):
            worker.answer(number, piece)
        for generation in range(2):
            evaluator.gather()
            results = [r for each in evaluator.answers() for r in each.results(generation, 0.0)]
            assert [(r.generation, r.candidate, r.valid) for r in results] == [
                (generation, candidate, True) for candidate in range(4)
            ]


def test_a073_a_server_comes_back_when_a_later_generation_is_complete(
    noise: NoiseTable, crew: Crew, worker: Answering
) -> None:
    looks = 0

    def be_away_once() -> None:
        nonlocal looks
        looks += 1
        evaluator._away |= looks == 1
        assert looks < 20, "it never comes back"
        worker.answer(0, 1)

    server = connect(crew.url)
    with RedisEvaluator(server, PROBLEM, noise, run_id="run", watch=be_away_once) as evaluator:
        evaluator.submit(worker.task)
        evaluator.submit(worker.task)
        for number, piece in ((1, 0), (1, 1), (0, 0)):
            worker.answer(number, piece)
        assert len(evaluator.gather()) == len(evaluator.gather()) == 1
