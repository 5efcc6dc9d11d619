"""Networks for pictures: sizes, what torch makes of them, and bits that no neighbour changes."""

import gymnasium as gym
import numpy as np
import pytest
import torch

from evolution.decoder import Decoder
from evolution.noise import NoiseTable
from ga.config import tensor_shapes
from policy.base import Policy, PolicyError
from policy.convolutional import Filters
from policy.registry import make_policy

GREY, COLOUR = (4, 84, 84), (3, 210, 160)
CASES = {"nature": (GREY, 18), "ibm": (COLOUR, 4), "cshenton": (COLOUR, 6)}
SMALL = {"nature": (2, 40, 36), "ibm": (3, 112, 116), "cshenton": (1, 21, 18)}
every_network = pytest.mark.parametrize("network", CASES)


def make(network: str, shape: tuple[int, ...], actions: int) -> Policy:
    pictures = gym.spaces.Box(0, 255, shape, np.float32)
    return make_policy(network, pictures, gym.spaces.Discrete(actions))


def some_thetas(policy: Policy, number: int) -> np.ndarray:
    rng = np.random.default_rng(5)
    return np.stack([policy.initial_theta(rng) for _ in range(number)])


def some_pictures(shape: tuple[int, ...], number: int) -> np.ndarray:
    return np.random.default_rng(6).integers(0, 256, (number, *shape)).astype(np.float32)


@pytest.mark.parametrize(
    ("network", "parameters", "features"),
    [("nature", 1_693_362, 3136), ("ibm", 236_356, 960), ("cshenton", 4_436_790, 17_280)],
)
def test_r214_r411_parameter_counts(network: str, parameters: int, features: int) -> None:
    """As in the earlier systems; IBM's on whole colour pictures, 4 actions."""
    policy = make(network, *CASES[network])
    assert policy.num_params == parameters
    module = policy.module()
    assert sum(each.numel() for each in module.parameters()) == parameters
    (first_linear, *_) = [each for each in module.modules() if isinstance(each, torch.nn.Linear)]
    assert first_linear.in_features == features


@every_network
def test_a061_outputs_are_those_of_the_torch_module(network: str) -> None:
    shape, actions = CASES[network]
    policy = make(network, shape, actions)
    thetas, pictures = some_thetas(policy, 2), some_pictures(shape, 3)
    policy.load(thetas, np.array([1, 0, 1]))
    outputs = policy.act(pictures, np.arange(3))
    assert outputs.shape == (3, actions) and outputs.dtype == np.float32
    for row, theta in enumerate(thetas[[1, 0, 1]]):
        module = policy.module()
        module.load_state_dict(policy.state_dict(theta))
        with torch.no_grad():
            expected = module(torch.from_numpy(pictures[row])).numpy()
        np.testing.assert_allclose(outputs[row], expected, rtol=1e-4, atol=1e-5)


@every_network
def test_bits_are_the_same_for_1_3_and_16_lanes_and_any_neighbours(network: str) -> None:
    shape, actions = CASES[network]
    policy = make(network, shape, actions)
    thetas, pictures = some_thetas(policy, 3), some_pictures(shape, 16)
    rng = np.random.default_rng(7)
    shared = np.zeros(16, np.int64)
    policy.load(thetas, shared)
    alone = [policy.act(pictures[i : i + 1], np.array([i]))[0].tobytes() for i in range(16)]
    assert len(set(alone)) > 1
    for owners in (shared, np.concatenate([shared[:4], rng.integers(1, 3, 12)])):
        policy.load(thetas, owners)
        for count in (1, 3, 16):
            lanes = rng.permutation(16)[:count]
            outputs = policy.act(pictures[lanes], lanes)
            for row, lane in enumerate(lanes):
                assert owners[lane] != 0 or outputs[row].tobytes() == alone[lane]


@every_network
def test_the_layout_of_pictures_in_memory_does_not_matter(network: str) -> None:
    shape, actions = SMALL[network], 3
    policy, lanes = make(network, shape, actions), np.arange(4)
    policy.load(some_thetas(policy, 4))
    pictures = some_pictures(shape, 4)
    by_pixel = np.ascontiguousarray(pictures.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    expected = policy.act(pictures, lanes)
    for other in (by_pixel, pictures.astype(np.uint8), pictures.astype(np.float64)):
        assert policy.act(other, lanes).tobytes() == expected.tobytes()


def test_loading_copies(noise: NoiseTable) -> None:
    policy = make("nature", SMALL["nature"], 2)
    thetas, pictures = some_thetas(policy, 2), some_pictures(SMALL["nature"], 2)
    policy.load(thetas)
    before = policy.act(pictures, np.arange(2))
    thetas[:] = 0
    assert policy.act(pictures, np.arange(2)).tobytes() == before.tobytes()


def test_ancestors_have_kernels_of_length_1() -> None:
    """IBM's were normalized along their channels alone, so that kernels had a length of 8."""
    policy = make("ibm", COLOUR, 4)
    shapes = tensor_shapes(policy)
    assert shapes[:4].tolist() == [[32, 192], [32, 0], [32, 1152], [32, 0]]
    with NoiseTable(300_000, 1) as noise:
        theta = Decoder(noise).ancestor(11, shapes)
    for name, tensor in policy.state_dict(theta).items():
        if tensor.dim() == 1:
            assert not tensor.any(), name
        else:
            np.testing.assert_allclose(tensor.flatten(1).norm(dim=1), 1, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize(("length", "places"), [(210, 53), (160, 40), (84, 21), (8, 2), (3, 1)])
def test_padded_filters_keep_the_edges(length: int, places: int) -> None:
    filters = Filters(1, 8, 4, padded=True)
    assert filters.places(length) == places == -(-length // 4)
    before, after = filters.padding(length)
    assert 0 <= after - before <= 1


def test_mistakes_are_one_line() -> None:
    for shape, message in [((5,), r"shape \(5,\); a network for pictures"), ((4, 7, 84), "small")]:
        with pytest.raises(PolicyError, match=message) as caught:
            make("nature", shape, 2)
        assert "\n" not in str(caught.value)
    policy = make("nature", SMALL["nature"], 2)
    pictures = some_pictures(SMALL["nature"], 1)
    with pytest.raises(PolicyError, match="load"):
        policy.act(pictures, np.zeros(1, np.int64))
    with pytest.raises(PolicyError, match=r"\(1, 5\).*\(lanes, "):
        policy.load(np.zeros((1, 5), np.float32))
    policy.load(some_thetas(policy, 1))
    with pytest.raises(PolicyError, match=r"\(1, 2, 40\).*\(1, 2, 40, 36\)"):
        policy.act(pictures[..., 0], np.zeros(1, np.int64))
    with pytest.raises(PolicyError, match="no setting 'hidden_sizes'"):
        make_policy("nature", gym.spaces.Box(0, 255, GREY), gym.spaces.Discrete(2), hidden_sizes=[])
