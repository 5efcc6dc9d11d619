"""OpenAI-ES: its arithmetic against formulas written out here, and that it optimizes."""

from typing import Any

import numpy as np
import pytest
import torch

from es.openai_es import OpenAIES, make_optimizer
from evolution.decoder import Decoder
from evolution.evaluation import Evaluations, LocalEvaluator
from evolution.loop import evolve
from evolution.noise import NoiseTable
from evolution.population import Mirrored
from evolution.problem import choose_problem
from evolution.seeding import Seeding
from evolution.shaping import SHAPINGS

DIM = 12
LR, L2, SIGMA = 0.05, 0.3, 0.1


def evaluated(fitness: np.ndarray) -> Evaluations:
    ones = np.ones(len(fitness), np.int64)
    return Evaluations(fitness.astype(np.float32), ones, ones, ones.astype(np.float32), 1)


def start(noise: NoiseTable, theta: np.ndarray | None = None, **settings: Any) -> OpenAIES:
    if theta is None:
        theta = np.random.default_rng(1).normal(size=DIM)
    chosen = {"pop_size": 10, "sigma": SIGMA, "lr": LR, "l2coeff": L2} | settings
    return OpenAIES(theta.astype(np.float32), noise, **chosen)


def gradient_by_hand(population: Mirrored, fitness: np.ndarray, noise: NoiseTable) -> np.ndarray:
    """Sum of (rank of + minus rank of -) * epsilon, over the number of candidates."""
    ranks = np.empty(len(fitness))
    ranks[np.argsort(fitness)] = np.linspace(-0.5, 0.5, len(fitness))
    return gradient_of_utilities(population, ranks, noise)


def gradient_of_utilities(
    population: Mirrored, utilities: np.ndarray, noise: NoiseTable
) -> np.ndarray:
    total = np.zeros(population.dim)
    for pair, index in enumerate(population.noise_indices):
        epsilon = noise.get(int(index), population.dim).astype(np.float64)
        total += (utilities[2 * pair] - utilities[2 * pair + 1]) * epsilon
    return total / len(utilities)


class AdamByHand:
    """Kingma and Ba 2015, Algorithm 1, climbing, with the decay added to the gradient."""

    def __init__(self, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8) -> None:
        (self.beta1, self.beta2), self.eps = betas, eps
        self.t, self.m, self.v = 0, np.zeros(DIM), np.zeros(DIM)

    def step(self, theta: np.ndarray, gradient: np.ndarray) -> np.ndarray:
        descent = -gradient + L2 * theta
        self.t += 1
        self.m = self.beta1 * self.m + (1 - self.beta1) * descent
        self.v = self.beta2 * self.v + (1 - self.beta2) * descent**2
        m_hat = self.m / (1 - self.beta1**self.t)
        v_hat = self.v / (1 - self.beta2**self.t)
        return theta - LR * m_hat / (np.sqrt(v_hat) + self.eps)


class SGDByHand:
    """Steps along the gradient, less the decay, each ``lr_decay`` times as long as the last."""

    def __init__(self, lr_decay: float = 1.0) -> None:
        self.lr, self.lr_decay = LR / lr_decay, lr_decay

    def step(self, theta: np.ndarray, gradient: np.ndarray) -> np.ndarray:
        self.lr *= self.lr_decay
        return theta + self.lr * (gradient - L2 * theta)


@pytest.mark.parametrize(
    ("settings", "by_hand"),
    [
        ({}, AdamByHand()),
        ({"betas": (0.5, 0.9), "eps": 0.1}, AdamByHand((0.5, 0.9), 0.1)),
        ({"optimizer": "SGD"}, SGDByHand()),
        ({"optimizer": "SGD", "lr_decay": 0.8}, SGDByHand(0.8)),
    ],
    ids=["Adam", "Adam with other settings", "SGD", "SGD with shorter and shorter steps"],
)
def test_a010_steps_equal_the_formulas(
    settings: dict, by_hand: AdamByHand | SGDByHand, noise: NoiseTable
) -> None:
    strategy, rng = start(noise, **settings), np.random.default_rng(2)
    theta = strategy.theta.astype(np.float64)
    for _ in range(10):
        (population,), fitness = strategy.ask(rng), rng.permutation(10) * 3.0
        assert np.array_equal(population.centre, strategy.theta)
        told = strategy.tell([population], [evaluated(fitness)])
        gradient = gradient_by_hand(population, fitness, noise)
        before, theta = theta, by_hand.step(theta, gradient)
        np.testing.assert_allclose(strategy.theta, theta, atol=1e-6)
        assert told["grad norm"] == pytest.approx(np.linalg.norm(gradient), rel=1e-4)
        moved = np.linalg.norm(theta - before) / np.linalg.norm(before)
        assert told["update ratio"] == pytest.approx(moved, rel=1e-4)


