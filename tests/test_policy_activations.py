"""Activations mean what their names say, in NumPy and in torch."""

import gymnasium as gym
import numpy as np
import pytest
import torch

from policy.activations import ACTIVATIONS, activation
from policy.base import PolicyError
from policy.feedforward import FeedForward
from policy.lstm import LSTM
from policy.modules import activation_module

POINTS = [-100, -2, -1, -0.1, 0, 0.1, 1, 2, 100]
TABLE = {
    "none": POINTS,
    "tanh": [-1, -0.9640276, -0.7615942, -0.0996680, 0, 0.0996680, 0.7615942, 0.9640276, 1],
    "relu": [0, 0, 0, 0, 0, 0.1, 1, 2, 100],
    "lrelu": [-1, -0.02, -0.01, -0.001, 0, 0.1, 1, 2, 100],
    "elu": [-1, -0.8646647, -0.6321206, -0.0951626, 0, 0.1, 1, 2, 100],
    "discrete": [-1, -1, -0.8, 0, 0, 0, 0.8, 1, 1],
}
BOX = gym.spaces.Box(-1, 1, (2,), np.float32)


def apply(name: str, values: np.ndarray) -> np.ndarray:
    values = np.array(values, np.float32)
    activation(name)(values, np.zeros_like(values))
    return values


def test_the_table_names_every_activation():
    assert TABLE.keys() == ACTIVATIONS.keys()


@pytest.mark.parametrize("name", TABLE)
def test_a063_table_of_values(name):
    np.testing.assert_allclose(apply(name, POINTS), TABLE[name], rtol=1e-6, atol=1e-7)
    in_torch = activation_module(name, 9)(torch.tensor(POINTS, dtype=torch.float32))
    np.testing.assert_allclose(in_torch.numpy(), TABLE[name], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", TABLE)
def test_a063_bits_do_not_depend_on_place_or_length(name):
    values = np.random.default_rng(0).standard_normal(300).astype(np.float32) * 3
    whole = apply(name, values)
    for length in range(1, 40):
        for begin in range(0, 40):
            part = apply(name, values[begin : begin + length])
            np.testing.assert_array_equal(part, whole[begin : begin + length])


def test_a063_discrete_has_eleven_symmetric_levels():
    values = np.linspace(-4, 4, 100_001, dtype=np.float32)
    levels = apply("discrete", values)
    np.testing.assert_array_equal(np.unique(levels), np.arange(-5, 6, dtype=np.float32) / 5)
    np.testing.assert_array_equal(apply("discrete", -values), -levels)
    # Each inner level owns as much of tanh's range as any other, the outer two half of it.
    shares = np.diff(np.arctanh(np.arange(-4.5, 5) / 5))
    counts = np.unique(levels, return_counts=True)[1][1:-1]
    np.testing.assert_allclose(counts, shares * 12_500, atol=2)


def test_relu_stays_right_over_many_calls():
    values, scratch = np.empty(4, np.float32), np.zeros(4, np.float32)
    for sign in (1, -1, 1):
        values[:] = sign * np.arange(4)
        activation("relu")(values, scratch)
        np.testing.assert_array_equal(values, np.maximum(sign * np.arange(4), 0))


def noise_of(policy, thetas, seeds, steps):
    """Play `steps` steps of zero observations; returns [steps, lanes, outputs]."""
    lanes = np.arange(len(thetas))
    policy.load(thetas)
    policy.reset(lanes, np.array(seeds))
    observations = np.zeros((len(thetas), 2), np.float32)
    return np.array([policy.act(observations, lanes).copy() for _ in range(steps)])


def test_gaussian_std_is_learned_from_one_half():
    policy = FeedForward(BOX, BOX, hidden_sizes=[], output_activation="gaussian")
    theta = policy.initial_theta(np.random.default_rng(0))
    np.testing.assert_allclose(np.exp(theta[-2:]), 0.5, rtol=1e-6)
    theta[:] = 0
    theta[-2:] = np.log([0.1, 3])
    noise = noise_of(policy, theta[None], [1], 4000)[:, 0]
    np.testing.assert_allclose(noise.std(axis=0), [0.1, 3], rtol=0.05)
    np.testing.assert_allclose(noise.mean(axis=0) / [0.1, 3], 0, atol=0.06)


def test_gaussian_fixed_has_a_std_of_a_hundredth():
    policy = LSTM(BOX, BOX, hidden_sizes=[3], output_activation="gaussian_fixed")
    noise = noise_of(policy, np.zeros((1, policy.num_params)), [1], 4000)
    np.testing.assert_allclose(noise.std(), 0.01, rtol=0.05)


def test_gaussian_noise_is_a_function_of_seed_and_step():
    policy = FeedForward(BOX, BOX, output_activation="gaussian")
    thetas = np.repeat(policy.initial_theta(np.random.default_rng(0))[None], 3, axis=0)
    noise = noise_of(policy, thetas, [5, 6, 5], 70)
    np.testing.assert_array_equal(noise[:, 0], noise[:, 2])
    assert not np.any(np.all(noise[:, 0] == noise[:, 1], axis=1))
    assert len(np.unique(noise[:, 0, 0])) == 70
    np.testing.assert_array_equal(noise_of(policy, thetas[:1], [6], 70)[:, 0], noise[:, 1])
    without = noise_of(policy, thetas, [0, 0, 0], 3)
    policy.reset(np.arange(3))
    again = policy.act(np.zeros((3, 2), np.float32), np.arange(3))
    np.testing.assert_array_equal(again, without[0])


def test_gaussian_module_gives_the_mean_in_eval_mode_and_samples_in_train_mode():
    policy = FeedForward(BOX, BOX, hidden_sizes=[], output_activation="gaussian")
    plain = FeedForward(BOX, BOX, hidden_sizes=[])
    theta = policy.initial_theta(np.random.default_rng(0))
    module = policy.module()
    module.load_state_dict(policy.state_dict(theta))
    plain.load(theta[None, :-2])
    mean = plain.act(np.ones((1, 2), np.float32), np.arange(1))[0]
    np.testing.assert_allclose(module(torch.ones(2)).detach().numpy(), mean, rtol=1e-5)
    assert not torch.equal(module.train()(torch.ones(2)), module(torch.ones(2)))


def test_names_are_checked():
    with pytest.raises(PolicyError, match=r"hidden_activation 'rellu'.*'relu'.*Known: none"):
        FeedForward(BOX, BOX, hidden_activation="rellu")
    with pytest.raises(PolicyError, match=r"output_activation 'gausian'.*'gaussian'"):
        FeedForward(BOX, BOX, output_activation="gausian")
    with pytest.raises(PolicyError, match="hidden_activation 'gaussian'"):
        FeedForward(BOX, BOX, hidden_activation="gaussian")
    as_none = FeedForward(BOX, BOX, hidden_activation=None, output_activation=None)
    assert isinstance(as_none.module().activations[0], torch.nn.Identity)
