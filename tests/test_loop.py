"""The generation loop: its metrics, computed again by hand, and the seeds it hands out."""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from typing import Any

import numpy as np
import pytest

from es.openai_es import OpenAIES
from evolution.answers import Answer
from evolution.evaluation import Evaluations, Evaluator, LocalEvaluator, Part, split
from evolution.loop import STOP_WINDOW, Generation, History, assess, confidence_interval, evolve
from evolution.noise import NoiseTable
from evolution.population import Mirrored, Repeated
from evolution.problem import choose_problem
from evolution.seeding import EVALUATION, TRAINING, Seeding

COMMON = {
    *("gen", "total time elapsed", "time per gen", "total sim steps", "total fitness evals"),
    *("mean episode length", "mean steps per eval", "current fitness", "mean fitness"),
    *("best fitness", "overall best fitness", "fitness st.dev", "norm", "genome length"),
    *("success rate", "frac. results skipped", "results skipped", "num unique workers"),
    *("worker used times", "time_to_eval", "time_to_obtain", "steps/s"),
    "total core-seconds",
}
OF_THE_CLOCK = {
    *("time per gen", "total time elapsed", "time_to_eval", "steps/s"),
    "total core-seconds",
}
OF_ES = {"grad norm", "update ratio"}


class Scripted:
    """An evaluator that answers what it was told to, and keeps what it was asked."""

    def __init__(self, answers: Iterator[tuple[Any, Any, Any, Any]]) -> None:
        self._answers, self.tasks = answers, list[list[Part]]()
        self.waiting = list[Sequence[Part]]()

    def submit(self, parts: Sequence[Part]) -> None:
        self.tasks.append(list(parts))
        self.waiting.append(parts)

    def discard(self) -> None:
        self.waiting.clear()

    def evaluate(self, parts: Sequence[Part]) -> list[Evaluations]:
        self.submit(parts)
        return self.gather()

    def gather(self) -> list[Evaluations]:
        parts = self.waiting.pop(0)
        fitness, steps, worker, seconds = next(self._answers)
        return split(
            parts,
            np.array(fitness, np.float32),
            np.array(steps, np.int64),
            np.array(worker, np.int64),
            np.array(seconds, np.float32),
        )

    def metrics(self) -> dict[str, float]:
        return {"of the evaluator": 7.0}

    def answers(self) -> list[Answer]:
        return []

    def __enter__(self) -> "Scripted":
        return self

    def __exit__(self, *_: object) -> None: ...


class Still:
    """A strategy that stays where it is."""

    theta = np.array([3.0, 4.0], np.float32)
    roles = ("candidate",)

    def __init__(self, pairs: int = 2) -> None:
        self.pairs, self.asked, self.told = pairs, list[float](), list[np.ndarray]()

    def ask(self, rng: np.random.Generator) -> list[Mirrored]:
        self.asked.append(rng.random())
        return [Mirrored(self.theta, 0.1, np.arange(self.pairs))]

    def tell(self, populations: Any, evaluations: Sequence[Evaluations]) -> dict[str, float]:
        self.told.append(evaluations[0].fitness)
        return {"of the strategy": 5.0}

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: dict[str, Any]) -> None: ...


def run(
    evaluator: Evaluator, generations: int, strategy: Any = None, **settings: Any
) -> list[Generation]:
    chosen: dict[str, Any] = {"episodes": 3, "eval_episodes": 2, "seeding": Seeding(1)}
    chosen |= settings
    return list(evolve(strategy or Still(), evaluator, generations=generations, **chosen))


