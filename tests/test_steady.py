"""The asynchronous mode: nobody waits, nothing is thrown away, no lucky score is kept."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from commands import run_here
from conftest import Crew
from test_deep_ga import SETTINGS, evaluated, shapes_of

from cluster.redis_server import connect
from evolution.evaluation import Evaluations, LocalEvaluator, Part
from evolution.loop import Generation, History
from evolution.noise import NoiseTable
from evolution.problem import choose_problem
from evolution.redis_evaluator import RedisEvaluator
from evolution.seeding import Seeding
from evolution.steady import evolve_steadily
from ga.deep_ga import DeepGA
from ga.experiment import ex

SPHERE = choose_problem(
    env_name="Sphere-v0", policy_kwargs={"hidden_sizes": [], "output_activation": "none"}
)
SIZE = SETTINGS["pop_size"]


def go(ga: DeepGA, evaluator: Any, generations: int, history: Any = None) -> list[Generation]:
    how = {"episodes": 1, "eval_episodes": 2, "seeding": Seeding(4), "history": history}
    return list(evolve_steadily(ga, evaluator, generations=generations, **how))


def children(generation: Generation) -> list[int]:
    """Their mutations, by which one can tell them."""
    return [int(n) for role, each in generation.asked if role == "child" for n in each.mutations]  # type: ignore[attr-defined]


class Uneven(LocalEvaluator):
    """As if a worker held the first task until ``held`` others have come."""

    def __init__(self, noise: NoiseTable, held: int) -> None:
        super().__init__(SPHERE, noise)
        self.held, self.tasks = held, list[Sequence[Part]]()

    def submit(self, parts: Sequence[Part]) -> None:
        self.tasks.append(parts)

    def gather_any(self) -> tuple[int, list[Evaluations]]:
        place = 1 if self.held and len(self.tasks) > 1 else 0
        self.held -= place
        super().submit(self.tasks.pop(place))
        return place, super().gather()


def test_a037_nobody_waits_for_the_slowest_and_its_result_counts_when_it_comes(
    noise: NoiseTable,
) -> None:
    with Uneven(noise, held=2 * SIZE + 10) as evaluator:
        ga = DeepGA(shapes_of(SPHERE), noise, **SETTINGS)
        first = None
        for generation in evolve_steadily(
            ga, evaluator, generations=6, episodes=1, eval_episodes=1, seeding=Seeding(4)
        ):
            if first is None:
                first = int(evaluator.tasks[0][0].population.mutations[0])  # type: ignore[attr-defined]
            assert len(children(generation)) >= SIZE
            assert (first in children(generation)) == (generation.number == 2)
    assert not evaluator.held


def test_a037_all_that_workers_bring_is_counted_once(noise: NoiseTable, crew: Crew) -> None:
    crew.start(3)
    ga = DeepGA(shapes_of(SPHERE), noise, **SETTINGS)
    with RedisEvaluator(connect(crew.url), SPHERE, noise, run_id="run") as evaluator:
        generations = go(ga, evaluator, 8)
    came = list(itertools.chain.from_iterable(map(children, generations)))
    assert len(came) == len(set(came)) >= 8 * SIZE
    for generation in generations:
        assert generation.population.fitness.shape == (len(children(generation)),)
        assert np.isfinite(generation.population.fitness).all()
        assert list(generation.told) == ["child", "elite"]
    elite = [g.metrics["elite score when chosen"] for g in generations]
    assert elite == sorted(elite)  # the sphere has no noise
    assert elite[-1] > elite[0]


def test_a037_a_lucky_score_is_lost_when_a_generation_closes(noise: NoiseTable) -> None:
    ga, rng = DeepGA(shapes_of(SPHERE), noise, **SETTINGS), np.random.default_rng(1)
    parents = ga.breed(rng, 10)
    ga.absorb(parents, evaluated([100.0, *range(9)]))
    lucky = parents.genome(0)
    assert ga.survivors[0].genome == lucky
    candidates = ga.candidates()
    scores = [-5.0 if candidates.genome(row) == lucky else 50.0 for row in range(len(candidates))]
    metrics = ga.crown(evaluated(range(SIZE)), candidates, evaluated(scores))
    assert metrics["elite score"] == -5
    assert ga.elite is not None
    assert ga.elite.genome != lucky
    assert ga.elite.score == 50
    kept = {each.genome: each.score for each in ga.survivors}
    assert kept.get(lucky, -5.0) == -5
    before = ga.survivors[: SETTINGS["champions"]]
    ga.absorb(ga.breed(rng, 20), evaluated([1000.0] * 20))
    assert ga.survivors[: SETTINGS["champions"]] == before  # no single score is worth that much
    again = DeepGA(shapes_of(SPHERE), noise, **SETTINGS)
    again.restore(ga.state())
    assert again.survivors == ga.survivors
    assert again.state() == ga.state()


def test_a037_a_run_goes_on(noise: NoiseTable) -> None:
    ga, history = DeepGA(shapes_of(SPHERE), noise, **SETTINGS), History()
    with LocalEvaluator(SPHERE, noise) as evaluator:
        go(ga, evaluator, 3, history)
        resumed, after = DeepGA(shapes_of(SPHERE), noise, **SETTINGS), History()
        resumed.restore(ga.state())
        after.restore(history.state())
        more = go(resumed, evaluator, 5, after)
    assert [each.number for each in more] == [3, 4]
    assert more[0].metrics["total fitness evals"] > history.evaluations


def test_a037_an_asynchronous_run_says_that_it_cannot_be_had_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tiny = {"evaluator": "local", "num_generations": 20, "noise_size": 50_000, "seed": 3}
    run = run_here("sphere", experiment=ex, mode="async", n_evals=2, **tiny)
    assert run.result > -0.1
    assert "it cannot be had again" in caplog.text


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"mode": "asink"}, "is none of generational, async. Did you mean 'async'"),
        ({"mode": "async", "overlap": 1}, "overlap=1: needs mode=generational"),
        ({"mode": "async", "reevaluate_top": 2}, "reevaluate_top=2: needs mode=generational"),
        ({"mode": "async", "log_evaluations": True}, "log_evaluations=True: needs mode=gen"),
    ],
)
def test_what_needs_whole_generations_is_refused(config: dict[str, Any], said: str) -> None:
    with pytest.raises(Exception, match=said):
        run_here("sphere", experiment=ex, evaluator="local", seed=1, **config)