@pytest.mark.parametrize("shaping", SHAPINGS)
def test_the_gradient_is_that_of_the_chosen_shaping(shaping: str, noise: NoiseTable) -> None:
    strategy = start(noise, shaping=shaping, optimizer="SGD", l2coeff=0.0)
    before = strategy.theta.astype(np.float64)
    (population,) = strategy.ask(np.random.default_rng(2))
    fitness = np.random.default_rng(3).permutation(10) * 3.0
    strategy.tell([population], [evaluated(fitness)])
    gradient = gradient_of_utilities(population, SHAPINGS[shaping](fitness), noise)
    np.testing.assert_allclose(strategy.theta - before, LR * gradient, atol=1e-6)


def test_a011_the_gradient_points_along_a_linear_objective(noise: NoiseTable) -> None:
    slope = np.random.default_rng(3).normal(size=DIM)
    strategy = start(noise, pop_size=4000, optimizer="SGD", l2coeff=0.0, lr=1.0)
    before = strategy.theta
    (population,) = strategy.ask(np.random.default_rng(4))
    candidates = population.thetas(range(4000), Decoder(noise))
    strategy.tell([population], [evaluated(candidates @ slope)])
    step = strategy.theta - before
    assert step @ slope / np.linalg.norm(step) / np.linalg.norm(slope) > 0.99


def test_a011_pairs_are_mirrored_around_theta_and_differ(noise: NoiseTable) -> None:
    strategy = start(noise, pop_size=200)
    (population,) = strategy.ask(np.random.default_rng(5))
    assert len(population) == 200
    assert population.sigma == SIGMA
    assert len(set(population.noise_indices.tolist())) > 95
    plus, minus = population.thetas(range(200), Decoder(noise)).reshape(100, 2, DIM).swapaxes(0, 1)
    np.testing.assert_allclose((plus + minus) / 2, np.tile(strategy.theta, (100, 1)), atol=1e-6)
    assert 0.9 * SIGMA < (plus - strategy.theta).std() < 1.1 * SIGMA


@pytest.mark.parametrize("optimizer", ["SGD", "Adam", "AdamW"])
def test_a014_without_a_gradient_theta_shrinks(optimizer: str, noise: NoiseTable) -> None:
    strategy = start(noise, np.array([0.5, -0.5, 2.0, -2.0] * 3), optimizer=optimizer)
    for _ in range(3):
        before = strategy.theta
        strategy.tell(strategy.ask(np.random.default_rng(0)), [evaluated(np.full(10, 7.0))])
        assert (np.sign(strategy.theta) == np.sign(before)).all()
        assert (np.abs(strategy.theta) < np.abs(before)).all()
        if optimizer != "Adam":
            np.testing.assert_allclose(strategy.theta, before * (1 - LR * L2), rtol=1e-6)


@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
def test_a014_without_a_gradient_and_decay_theta_stays(optimizer: str, noise: NoiseTable) -> None:
    strategy = start(noise, optimizer=optimizer, l2coeff=0.0)
    before = strategy.theta
    told = strategy.tell(strategy.ask(np.random.default_rng(0)), [evaluated(np.full(10, 7.0))])
    assert np.array_equal(strategy.theta, before)
    assert told == {"grad norm": 0.0, "update ratio": 0.0}