def test_a100_metrics_by_hand() -> None:
    """Two pairs with three episodes each, theta with two of one; two generations."""
    answers = [
        ([1, 5, 3, 7, 4, 6], [30, 60, 90, 60, 7, 9], [1, 1, 2, 2, 1, 2], [1, 2, 3, 2, 9, 9]),
        ([0, 0, 0, -4, 1, 0], [3, 3, 3, 3, 1, 1], [1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 9, 9]),
    ]
    strategy = Still()
    first, second = run(Scripted(iter(answers)), 2, strategy)
    assert [told.tolist() for told in strategy.told] == [[1, 5, 3, 7], [0, 0, 0, -4]]
    assert first.fitness == 5.0
    expected = {
        "gen": 0.0,
        "current fitness": 5.0,
        "current fitness ci": 1.96 * math.sqrt(2) / math.sqrt(2),
        "mean fitness": 4.0,
        "best fitness": 7.0,
        "overall best fitness": 7.0,
        "fitness st.dev": math.sqrt(5),
        "success rate": 0.25,  # 7 alone: as good as theta is no success
        "mean episode length": 20.0,
        "mean steps per eval": 60.0,
        "total sim steps": 256.0,
        "total fitness evals": 4.0,
        "norm": 5.0,
        "genome length": 2.0,
        "num unique workers": 2.0,
        "worker used times": 3.0,
        "time_to_eval": 2.0,
        "of the evaluator": 7.0,
        "of the strategy": 5.0,
    }
    times = {"time per gen", "total time elapsed", "steps/s", "total core-seconds"}
    assert {k: v for k, v in first.metrics.items() if k not in times} == pytest.approx(expected)
    assert second.metrics["gen"] == 1.0
    assert second.metrics["total sim steps"] == 256.0 + 14.0
    assert second.metrics["total fitness evals"] == 8.0
    assert second.metrics["best fitness"] == 0.0
    assert second.metrics["overall best fitness"] == 7.0
    assert second.metrics["success rate"] == 0.0  # 0.5 is better than every candidate
    assert second.metrics["num unique workers"] == 1.0
    assert second.metrics["worker used times"] == 6.0
    assert 0 <= first.metrics["time per gen"] <= first.metrics["total time elapsed"]
    assert first.metrics["steps/s"] == pytest.approx(256.0 / first.metrics["time per gen"])
    assert first.metrics["total time elapsed"] <= second.metrics["total time elapsed"]


def test_a100_success_rate_counts_all_candidates() -> None:
    """1 if all are better than theta: the seed divided pairs by candidates."""
    everyone = [([9, 9, 9, 9, 1, 1], [1] * 6, [1] * 6, [1] * 6)]
    (generation,) = run(Scripted(iter(everyone)), 1)
    assert generation.metrics["success rate"] == 1.0


def test_a100_metric_names_of_a_real_run(noise: NoiseTable) -> None:
    problem = choose_problem(env_name="Sphere-v0", policy_kwargs={"hidden_sizes": []})
    theta = np.full(20, 0.25, np.float32)
    strategy = OpenAIES(theta, noise, pop_size=6, sigma=0.1, lr=0.1)
    with LocalEvaluator(problem, noise) as evaluator:
        generations = run(evaluator, 3, strategy)
        metrics = [generation.metrics for generation in generations]
        final = assess(strategy.theta, evaluator, number=3, episodes=5, seeding=Seeding(1))
    for number, each in enumerate(metrics):
        assert set(each) >= COMMON | OF_ES
        assert all(math.isfinite(value) for value in each.values())
        assert all(type(value) is float for value in each.values())
        assert 0 <= each["success rate"] <= 1
        assert each["gen"] == number
        assert each["total sim steps"] == (number + 1) * (6 * 3 + 2)
        assert each["total fitness evals"] == (number + 1) * 6
        assert each["mean episode length"] == 1.0
        assert each["mean steps per eval"] == 3.0
        assert each["results skipped"] == each["frac. results skipped"] == 0.0
    assert np.array_equal(generations[0].theta, theta)
    assert metrics[0]["norm"] == pytest.approx(np.sqrt(20) / 4)
    assert not np.array_equal(generations[1].theta, theta)
    assert final.fitness == final.metrics["current fitness"] > metrics[0]["current fitness"]
    assert final.number == 3
    assert len(final.current.fitness) == 5


