"""Spaces: what a policy sees of an environment, and what its outputs become."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple

import env
from env.actions import decoder, num_outputs
from env.errors import EnvError
from env.observations import encoder
from env.partially_observable import VARIANTS

IMAGE = Box(0, 255, (4, 3, 2), np.uint8)
NESTED = Tuple([Discrete(3, start=5), Tuple([Box(-2.0, 2.0, (2, 2)), Discrete(2)])])


@pytest.mark.parametrize(
    "space", [Box(-1.0, 1.0, (3,)), Box(-np.inf, np.inf, (2, 3), np.float64), IMAGE, Box(0, 1, ())]
)
def test_a064_box_keeps_shape_and_numbers(space: Box) -> None:
    space.seed(1)
    raw = [space.sample() for _ in range(5)]
    after, encode = encoder(space)
    batch = encode(raw)
    assert batch.dtype == np.float32 and batch.shape == (5, *space.shape)
    assert np.array_equal(batch, np.array(raw).astype(np.float32))
    assert after.shape == space.shape and after.dtype == np.float32
    assert np.array_equal(after.high, space.high.astype(np.float32))


def test_a064_float32_passes_without_a_copy() -> None:
    raw = np.ones((4, 3), np.float32)
    assert encoder(Box(-1.0, 1.0, (3,)))[1](raw) is raw


@pytest.mark.parametrize("start", [0, 5, -2])
def test_a064_discrete_observation_is_one_hot(start: int) -> None:
    after, encode = encoder(Discrete(4, start=start))
    assert after.shape == (4,)
    values = [start + 3, start, start + 1]
    assert np.array_equal(encode(values), np.eye(4, dtype=np.float32)[[3, 0, 1]])
    column = np.array(values, np.int32)[:, None]
    assert np.array_equal(encode(column), encode(values))


def test_a064_nested_tuple_is_joined() -> None:
    after, encode = encoder(NESTED)
    box = np.array([[1.0, 2.0], [-1.0, 0.5]], np.float32)
    batch = encode([(6, (box, 0)), (5, (-box, 1))])
    expected = [[0, 1, 0, 1, 2, -1, 0.5, 1, 0], [1, 0, 0, -1, -2, 1, -0.5, 0, 1]]
    assert np.array_equal(batch, np.array(expected, np.float32))
    assert batch.dtype == np.float32 and after.shape == (9,)
    assert after.low.tolist() == [0, 0, 0, -2, -2, -2, -2, 0, 0]


@pytest.mark.parametrize(
    "space", [Dict(a=Discrete(2)), MultiBinary(3), Tuple([MultiDiscrete([2])])]
)
def test_a064_other_observations_are_refused(space: gym.Space) -> None:
    with pytest.raises(EnvError, match="is not served; Box, Discrete and Tuples"):
        encoder(space)


@pytest.mark.parametrize("scaling", ["none", "clip", "tanh"])
@pytest.mark.parametrize("start", [0, 3])
def test_a064_discrete_action_is_the_largest_output(scaling: str, start: int) -> None:
    space = Discrete(3, start=start)
    outputs = np.array([[0.1, 5.0, 5.0], [-3.0, -2.0, -1.0], [9.0, 0.0, 0.0]], np.float32)
    actions = decoder(space, scaling)(outputs)
    assert actions.tolist() == [start + 1, start + 2, start]
    assert all(space.contains(action) for action in actions)
    assert num_outputs(space) == 3


def test_a064_action_scalings() -> None:
    space = Box(np.array([[-2.0, 0.0]]), np.array([[2.0, 10.0]]), dtype=np.float32)
    outputs = np.array([[-5.0, -5.0], [0.0, 0.0], [1.0, 20.0]], np.float32)
    assert num_outputs(space) == 2
    raw = decoder(space, "none")(outputs)
    assert raw.shape == (3, 1, 2) and np.array_equal(raw.ravel(), outputs.ravel())
    cut = decoder(space, "clip")(outputs)
    assert np.array_equal(cut, np.array([[[-2, 0]], [[0, 0]], [[1, 10]]], np.float32))
    squashed = decoder(space, "tanh")(outputs)
    middle = (np.tanh(outputs.astype(np.float64)) + 1) / 2
    expected = np.array([-2.0, 0.0]) + middle * np.array([4.0, 10.0])
    assert np.allclose(squashed, expected[:, None], atol=1e-6)
    for actions in (cut, squashed):
        assert actions.dtype == np.float32
        assert all(space.contains(action) for action in actions)


@pytest.mark.parametrize("scaling", ["none", "clip", "tanh"])
def test_a064_action_does_not_depend_on_the_batch(scaling: str) -> None:
    outputs = np.random.default_rng(0).normal(size=(67, 5), scale=3).astype(np.float32)
    decode = decoder(Box(-0.4, 0.4, (5,)), scaling)
    alone = np.concatenate([decode(row[None]) for row in outputs])
    assert np.array_equal(decode(outputs), alone)


@pytest.mark.parametrize(
    ("space", "scaling", "message"),
    [
        (Box(-np.inf, np.inf, (2,)), "tanh", "needs finite bounds"),
        (Box(-1.0, 1.0, (2,)), "tahn", "no action scaling 'tahn'.* Did you mean 'tanh'"),
        (Discrete(2), "clipp", "Did you mean 'clip'"),
        (MultiDiscrete([2, 2]), "none", "is not served; Discrete and Box of floats"),
        (Tuple([Box(-1.0, 1.0, (1,))]), "none", "is not served"),
        (Box(0, 9, (2,), np.int64), "none", "is not served"),
    ],
)
def test_a064_actions_that_are_refused(space: gym.Space, scaling: str, message: str) -> None:
    with pytest.raises(EnvError, match=message):
        decoder(space, scaling)


@pytest.mark.parametrize(
    ("env_id", "base", "hidden"),
    [
        ("PartiallyObservablePendulum", "Pendulum-v1", [2]),
        ("PartiallyObservableCartPole", "CartPole-v1", [1, 3]),
        ("PartiallyObservableCartPoleEasy", "CartPole-v1", [3]),
    ],
)
def test_a065_wrapper_hides_exactly_the_stated_components(
    env_id: str, base: str, hidden: list[int]
) -> None:
    masked, plain = env.make(env_id), env.make(base)
    assert VARIANTS[f"{env_id}-v0"] == (base, tuple(hidden))
    assert masked.spec is not None and plain.spec is not None
    assert masked.spec.max_episode_steps == plain.spec.max_episode_steps
    for seed in (3, 4):  # it still seeds: both begin the same episode
        seen, _ = masked.reset(seed=seed)
        true, _ = plain.reset(seed=seed)
        action = plain.action_space.sample()
        for _ in range(5):
            expected = true.copy()
            expected[hidden] = 0
            assert np.array_equal(seen, expected)
            assert true[hidden].all()
            assert masked.observation_space.contains(seen)
            seen, reward, *_ = masked.step(action)
            true, expected_reward, *_ = plain.step(action)
            assert reward == expected_reward


def test_a065_time_limit_of_a_variant_holds() -> None:
    limited = env.make("PartiallyObservablePendulum", max_episode_steps=300)
    limited.reset(seed=0)
    ends = [limited.step(np.zeros(1, np.float32))[3] for _ in range(300)]
    assert ends == [False] * 299 + [True]
