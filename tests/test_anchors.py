"""Genomes told by an anchor: the same bits and the same cost at any length, cold workers too."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from conftest import Crew
from test_deep_ga import SHAPES, by_hand
from test_evaluators import Stage, check

from cluster.clients import HeadClient, WorkerClient
from cluster.keys import Keys, flush
from cluster.tickets import cut
from cluster.wire import pack
from evolution import redis_evaluator
from evolution.anchors import Anchors
from evolution.decoder import SPACING, Decoder, Genome, Names, anchor_length, root_name
from evolution.evaluation import LocalEvaluator, Part
from evolution.exchange import lookout
from evolution.exchange.messages import Rows, task_fields, task_parts
from evolution.noise import NoiseTable
from evolution.population import Lineages
from evolution.problem import choose_problem

KEYS = Keys()
SIGMA = 0.1
LINEAR = {"hidden_sizes": [], "output_activation": "none"}


@pytest.fixture
def stage(crew: Crew, noise: NoiseTable, make_task: Callable, quick: None) -> Stage:
    return Stage(crew, noise, make_task)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look around often."""
    monkeypatch.setattr(redis_evaluator, "TICK", 0.02)
    monkeypatch.setattr(lookout, "LOOK_SECONDS", 0.02)


def task_of(genomes: list[Genome], shapes: np.ndarray = SHAPES, children: int = 3) -> list[Part]:
    """Some children of each genome, and the genome itself."""
    parents = np.repeat(np.arange(len(genomes)), children + 1)
    mutations = np.arange(len(parents)) * 7
    mutations[:: children + 1] = -1
    population = Lineages(
        shapes=shapes,
        sigma=SIGMA,
        parents=np.array([index for genome in genomes for index in genome], np.int64),
        lengths=np.array([len(genome) for genome in genomes]),
        parent_of=parents,
        mutations=mutations,
    )
    return [Part(population, np.arange(len(parents))[:, None])]


def random_genome(length: int, seed: int = 0) -> Genome:
    return tuple(np.random.default_rng(seed).integers(0, 100_000, length).tolist())


def tell(part: Part) -> Lineages:
    """The population as it arrives at a worker."""
    (told,) = task_parts(task_fields([part], share=1, min_seconds=0.0, max_seconds=1.0))
    assert isinstance(told.population, Lineages)
    return told.population


# --- the bits


@pytest.mark.parametrize("length", [1, 2, 31, 32, 33, 63, 64, 65, 95, 96, 97, 300, 1000])
def test_a030_a_cold_worker_writes_the_same_bits_in_64_additions(
    length: int, noise: NoiseTable
) -> None:
    genome = random_genome(length)
    (short,), supplies = Anchors(noise).abridged(task_of([genome]))
    told = tell(short)
    assert len(told.parents) < 2 * SPACING
    assert len(supplies) == (length >= 2 * SPACING)
    for row in range(4):
        cold = Decoder(noise, fetch=lambda name: supplies[name]())
        own = (*genome, row * 7) if row else genome
        (theta,) = told.thetas([row], cold)
        assert theta.tobytes() == by_hand(own, noise, SIGMA).tobytes()
        assert cold.additions <= 2 * SPACING


def test_an_anchor_is_so_far_back_that_a_cold_worker_has_little_to_do() -> None:
    for length in range(1, 2000):
        end = anchor_length(length)
        assert end % SPACING == 0
        assert length - end < 2 * SPACING
        assert end == 0 or length - end >= SPACING


def test_a_genome_has_one_name_whatever_anchor_it_is_told_by() -> None:
    genome, root = random_genome(200), root_name(SHAPES, SIGMA)
    whole = Names(genome, root)
    for end in (32, 96, 160):
        rest = Names(genome[end:], whole.at(end))
        assert [rest.at(n) for n in range(200 - end)] == [whole.at(n) for n in range(end, 200)]
    assert len({whole.at(end) for end in range(201)}) == 201
    assert Names(genome, root_name(SHAPES, 0.2)).at(7) != whole.at(7)
    assert Names(genome, root_name(SHAPES[:2], SIGMA)).at(7) != whole.at(7)


def test_a039_who_follows_a_lineage_adds_once_per_genome_and_fetches_no_anchor(
    noise: NoiseTable,
) -> None:
    """Five lineages over 300 generations, of which one survives now and then."""
    rng, anchors, fetched = np.random.default_rng(1), Anchors(noise), list[str]()
    supplies: dict[str, Callable[[], np.ndarray]] = {}

    def fetch(name: str) -> np.ndarray:
        fetched.append(name)
        return supplies[name]()

    worker = Decoder(noise, fetch=fetch)
    genomes = [random_genome(1, seed) for seed in range(5)]
    spent = []
    for _ in range(300):
        (short,), supplies = anchors.abridged(task_of(genomes))
        before = worker.additions
        told = tell(short)
        thetas = told.thetas(range(len(told)), worker)
        spent.append(worker.additions - before)
        assert thetas[-1].tobytes() == by_hand((*genomes[-1], 19 * 7), noise, SIGMA).tobytes()
        parents = rng.integers(5, size=5)
        genomes = [(*genomes[p], int(rng.integers(100_000))) for p in parents]
    assert max(spent) <= 5 * (1 + 3)
    assert fetched == []