@pytest.mark.parametrize("env_seed", [-1, None, 5])
def test_a018_a_seed_is_a_run(env_seed: int | None, noise: NoiseTable) -> None:
    """The whole run from artifacts to console is in test_experiment."""
    problem = choose_problem(
        env_name="CartPole-v1", engine="gymnasium", network="elman", max_steps=30
    )

    def play(seed: int) -> tuple[list[dict[str, float]], bytes]:
        seeding = Seeding(seed, env_seed)
        theta = problem.make_policy().initial_theta(seeding.init())
        strategy = OpenAIES(theta, noise, pop_size=8, sigma=0.1, lr=0.1)
        with LocalEvaluator(problem, noise) as evaluator:
            metrics = [dict(g.metrics) for g in run(evaluator, 4, strategy, seeding=seeding)]
        for each in metrics:
            for name in OF_THE_CLOCK:
                assert each.pop(name) >= 0
        return metrics, strategy.theta.tobytes()

    first = play(3)
    assert play(3) == first
    assert play(4)[1] != first[1]


def test_theta_and_its_population_are_evaluated_together() -> None:
    """So that "current fitness" belongs to the theta from which the population was asked."""
    evaluator = Scripted(iter([([0] * 6, [1] * 6, [1] * 6, [1] * 6)] * 2))
    for generation, task in zip(run(evaluator, 2), evaluator.tasks, strict=True):
        population, itself = task
        assert isinstance(population.population, Mirrored)
        assert isinstance(itself.population, Repeated)
        assert population.population.centre is itself.population.theta is generation.theta
        assert population.env_seeds.shape == (2, 3)
        assert itself.env_seeds.shape == (2, 1)


def flat(fitness: Callable[[int], float]) -> Scripted:
    """Generation g finds theta to be worth fitness(g)."""
    return Scripted(([0, 0, 0, 0, f, f], [1] * 6, [1] * 6, [1] * 6) for f in map(fitness, count()))


@pytest.mark.parametrize(
    ("fitness", "ends_after"),
    [
        (lambda g: 100.0, STOP_WINDOW),  # a lucky start does not end a run
        (lambda g: 100.0 if g >= 7 else 99.0, 7 + STOP_WINDOW),
        (lambda g: 99.0 + g, STOP_WINDOW),  # the mean of ten, not the last one
        (lambda g: 95.0 + g, 11),
        (lambda g: 99.0, 30),
        (lambda g: 1000.0 if g < 9 else 0.0, STOP_WINDOW),
    ],
)
def test_stop_fitness_is_reached_by_ten_generations(
    fitness: Callable[[int], float], ends_after: int
) -> None:
    assert len(run(flat(fitness), 30, stop_fitness=100.0)) == ends_after


def test_without_stop_fitness_all_generations_are_run() -> None:
    assert [g.number for g in run(flat(lambda g: 1e9), 25)] == list(range(25))


def test_the_interval_is_that_of_the_mean() -> None:
    values = np.array([1.0, 2.0, 4.0, 9.0])
    assert confidence_interval(values) == pytest.approx(1.96 * values.std(ddof=1) / 2)
    assert math.isnan(confidence_interval(values[:1]))


def test_the_final_sentence_says_how_sure_it_is() -> None:
    evaluator = Scripted(iter([([1, 3, 1, 3], [1] * 4, [1] * 4, [1] * 4)]))
    final = assess(Still.theta, evaluator, number=9, episodes=4, seeding=Seeding(1))
    assert final.sentence() == (
        "final fitness 2.00 ± 1.13 (95 % confidence, 4 fresh episodes, after 9 generations)"
    )


# --- seeds


def test_a013_minus_one_is_fresh_for_every_pair_and_episode() -> None:
    seeding = Seeding(3, -1)
    seeds = np.stack([seeding.training(generation, 20, 4) for generation in range(5)])
    assert seeds.shape == (5, 20, 4)
    assert len(np.unique(seeds)) == seeds.size


def test_a013_none_is_one_set_per_generation() -> None:
    seeding = Seeding(3, None)
    generations = [seeding.training(generation, 20, 4) for generation in range(5)]
    for seeds in generations:
        assert seeds.shape == (20, 4)
        assert (seeds == seeds[0]).all()
        assert len(np.unique(seeds)) == 4
    assert len(np.unique(generations)) == 5 * 4


def test_a013_a_number_is_the_same_set_always() -> None:
    for seed, generation in ((3, 0), (3, 17), (4, 0)):
        seeds = Seeding(seed, 100).training(generation, 5, 3)
        assert seeds.tolist() == [[100, 101, 102]] * 5
    assert Seeding(3, 0).training(0, 1, 2).tolist() == [[0, 1]]


