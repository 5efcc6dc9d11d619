"""What every policy promises. A new one is added to CASES."""

import io
from collections.abc import Callable
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import nn

from policy.base import Policy, PolicyError
from policy.convolutional import Nature
from policy.elman import Elman
from policy.feedforward import FeedForward
from policy.lstm import LSTM
from policy.torch_module import TorchModule


def box(*shape: int) -> gym.spaces.Box:
    return gym.spaces.Box(-1, 1, shape, np.float32)


class PlainNet(nn.Module):
    """A linear net with a buffer."""

    def __init__(self, observation_space, action_space, hidden=7):
        super().__init__()
        self.first = nn.Linear(observation_space.shape[0], hidden)
        self.norm = nn.BatchNorm1d(hidden)
        self.last = nn.Linear(hidden, action_space.shape[0])
        self.register_buffer("mix", torch.rand(hidden))

    def forward(self, observation):
        return self.last(self.norm(torch.relu(self.first(observation))[None])[0] * self.mix)


class ConvNet(nn.Module):
    """Reads small images."""

    def __init__(self, observation_space, action_space):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(observation_space.shape[0], 4, 3, stride=2),
            nn.ReLU(),
            nn.Conv2d(4, 8, 3),
            nn.ReLU(),
            nn.Flatten(0),
            nn.Linear(8 * 3 * 3, int(action_space.n)),
        )

    def forward(self, observation):
        return self.layers(observation)


class MemoryNet(nn.Module):
    """Recurrent, with a tuple of states that do not begin at zero."""

    def __init__(self, observation_space, action_space):
        super().__init__()
        self.cell = nn.Linear(observation_space.shape[0] + 6, 6)
        self.last = nn.Linear(6, action_space.shape[0])

    def initial_state(self):
        return torch.ones(6), torch.full((1,), 0.5)

    def forward(self, observation, state):
        hidden, decay = state
        hidden = torch.tanh(self.cell(torch.cat([observation, hidden]))) * decay
        return self.last(hidden), (hidden, decay * 0.9)


class Case(NamedTuple):
    kind: Callable[..., Any]
    observation_space: gym.Space
    action_space: gym.Space
    settings: dict[str, Any]

    def make(self) -> Policy:
        return self.kind(self.observation_space, self.action_space, **self.settings)

    def observations(self, rng: np.random.Generator, lanes: int) -> np.ndarray:
        shape = self.observation_space.shape or (self.observation_space.n,)
        return rng.standard_normal((lanes, *shape)).astype(np.float32)


CASES = {
    "linear": Case(FeedForward, box(8), box(2), {"hidden_sizes": []}),
    "relu": Case(FeedForward, box(3), box(1), {"hidden_activation": "relu"}),
    "mixed": Case(
        FeedForward,
        box(2, 4),
        gym.spaces.Discrete(5),
        {"hidden_sizes": [17, 5], "hidden_activation": "elu", "output_activation": "tanh"},
    ),
    "one-hot": Case(
        FeedForward,
        gym.spaces.Discrete(6),
        box(3, 2),
        {"hidden_activation": "lrelu", "output_activation": "discrete"},
    ),
    "elman": Case(Elman, box(4), gym.spaces.Discrete(2), {"hidden_sizes": [5]}),
    "elman-relu": Case(
        Elman, box(3), box(3), {"hidden_sizes": [9], "hidden_activation": "discrete"}
    ),
    "lstm": Case(LSTM, box(3), box(1), {"hidden_sizes": [16]}),
    "lstm-2": Case(LSTM, box(5), box(2), {"hidden_sizes": [7, 7], "output_activation": "tanh"}),
    "pictures": Case(Nature, box(2, 36, 36), gym.spaces.Discrete(3), {}),
    "torch": Case(TorchModule, box(5), box(2), {"network": PlainNet, "hidden": 9}),
    "torch-conv": Case(TorchModule, box(3, 12, 12), gym.spaces.Discrete(4), {"network": ConvNet}),
    "torch-memory": Case(TorchModule, box(4), box(2), {"network": MemoryNet}),
}
NOISY = {
    "gaussian": Case(FeedForward, box(3), box(2), {"output_activation": "gaussian"}),
    "gaussian-fixed": Case(
        LSTM, box(3), box(2), {"hidden_sizes": [5], "output_activation": "gaussian_fixed"}
    ),
}
RECURRENT = ["elman", "elman-relu", "lstm", "lstm-2", "torch-memory"]
every_case = pytest.mark.parametrize("name", CASES)
every_noisy_case = pytest.mark.parametrize("name", [*CASES, *NOISY])