@pytest.mark.parametrize("seed", range(3))
def test_a016_the_sphere_converges_within_150_generations(seed: int, noise: NoiseTable) -> None:
    """With the settings of ``with sphere``, from about 3 away in each component."""
    problem = choose_problem(
        env_name="Sphere-v0", policy_kwargs={"hidden_sizes": []}, action_scaling="none"
    )
    theta = np.random.default_rng(seed).normal(0, 2, problem.make_policy().num_params)
    strategy = start(noise, theta, pop_size=50, sigma=0.05, lr=0.05, l2coeff=0.0)
    with LocalEvaluator(problem, noise) as evaluator:
        run = evolve(
            strategy, evaluator, generations=150, episodes=1, eval_episodes=1, seeding=Seeding(seed)
        )
        fitness = [generation.fitness for generation in run]
    assert fitness[0] < -20
    assert fitness[-1] > -1e-2


@pytest.mark.parametrize("optimizer", ["Adam", "SGD", "RMSprop"])
def test_state_and_restore_go_on_as_if_nothing_had_happened(
    optimizer: str, noise: NoiseTable
) -> None:
    def advance(strategy: OpenAIES, first: int, last: int) -> np.ndarray:
        for number in range(first, last):
            rng = np.random.default_rng(number)
            strategy.tell(strategy.ask(rng), [evaluated(rng.normal(size=10))])
        return strategy.theta

    original = start(noise, optimizer=optimizer, lr_decay=0.9)
    advance(original, 0, 4)
    state = original.state()
    expected = advance(original, 4, 9)
    for _ in range(2):  # neither going on nor a restored run has changed the state
        other = start(noise, np.zeros(DIM), optimizer=optimizer, lr_decay=0.9)
        other.restore(state)
        assert np.array_equal(advance(other, 4, 9), expected)


def test_theta_is_replaced_never_changed_in_place(noise: NoiseTable) -> None:
    strategy = start(noise)
    theta, (population,) = strategy.theta, strategy.ask(np.random.default_rng(0))
    kept = theta.copy()
    strategy.tell([population], [evaluated(np.arange(10))])
    assert np.array_equal(theta, kept)
    assert np.array_equal(population.centre, kept)
    assert not np.array_equal(strategy.theta, kept)
    theta[:] = 0
    assert strategy.theta.any()


def test_the_first_theta_is_not_the_callers(noise: NoiseTable) -> None:
    theta = np.ones(DIM, np.float32)
    strategy = start(noise, theta)
    strategy.tell(strategy.ask(np.random.default_rng(0)), [evaluated(np.arange(10))])
    assert np.array_equal(theta, np.ones(DIM))


def test_ask_draws_from_its_generator_alone(noise: NoiseTable) -> None:
    (first,), (second,) = (start(noise).ask(np.random.default_rng(6)) for _ in range(2))
    assert np.array_equal(first.noise_indices, second.noise_indices)
    (other,) = start(noise).ask(np.random.default_rng(7))
    assert not np.array_equal(first.noise_indices, other.noise_indices)


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ({"pop_size": 9}, "pop_size=9.*pairs"),
        ({"pop_size": 0}, "pop_size=0"),
        ({"sigma": 0.0}, "sigma=0.0"),
        ({"sigma": float("nan")}, "sigma=nan"),
        ({"lr": -1.0}, "lr=-1.0"),
        ({"lr_decay": 1.1}, "lr_decay=1.1"),
        ({"lr_decay": 0.0}, "lr_decay=0.0"),
        ({"l2coeff": -0.1}, "l2coeff=-0.1"),
        ({"theta": np.zeros(200_001)}, "noise_size=200000 is too small"),
    ],
)
def test_bad_settings_are_refused(setting: dict, reason: str, noise: NoiseTable) -> None:
    with pytest.raises(ValueError, match=reason):
        start(noise, **setting)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("adam", "no optimizer 'adam' in torch.optim. Did you mean 'Adam'"),
        ("LBFGS", "cannot maximize a plain gradient"),
        ("SparseAdam", "SparseAdam"),
        ("Optimizer", "no optimizer"),
        ("lr_scheduler", "no optimizer"),
    ],
)
def test_optimizers_that_cannot_serve_are_refused(name: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        make_optimizer(name, torch.zeros(3), lr=0.1, weight_decay=0.0)
