"""Generations of several rounds: minima of episodes and steps, and the best who play again."""

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from typing import Any

import numpy as np
import pytest
from conftest import Crew
from test_deep_ga import SETTINGS, evaluated, play, shapes_of, start
from test_evaluators import Stage

from evolution import redis_evaluator
from evolution.answers import Answer
from evolution.decoder import Genome
from evolution.evaluation import Evaluations, LocalEvaluator, PieceRunner
from evolution.exchange import lookout
from evolution.loop import History, evolve
from evolution.noise import NoiseTable
from evolution.population import Lineages, Population
from evolution.problem import choose_problem
from evolution.seeding import Seeding
from ga.deep_ga import DeepGA

AGAIN = {"timesteps_per_batch": 300, "reevaluate_top": 12, "n_reevals": 3}
Told = list[tuple[str, Lineages, Evaluations]]


@pytest.fixture
def sphere() -> Any:
    return choose_problem(
        env_name="Sphere-v0", policy_kwargs={"hidden_sizes": [], "output_activation": "none"}
    )


def go(
    ga: DeepGA, number: int, score: Callable[[Genome], float], steps: int = 3
) -> tuple[Told, dict[str, float]]:
    """One generation, whose candidates have the scores and steps that are said."""
    seeding = Seeding(number)
    roles, populations = list(ga.roles), list[Population](ga.ask(seeding.ask(number)))
    told = list[Evaluations]()
    again, further = 0, list[tuple[str, Population]]()
    while True:
        for population in populations[len(told) :]:
            assert isinstance(population, Lineages)
            scores = [score(population.genome(row)) for row in range(len(population))]
            told.append(evaluated(scores, steps))
        again += 1
        further = ga.further(populations, told, seeding.ask(number, again))
        if not further:
            named = zip([*roles[: len(populations)]], populations, told, strict=False)
            return list(named), ga.tell(populations, told)  # type: ignore[arg-type]
        roles = [*roles[: len(populations)], *(role for role, _ in further)]
        populations += [population for _, population in further]


# --- minima


@pytest.mark.parametrize(
    ("least", "children", "later"),
    [
        ({}, 40, 40),
        ({"episodes_per_batch": 40}, 40, 40),
        ({"episodes_per_batch": 41}, 50, 40),  # blocks of 10; 20 episodes of elites count too
        ({"episodes_per_batch": 75}, 80, 60),
        ({"timesteps_per_batch": 120}, 40, 40),
        ({"timesteps_per_batch": 500}, 170, 150),
        ({"timesteps_per_batch": 200, "episodes_per_batch": 75}, 80, 60),
    ],
)
def test_a036_a_generation_grows_until_both_minima_hold(
    least: dict[str, int], children: int, later: int, noise: NoiseTable
) -> None:
    """Three steps an episode, 40 children and, from the second generation on, 20 of elites."""
    ga = start(noise, **least)
    for number, expected in enumerate((children, later, later)):
        told, metrics = go(ga, number, lambda genome: genome[-1] % 97)
        assert metrics["MutEps"] == expected
        asked = [each.mutations for role, each, _ in told if role == "child"]
        assert sum(map(len, asked)) == expected
        assert len(set(np.concatenate(asked).tolist())) > 0.9 * expected
        best = sorted((m % 97 for m in np.concatenate(asked).tolist()), reverse=True)
        new = ga._survivors[2 if number else 0 :]
        assert [each.score for each in new] == best[: len(new)]  # of all blocks alike


def test_a036_children_who_die_at_once_do_not_stall_a_generation(noise: NoiseTable) -> None:
    """What ga-dist gave up with "too many invalid results": its quota of children was fixed."""
    ga = start(noise, timesteps_per_batch=1000)
    told, metrics = go(ga, 0, lambda genome: 0.0, steps=1)
    assert metrics["MutEps"] == sum(int(each.steps.sum()) for _, _, each in told) == 1000


# --- the best once more