@pytest.mark.parametrize("env_seed", [-1, None, 0, TRAINING[1] - 1_000_001])
def test_a013_training_and_evaluation_never_meet(env_seed: int | None) -> None:
    seeding = Seeding(5, env_seed)
    for generation in range(20):
        training = seeding.training(generation, 50, 5)
        evaluation = seeding.evaluation(generation, 50)
        assert training.dtype == evaluation.dtype == np.int64
        assert evaluation.shape == (50, 1)
        assert training.min() >= 0
        assert training.max() < EVALUATION[0] <= evaluation.min()
        assert evaluation.max() < 2**31
        assert len(np.unique(evaluation)) == 50


@pytest.mark.parametrize("env_seed", [-2, -100, TRAINING[1], 2**31])
def test_a013_other_numbers_are_refused(env_seed: int) -> None:
    with pytest.raises(ValueError, match=f"env_seed={env_seed}: choose -1"):
        Seeding(0, env_seed)


def test_every_draw_is_a_function_of_seed_purpose_and_generation() -> None:
    def drawn(seed: int, generation: int) -> list[list[int]]:
        seeding = Seeding(seed)
        return [
            seeding.training(generation, 2, 2).ravel().tolist(),
            (seeding.evaluation(generation, 4) - EVALUATION[0]).ravel().tolist(),
            seeding.ask(generation).integers(*TRAINING, 4).tolist(),
            seeding.init().integers(*TRAINING, 4).tolist(),
        ]

    one = drawn(1, 6)
    assert one == drawn(1, 6)
    assert len({tuple(each) for each in one}) == 4
    later, other = drawn(1, 7), drawn(2, 6)
    assert [a != b for a, b in zip(one, later, strict=True)] == [True, True, True, False]
    assert all(a != b for a, b in zip(one, other, strict=True))


def test_the_loop_uses_the_seeds_of_its_generation() -> None:
    evaluator, strategy = flat(lambda g: 0.0), Still()
    seeding = Seeding(8)
    run(evaluator, 3, strategy, seeding=seeding, episodes=4, eval_episodes=2)
    assert strategy.asked == [seeding.ask(g).random() for g in range(3)]
    for generation, (population, itself) in enumerate(evaluator.tasks):
        assert np.array_equal(population.env_seeds, seeding.training(generation, 2, 4))
        assert np.array_equal(itself.env_seeds, seeding.evaluation(generation, 2))


# --- the end


def ended_by(**limits: Any) -> tuple[int, str | None]:
    """How many generations of 120 steps a run has, and what it says of its end."""
    answers = (([g] * 6, [20] * 6, [1] * 6, [1] * 6) for g in count())
    history = History()
    generations = limits.pop("generations", 30)
    done = run(Scripted(answers), generations, history=history, **limits)
    return len(done), history.ended_by


def test_a036_what_is_reached_first_ends_a_run() -> None:
    assert ended_by(generations=7) == (7, "num_generations=7")
    assert ended_by(max_steps=601) == (6, "n_tsteps=601, with 720 steps")
    assert ended_by(max_steps=600) == (5, "n_tsteps=600, with 600 steps")
    assert ended_by(max_steps=600, generations=4) == (4, "num_generations=4")
    assert ended_by(stop_fitness=4.5) == (10, "stop_fitness=4.5, with 4.50")
    number, words = ended_by(max_hours=1e-9)
    assert number == 0
    assert words is not None
    assert words.startswith("max_hours=1e-09, after ")


def test_a036_steps_and_hours_are_counted_over_all_sittings() -> None:
    def play(history: History, most: int, **limits: Any) -> int:
        answers = (([1] * 6, [20] * 6, [1] * 6, [1] * 6) for _ in count())
        return len(run(Scripted(answers), most, history=history, **limits))

    first, second = History(), History()
    assert play(first, 3, max_steps=600) == 3
    second.restore(first.state())
    assert play(second, 100, max_steps=600) == 2
    third = History()
    third.restore(first.state() | {"elapsed": 7200.0})
    assert play(third, 100, max_hours=2) == 0
    assert third.ended_by == "max_hours=2, after 2 hours"
