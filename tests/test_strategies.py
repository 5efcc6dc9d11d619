"""What every strategy promises, whatever its algorithm: the list below is all of them."""

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from es.openai_es import OpenAIES
from evolution.evaluation import LocalEvaluator
from evolution.loop import Generation, History, evolve
from evolution.noise import NoiseTable
from evolution.problem import choose_problem
from evolution.seeding import Seeding
from evolution.strategy import Strategy
from ga.config import tensor_shapes
from ga.deep_ga import DeepGA
from nevergrad_es.strategy import NevergradStrategy
from store.checkpoint import decoded, encoded

PROBLEM = choose_problem(
    env_name="Sphere-v0",
    policy_kwargs={"hidden_sizes": [], "output_activation": "none"},
    action_scaling="none",
)
DIM, POP_SIZE, GENERATIONS, HALF = 20, 10, 6, 3
Make = Callable[[NoiseTable], Strategy]


def es(noise: NoiseTable) -> Strategy:
    return OpenAIES(np.ones(DIM, np.float32), noise, pop_size=POP_SIZE, sigma=0.1, lr=0.1)


def ga(noise: NoiseTable) -> Strategy:
    sizes = {"pop_size": POP_SIZE, "n_parents": 4, "champions": 2, "n_elite_candidates": 3}
    return DeepGA(tensor_shapes(PROBLEM.make_policy()), noise, n_evals=1, sigma=0.1, **sizes)


def nevergrad(tool: str, overlap: int = 0) -> Make:
    sizes = {"pop_size": POP_SIZE, "generations": GENERATIONS, "overlap": overlap}
    theta, rng = np.ones(DIM, np.float32), np.random.default_rng
    return lambda noise: NevergradStrategy(theta, rng(1), tool=tool, sigma=0.3, **sizes)


STRATEGIES: dict[str, Make] = {
    "OpenAI-ES": es,
    "GA": ga,
    **{tool: nevergrad(tool) for tool in ("CMA", "DiagonalCMA", "OnePlusOne", "DE", "NGOpt")},
}


def play(
    strategy: Strategy, noise: NoiseTable, history: History | None = None, overlap: int = 0
) -> Iterator[Generation]:
    with LocalEvaluator(PROBLEM, noise) as evaluator:
        settings: dict[str, Any] = {"episodes": 1, "eval_episodes": 1, "seeding": Seeding(3)}
        settings |= {"generations": GENERATIONS, "history": history, "overlap": overlap}
        yield from evolve(strategy, evaluator, **settings)


def global_states() -> list[Any]:
    name, keys, *rest = np.random.get_state()  # noqa: NPY002
    return [name, keys.tolist(), rest, random.getstate()]


@pytest.mark.parametrize("name", STRATEGIES)
def test_equal_seeds_are_equal_runs_whatever_others_draw(name: str, noise: NoiseTable) -> None:
    """And others draw whatever they would have drawn without it."""
    plain, disturbed = (STRATEGIES[name](noise) for _ in range(2))
    before = global_states()
    expected = [generation.theta.tobytes() for generation in play(plain, noise)]
    assert global_states() == before
    found = []
    for generation in play(disturbed, noise):
        found.append(generation.theta.tobytes())
        np.random.random()  # noqa: NPY002
        random.random()
    assert found == expected
    assert np.array_equal(plain.theta, disturbed.theta)
    assert len(set(expected)) > 1


@pytest.mark.parametrize("name", STRATEGIES)
def test_from_a_state_a_run_goes_on_as_if_nothing_had_happened(
    name: str, noise: NoiseTable
) -> None:
    """Through the bytes of a checkpoint, and also back from where it has gone since."""
    make, history = STRATEGIES[name], History()
    strategy, kept, thetas = make(noise), list[bytes](), list[np.ndarray]()
    for generation in play(strategy, noise, history):
        thetas.append(strategy.theta)
        if generation.number == HALF:
            parts = {"strategy": strategy.state(), "history": history.state()}
            kept.append(encoded(parts))
    (data,) = kept
    for other in (make(noise), strategy):
        state, again = decoded(data, "checkpoint"), History()
        other.restore(state["strategy"])
        again.restore(state["history"])
        assert np.array_equal(other.theta, thetas[HALF])
        for generation in play(other, noise, again):
            assert np.array_equal(other.theta, thetas[generation.number])
        assert again.next_generation == GENERATIONS


@pytest.mark.parametrize("name", STRATEGIES)
def test_theta_is_float32_and_never_changed_in_place(name: str, noise: NoiseTable) -> None:
    strategy = STRATEGIES[name](noise)
    seen = [(theta := strategy.theta, theta.copy())]
    for _ in play(strategy, noise):
        seen.append((theta := strategy.theta, theta.copy()))
    for theta, copy in seen:
        assert (theta.dtype, theta.shape) == (np.float32, (DIM,))
        assert np.array_equal(theta, copy)


@pytest.mark.parametrize("name", STRATEGIES)
def test_it_gets_better(name: str, noise: NoiseTable) -> None:
    first, second, *_, last = play(STRATEGIES[name](noise), noise)
    assert last.fitness > first.metrics["mean fitness"]  # of the first candidates
    assert last.fitness >= second.fitness


@pytest.mark.parametrize("tool", ["CMA", "DE"])
def test_nevergrad_asked_ahead_goes_on_from_a_state(tool: str, noise: NoiseTable) -> None:
    make, history = nevergrad(tool, overlap=2), History()
    strategy, kept = make(noise), list[bytes]()
    for generation in play(strategy, noise, history, overlap=2):
        if generation.number == 1:
            kept.append(encoded({"strategy": strategy.state(), "history": history.state()}))
    assert isinstance(strategy, NevergradStrategy)
    assert strategy.evaluations == POP_SIZE * GENERATIONS
    state, again, other = decoded(kept[0], "checkpoint"), History(), make(noise)
    other.restore(state["strategy"])
    again.restore(state["history"])
    assert len(again.asked) == 2
    assert len(list(play(other, noise, again, overlap=2))) == GENERATIONS - 2
    assert np.array_equal(other.theta, strategy.theta)