def test_the_best_children_play_again_before_survivors_are_chosen(noise: NoiseTable) -> None:
    ga, seen = start(noise, reevaluate_top=12, n_reevals=3), dict[Genome, int]()

    def score(genome: Genome) -> float:
        """At first a matter of luck; who plays again shows the opposite."""
        seen[genome] = seen.get(genome, 0) + 1
        return float(genome[-1]) if seen[genome] == 1 else -float(genome[-1])

    told, _ = go(ga, 0, score)
    ((_, children, first), (role, top, _)) = told
    assert role == "top"
    lucky = [children.genome(row) for row in np.argsort(-first.fitness)[:12]]
    assert [top.genome(row) for row in range(0, 36, 3)] == lucky
    assert [seen[genome] for genome in lucky] == [1 + 3] * 12
    right = sorted(lucky)[:8]
    assert [each.genome for each in ga._survivors] == right
    assert [each.score for each in ga._survivors] == [-float(genome[-1]) for genome in right]
    told, _ = go(ga, 1, score)
    assert [role for role, _, _ in told] == ["child", "elite", "top"]
    assert [each.genome for each in ga._survivors[:2]] == right[:2]  # champions, unmutated
    assert all(len(each.genome) == 2 for each in ga._survivors[2:])


def test_fewer_than_there_are_survivors_come_first(noise: NoiseTable) -> None:
    ga = start(noise, reevaluate_top=3, n_reevals=1)
    ((_, children, first), _), _ = go(ga, 0, lambda genome: float(genome[-1]))
    best = [children.genome(row) for row in np.argsort(-first.fitness)[:8]]
    assert [each.genome for each in ga._survivors] == best


@pytest.mark.parametrize(
    "wrong", [{"reevaluate_top": -1}, {"reevaluate_top": 41}, {"n_reevals": 0}]
)
def test_a032_no_more_can_play_again_than_there_are(wrong: dict, noise: NoiseTable) -> None:
    (name,) = wrong
    with pytest.raises(ValueError, match=f"{name}="):
        start(noise, **wrong)


# --- whole runs


def test_rounds_of_a_generation_are_one_generation(sphere: Any, noise: NoiseTable) -> None:
    """In steps, in the list of results, in seeds; and the run repeats to the last bit."""
    found = []
    for _ in range(2):
        ga, history = DeepGA(shapes_of(sphere), noise, **SETTINGS | AGAIN), History()
        with LocalEvaluator(sphere, noise) as evaluator:
            run = evolve(
                ga,
                evaluator,
                generations=3,
                episodes=2,
                eval_episodes=3,
                seeding=Seeding(4),
                history=history,
            )
            generations = list(run)
        found.append([each.theta.tobytes() for each in generations] + [ga.theta.tobytes()])
        total = 0
        for number, generation in enumerate(generations):
            results = list(generation.results())
            assert {each.generation for each in results} == {number}
            kinds = [each.kind for each in results]
            assert kinds.count("top") == 36
            assert kinds.count("child") == len(generation.population.fitness) > 40
            assert len({(each.kind, each.candidate) for each in results}) == len(results)
            total += sum(each.steps for each in results)
            assert generation.metrics["total sim steps"] == total
        assert history.steps == total
    assert found[0] == found[1]


def test_what_is_asked_again_cannot_be_asked_ahead(sphere: Any, noise: NoiseTable) -> None:
    ga = DeepGA(shapes_of(sphere), noise, **SETTINGS | AGAIN)
    with (
        LocalEvaluator(sphere, noise) as evaluator,
        pytest.raises(ValueError, match="needs overlap=0"),
    ):
        list(
            evolve(
                ga,
                evaluator,
                generations=3,
                episodes=1,
                eval_episodes=1,
                seeding=Seeding(4),
                overlap=1,
            )
        )


@pytest.fixture
def stage(
    crew: Crew, noise: NoiseTable, make_task: Callable, monkeypatch: pytest.MonkeyPatch
) -> Stage:
    monkeypatch.setattr(redis_evaluator, "TICK", 0.02)
    monkeypatch.setattr(lookout, "LOOK_SECONDS", 0.02)
    return Stage(crew, noise, make_task)