def case_of(name: str) -> Case:
    return {**CASES, **NOISY}[name]


def random_thetas(policy: Policy, lanes: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((lanes, policy.num_params)).astype(np.float32) * np.float32(0.3)


def module_outputs(module: nn.Module, observations: np.ndarray) -> np.ndarray:
    """Run a module over the steps of one episode."""
    state = module.initial_state() if hasattr(module, "initial_state") else None
    outputs = []
    for observation in torch.from_numpy(observations):
        if state is None:
            output = module(observation)
        else:
            output, state = module(observation, state)
        outputs.append(output.detach().numpy().reshape(-1))
    return np.array(outputs)


@pytest.mark.parametrize(
    ("case", "count"),
    [
        (Case(FeedForward, box(8), box(2), {"hidden_sizes": []}), 18),
        (Case(FeedForward, box(28), box(8), {"hidden_sizes": [64, 64]}), 6536),
        (Case(LSTM, box(3), box(1), {"hidden_sizes": [16]}), 1361),
        (Case(Elman, box(4), gym.spaces.Discrete(2), {"hidden_sizes": [5]}), 62),
        (
            Case(
                FeedForward, box(8), box(2), {"hidden_sizes": [], "output_activation": "gaussian"}
            ),
            20,
        ),
    ],
)
def test_a060_parameter_counts(case, count):
    policy = case.make()
    assert policy.num_params == count
    assert sum(p.numel() for p in policy.module().parameters()) == count


@every_case
def test_act_equals_the_torch_module(name):
    case, rng = case_of(name), np.random.default_rng(1)
    policy, lanes = case.make(), np.arange(3)
    thetas = random_thetas(policy, 3)
    policy.load(thetas)
    for _episode in range(2):
        policy.reset(lanes)
        observations = np.stack([case.observations(rng, 3) for _ in range(6)])
        outputs = np.stack([policy.act(step, lanes).copy() for step in observations])
        assert outputs.dtype == np.float32
        for lane in lanes:
            module = policy.module()
            module.load_state_dict(policy.state_dict(thetas[lane]))
            episode = observations[:, lane]
            if case.kind is not TorchModule:  # the built-in ones read flat observations
                episode = episode.reshape(len(episode), -1)
            expected = module_outputs(module, episode)
            close = 1e-5 * max(1, np.abs(expected).max())
            np.testing.assert_allclose(outputs[:, lane], expected, rtol=1e-5, atol=close)


@every_noisy_case
def test_a061_theta_survives_a_saved_state_dict(name):
    policy = case_of(name).make()
    theta = random_thetas(policy, 1)[0]
    file = io.BytesIO()
    torch.save(policy.state_dict(theta), file)
    file.seek(0)
    loaded = torch.load(file, weights_only=True)
    back = policy.theta_from_state_dict(loaded)
    assert back.dtype == np.float32
    np.testing.assert_array_equal(back, theta)
    module = policy.module()
    module.load_state_dict(loaded)
    np.testing.assert_array_equal(
        nn.utils.parameters_to_vector(module.parameters()).detach().numpy(), theta
    )


@every_noisy_case
def test_initial_theta_depends_on_the_given_generator_alone(name):
    policy = case_of(name).make()
    before = torch.random.get_rng_state()
    first = policy.initial_theta(np.random.default_rng(3))
    torch.rand(1)
    again = policy.initial_theta(np.random.default_rng(3))
    other = policy.initial_theta(np.random.default_rng(4))
    assert first.shape == (policy.num_params,) and first.dtype == np.float32
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    torch.random.set_rng_state(before)
    policy.initial_theta(np.random.default_rng(3))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_initial_theta_is_what_pytorch_draws():
    policy = FeedForward(box(25), box(2), hidden_sizes=[400])
    seed = int(np.random.default_rng(5).integers(2**63))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = nn.Sequential(nn.Linear(25, 400), nn.Linear(400, 2))
    expected = nn.utils.parameters_to_vector(layers.parameters()).detach().numpy()
    np.testing.assert_array_equal(policy.initial_theta(np.random.default_rng(5)), expected)


@every_noisy_case
def test_a_lane_is_as_if_alone_while_others_come_and_go(name):
    """Swap-remove, refill, resets and pauses, against one policy object per lane."""
    case, rng, total = case_of(name), np.random.default_rng(7), 9
    together = case.make()
    thetas = random_thetas(together, total)
    together.load(thetas)
    alone = [case.make() for _ in range(total)]
    for policy, theta in zip(alone, thetas, strict=True):
        policy.load(theta[None])
    only = np.zeros(1, np.int64)
    for change in range(25):
        lanes = rng.permutation(total)[: rng.integers(1, total + 1)]
        fresh = lanes[rng.random(len(lanes)) < 0.3]
        seeds = rng.integers(-5, 2**62, len(fresh))
        together.reset(fresh, seeds)
        for lane, seed in zip(fresh, seeds, strict=True):
            alone[lane].reset(only, np.array([seed]))
        for _step in range(1 + 40 * (change == 3)):  # long enough for a second block of noise
            observations = case.observations(rng, len(lanes))
            outputs = together.act(observations, lanes)
            for row, lane in enumerate(lanes):
                expected = alone[lane].act(observations[row : row + 1], only)[0]
                np.testing.assert_array_equal(outputs[row], expected)


@every_noisy_case
def test_lanes_with_a_theta_in_common_are_as_if_each_had_its_own(name):
    """While neighbours share it regularly, when that ends, and after the next load."""
    case, rng = case_of(name), np.random.default_rng(4)
    sharing, apart = case.make(), case.make()
    everyone = np.arange(20)
    arrangements = [
        everyone,
        everyone[::-1].copy(),
        np.arange(5, 15),
        np.arange(3),
        np.arange(2, 9),
    ]
    arrangements += [rng.permutation(20)[:13], everyone, np.arange(10)]
    for seed, owners in enumerate([np.repeat(np.arange(4), 5), rng.integers(0, 4, 20)]):
        thetas = random_thetas(sharing, 4, seed)
        sharing.load(thetas, owners)
        apart.load(thetas[owners])
        for lanes in arrangements:
            for policy in (sharing, apart):
                policy.reset(lanes, lanes)
            for _step in range(2):
                observations = case.observations(rng, len(lanes))
                outputs, expected = (p.act(observations, lanes) for p in (sharing, apart))
                np.testing.assert_array_equal(outputs.view(np.uint32), expected.view(np.uint32))


def assert_bits_do_not_depend_on_the_batch(policy, case, total, counts):
    rng = np.random.default_rng(11)
    policy.load(random_thetas(policy, total))
    observations = case.observations(rng, total)
    policy.reset(np.arange(total))
    alone = np.concatenate(
        [policy.act(observations[i : i + 1], np.array([i])).copy() for i in range(total)]
    )
    assert len(np.unique(alone, axis=0)) > 1
    for count in counts:
        lanes = rng.permutation(total)[:count]
        policy.reset(lanes)
        outputs = policy.act(observations[lanes], lanes)
        np.testing.assert_array_equal(outputs.view(np.uint32), alone[lanes].view(np.uint32))


@every_case
def test_bits_do_not_depend_on_the_batch(name):
    case = case_of(name)
    counts = range(1, 71) if "torch" not in name else [1, 2, 7, 15, 16, 17, 31, 33, 64, 70]
    assert_bits_do_not_depend_on_the_batch(case.make(), case, 70, counts)


@pytest.mark.parametrize("inputs", [1, 3, 5, 17, 64, 65, 200])
@pytest.mark.parametrize("outputs", [1, 3, 5, 17, 64, 65, 200])
def test_bits_do_not_depend_on_the_batch_for_any_layer(inputs, outputs):
    settings = {"hidden_sizes": [], "output_activation": "tanh"}
    case = Case(FeedForward, box(inputs), box(outputs), settings)
    assert_bits_do_not_depend_on_the_batch(case.make(), case, 70, range(1, 71))


@pytest.mark.parametrize("hidden", [1, 3, 17, 65])
@pytest.mark.parametrize("kind", [Elman, LSTM])
def test_bits_do_not_depend_on_the_batch_for_any_memory(kind, hidden):
    case = Case(kind, box(5), box(3), {"hidden_sizes": [hidden]})
    assert_bits_do_not_depend_on_the_batch(case.make(), case, 70, range(1, 71))


@pytest.mark.parametrize("name", RECURRENT)
def test_a062_recurrent_state_is_forgotten_between_episodes(name):
    case = case_of(name)
    policy, lanes = case.make(), np.arange(2)
    policy.load(random_thetas(policy, 2))
    observations = case.observations(np.random.default_rng(2), 2)
    policy.reset(lanes)
    first = policy.act(observations, lanes).copy()
    second = policy.act(observations, lanes).copy()
    assert not np.array_equal(first, second)  # it does remember
    policy.reset(lanes[:1])
    third = policy.act(observations, lanes).copy()
    np.testing.assert_array_equal(third[0], first[0])
    assert not np.array_equal(third[1], first[1])
    policy.load(random_thetas(policy, 2))
    np.testing.assert_array_equal(policy.act(observations, lanes), first)


@every_case
def test_load_copies_and_replaces(name):
    case = case_of(name)
    policy, lanes = case.make(), np.array([1, 0])
    observations = case.observations(np.random.default_rng(2), 2)
    thetas = random_thetas(policy, 2)
    policy.load(thetas)
    first = policy.act(observations, lanes).copy()
    policy.load(random_thetas(policy, 5, seed=9))
    assert not np.array_equal(policy.act(observations, lanes), first)
    policy.load(thetas)
    thetas[:] = 0
    np.testing.assert_array_equal(policy.act(observations, lanes), first)


@every_case
def test_observations_of_another_layout_or_dtype_give_the_same_bits(name):
    case = case_of(name)
    policy, lanes = case.make(), np.arange(6)
    policy.load(random_thetas(policy, 6))
    observations = case.observations(np.random.default_rng(2), 6)
    policy.reset(lanes)
    expected = policy.act(observations, lanes).copy()
    for other in (np.asfortranarray(observations), observations.astype(np.float64)):
        policy.reset(lanes)
        np.testing.assert_array_equal(policy.act(other, lanes), expected)


def test_misuse_is_said():
    policy = FeedForward(box(3), box(1))
    observations = np.zeros((2, 3), np.float32)
    with pytest.raises(PolicyError, match="load"):
        policy.act(observations, np.arange(2))
    with pytest.raises(PolicyError, match=r"\(2, 5\).*\(lanes, 4481\)"):
        policy.load(np.zeros((2, 5), np.float32))
    policy.load(random_thetas(policy, 2))
    for lanes in ([0, 0], [0, 2], [-1, 0]):
        with pytest.raises(PolicyError, match="loaded lanes at most once"):
            policy.act(observations, np.array(lanes))
    with pytest.raises(PolicyError, match=r"\(2, 4\).*\(2, 3\)"):
        policy.act(np.zeros((2, 4), np.float32), np.arange(2))
    assert policy.act(observations, np.arange(2)).shape == (2, 1)


def test_a_foreign_state_dict_is_refused():
    policy, other = FeedForward(box(3), box(1)), FeedForward(box(4), box(1))
    state_dict = policy.state_dict(np.zeros(policy.num_params, np.float32))
    with pytest.raises(PolicyError, match=r"shape \(64, 3\).*\(64, 4\)"):
        other.theta_from_state_dict(state_dict)
    state_dict["extra"] = state_dict.pop("layers.0.weight")
    with pytest.raises(PolicyError, match=r"missing.*layers\.0\.weight.*unknown.*extra"):
        policy.theta_from_state_dict(state_dict)
    with pytest.raises(PolicyError, match=r"\(3,\).*\(4481,\)"):
        policy.state_dict(np.zeros(3))