def test_a_decoder_without_a_source_says_which_anchor_it_lacks(noise: NoiseTable) -> None:
    with pytest.raises(LookupError, match="nobody here has anchor abc"):
        Decoder(noise).write((1, 2), SHAPES, SIGMA, "abc")


# --- the bytes


def test_a030_a_result_at_generation_1000_is_no_larger_than_at_1() -> None:
    """It says who and how good; the genome stays where it is known."""
    answer = Rows(np.array([999], np.int32), np.ones(1, np.float32), np.ones(1, np.int32), 1.5, 0.1)
    message = {"task": 1000, **answer.to_fields(), "run": "12345-0123abcd", "worker": "w" * 60}
    assert len(pack(message, b"k" * 32)) <= 1000


def test_a_task_says_no_more_at_generation_1000_than_at_100(noise: NoiseTable) -> None:
    sizes = []
    for length in (100, 1000):
        genomes = [(*random_genome(length - 1), mutation) for mutation in range(20)]
        short, supplies = Anchors(noise).abridged(task_of(genomes, children=50))
        assert len(supplies) == 1  # they have most of it in common
        sizes.append(len(pack(task_fields(short, 1, 0.0, 1.0))))
    assert sizes[1] <= 1.1 * sizes[0]


# --- over the wire


def shapes_of(problem: Any) -> np.ndarray:
    module = problem.make_policy().module()
    return np.array([(len(p), p[0].numel() if p.ndim > 1 else 0) for p in module.parameters()])


def test_a030_workers_that_come_late_evaluate_long_genomes_to_the_same_bits(stage: Stage) -> None:
    problem = choose_problem(env_name="Sphere-v0", policy_kwargs=LINEAR)
    shapes = shapes_of(problem)
    tasks = [task_of([random_genome(n), random_genome(n, 1)], shapes) for n in (70, 200, 201, 600)]
    with LocalEvaluator(problem, stage.noise) as local:
        expected = [local.evaluate(task) for task in tasks]
    with stage.head(problem) as evaluator:
        for number, (task, right) in enumerate(zip(tasks, expected, strict=True)):
            if number != 2:
                stage.crew.start(1)
            check(evaluator.evaluate(task), right)
            assert len(stage.db.keys(KEYS.supply("run"))) == 2  # those of now
        names = stage.db.keys(KEYS.supply("run"))
        stage.db.set(names[0], b"garbage")
        stage.db.delete(names[1])
        stage.crew.end()
        stage.crew.start(1)
        check(evaluator.evaluate(tasks[-1]), expected[-1])
    assert stage.db.keys(KEYS.supply("run")) == []


def test_a_flush_in_the_middle_costs_no_more_than_time(stage: Stage) -> None:
    problem = choose_problem(env_name="Sphere-v0", policy_kwargs=LINEAR)
    task = task_of([random_genome(200)], shapes_of(problem))
    looks = 0

    def spoil() -> None:
        nonlocal looks
        looks += 1
        if looks == 1:
            stage.db.delete(*stage.db.keys(KEYS.supply("run")))
            stage.crew.start(1)

    with LocalEvaluator(problem, stage.noise) as local:
        right = local.evaluate(task)
    with stage.head(problem, watch=spoil) as evaluator:
        check(evaluator.evaluate(task), right)


def test_a_head_holds_what_tasks_need_and_nothing_else(stage: Stage) -> None:
    head, made = HeadClient(stage.db, "run", KEYS), list[str]()
    head.lead()
    head.post_run({})
    worker = WorkerClient(stage.db, "w", KEYS)
    assert worker.run_spec("run") is not None

    def make(name: str) -> np.ndarray:
        made.append(name)
        return np.full(3, len(name), np.float32)

    def post(number: int, *names: str) -> None:
        head.add_task(number, {}, {name: lambda name=name: make(name) for name in names})
        head.post(number, cut("run", number, range(2), 1))

    def there() -> dict[str, int]:
        values = {name: worker.supply("run", name) for name in ("a", "bb", "ccc")}
        return {name: int(value[0]) for name, value in values.items() if value is not None}

    post(0, "a", "bb")
    post(1, "bb")
    assert there() == {"a": 1, "bb": 2}
    head.end_task(0)
    assert there() == {"a": 1, "bb": 2}  # the next task may need it too
    post(2, "bb", "ccc")
    assert there() == {"bb": 2, "ccc": 3}
    assert made == ["a", "bb", "ccc"]
    flush(stage.db, KEYS)
    assert there() == {}
    head.repost([])
    assert there() == {"bb": 2, "ccc": 3}