def test_a035_workers_one_two_three_and_one_that_is_killed_give_the_same_elite(
    sphere: Any, noise: NoiseTable, stage: Stage
) -> None:
    """With minima and re-evaluation: each round waits for all of the round before it."""
    with LocalEvaluator(sphere, noise) as evaluator:
        right = play(noise, evaluator, DeepGA(shapes_of(sphere), noise, **SETTINGS | AGAIN), 6)
    for number in (1, 2, 3):
        stage.crew.start(1, die_at_the_second_batch if number == 3 else lambda: None)
        ga = DeepGA(shapes_of(sphere), noise, **SETTINGS | AGAIN)
        with stage.head(sphere, f"run-{number}") as evaluator:
            assert play(noise, evaluator, ga, 6) == right
    killed = stage.crew.processes[2]
    killed.join(10)
    assert killed.exitcode == -signal.SIGKILL


def die_at_the_second_batch() -> None:
    """For a worker: with tickets in its hand, and nothing said."""
    evaluate, batches = PieceRunner.evaluate, count()

    def evaluate_or_die(self: PieceRunner, *task: Any) -> Any:
        if next(batches) == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return evaluate(self, *task)

    PieceRunner.evaluate = evaluate_or_die  # type: ignore[method-assign]


def test_a036_a_run_of_many_rounds_goes_on_as_if_it_had_never_stopped(
    sphere: Any, noise: NoiseTable
) -> None:
    settings = SETTINGS | AGAIN

    def go_on(ga: DeepGA, history: History, generations: int) -> list[bytes]:
        with LocalEvaluator(sphere, noise) as evaluator:
            run = evolve(
                ga,
                evaluator,
                generations=generations,
                episodes=1,
                eval_episodes=1,
                seeding=Seeding(8),
                max_steps=2500,
                history=history,
            )
            return [each.theta.tobytes() for each in run]

    whole, history = DeepGA(shapes_of(sphere), noise, **settings), History()
    expected = go_on(whole, history, 99)
    assert history.ended_by is not None
    assert history.ended_by.startswith("n_tsteps=2500")
    first, before = DeepGA(shapes_of(sphere), noise, **settings), History()
    played = go_on(first, before, 2)
    second, after = DeepGA(shapes_of(sphere), noise, **settings), History()
    second.restore(first.state())
    after.restore(before.state())
    assert played + go_on(second, after, 99) == expected
    assert second.theta.tobytes() == whole.theta.tobytes()
    assert after.steps == history.steps


class Tardy(LocalEvaluator):
    """Its workers answer each task, and once more the task that was so many tasks before it."""

    late: int

    def answers(self) -> list[Answer]:
        (answer,) = super().answers()
        unused = np.zeros(len(answer.rows), np.bool_)
        return [answer, replace(answer, age=self.late, used=unused)]

    def metrics(self) -> dict[str, float]:
        return {"results skipped": 5.0, "frac. results skipped": 0.25, "workers alive": 3.0}


@pytest.mark.parametrize(("late", "expected"), [(1, [0, 1, 1]), (2, [0, 0, 1]), (3, [0, 0, 0])])
def test_a038_what_comes_too_late_is_told_with_its_generation_and_counted(
    late: int, expected: list[int], sphere: Any, noise: NoiseTable
) -> None:
    """Three rounds in each of four generations: children, more of them, the best of them."""
    settings = SETTINGS | {"episodes_per_batch": 70, "reevaluate_top": 8, "n_reevals": 2}
    ga = DeepGA(shapes_of(sphere), noise, **settings)
    with Tardy(sphere, noise) as evaluator:
        evaluator.late = late
        how: dict[str, Any] = {"episodes": 1, "eval_episodes": 1, "seeding": Seeding(4)}
        generations = list(evolve(ga, evaluator, generations=4, **how))
    for number, generation in enumerate(generations):
        invalid = [each for each in generation.answers if not each.used.any()]
        assert len(invalid) == 3
        assert generation.metrics["results skipped"] == 15.0
        assert generation.metrics["frac. results skipped"] == 0.25
        assert generation.metrics["workers alive"] == 3.0
        if number == 3:
            found = [next(each.results(number, 0.0)).generation - 2 for each in invalid]
            assert found == expected
            assert not any(row.valid for each in invalid for row in each.results(number, 0.0))
