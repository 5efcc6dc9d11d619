"""Networks by name, and the one-line errors at that border."""

import logging
import textwrap

import gymnasium as gym
import numpy as np
import pytest

from policy.base import PolicyError, sizes
from policy.elman import Elman
from policy.feedforward import FeedForward
from policy.lstm import LSTM
from policy.registry import make_policy
from policy.torch_module import TorchModule
from utils.resolve import resolve

BOX = gym.spaces.Box(-1, 1, (3,), np.float32)
NETS = """
import torch
from policy.feedforward import FeedForward

class Net(torch.nn.Module):
    def __init__(self, observation_space, action_space, outputs=3, kind=torch.float32):
        super().__init__()
        self.layer = torch.nn.Linear(3, outputs, dtype=kind)
        self.again = self.layer
    def forward(self, observation):
        return self.layer(observation)

class Grown(torch.nn.Module):
    def __init__(self, observation_space, action_space):
        super().__init__()
        self.layer = torch.nn.Linear(3, 3)
    def initial_state(self):
        return torch.zeros(2)
    def forward(self, observation, state):
        return self.layer(observation), torch.cat([state, state])

class Coin(Net):
    def forward(self, observation):
        return self.layer(observation) + torch.rand(3)

class Wide(FeedForward):
    pass

class Double(Net):
    def __init__(self, observation_space, action_space):
        super().__init__(observation_space, action_space, kind=torch.float64)

class Nothing:
    pass
"""


@pytest.fixture
def nets(tmp_path, monkeypatch):
    (tmp_path / "policy_test_nets.py").write_text(textwrap.dedent(NETS))
    (tmp_path / "policy_test_broken.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("feedforward", FeedForward),
        ("elman", Elman),
        ("lstm", LSTM),
        ("policy.feedforward:FeedForward", FeedForward),
        ("policy.lstm.LSTM", LSTM),
    ],
)
def test_built_in_names(name, kind):
    assert type(make_policy(name, BOX, BOX, hidden_sizes=[4])) is kind


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("policy.ff_network.FFNetwork", FeedForward),
        ("policy.elman_network.ElmanNetwork", Elman),
        ("policy.lstm_network.LSTMNetwork", LSTM),
    ],
)
def test_retired_names_still_work_and_say_so(name, kind, caplog):
    with caplog.at_level(logging.WARNING):
        assert type(make_policy(name, BOX, BOX, hidden_sizes=[4])) is kind
    assert [name in record.getMessage() for record in caplog.records] == [True]


def test_classes_of_the_user(nets):
    policy = make_policy("policy_test_nets:Net", BOX, BOX)
    assert isinstance(policy, TorchModule) and policy.num_params == 12  # tied layers count once
    theta = np.arange(12, dtype=np.float32)
    policy.load(theta[None])
    outputs = policy.act(np.ones((1, 3), np.float32), np.arange(1))
    np.testing.assert_array_equal(outputs, [[3 + 9, 12 + 10, 21 + 11]])
    np.testing.assert_array_equal(policy.theta_from_state_dict(policy.state_dict(theta)), theta)
    wide = make_policy("policy_test_nets.Wide", BOX, BOX, hidden_sizes=[100])
    assert type(wide).__name__ == "Wide"


@pytest.mark.parametrize(
    ("network", "settings", "message"),
    [
        ("feedfoward", {}, "Did you mean 'feedforward'.*Known: feedforward, elman, lstm"),
        ("policy.feedfoward.FeedForward", {}, "Did you mean 'policy.feedforward.FeedForward'"),
        ("policy.feedforward:FeedFoward", {}, "Did you mean 'FeedForward'"),
        ("no_such_module:Net", {}, "No module named 'no_such_module'.*PYTHONPATH"),
        ("policy_test_broken:Net", {}, "ZeroDivisionError: division by zero"),
        ("policy_test_nets:Nothing", {}, "lacks initial_theta, load, reset, act"),
        ("policy_test_nets:Net", {"outputs": 4}, "Net gives 4 outputs, the action space has 3"),
        ("policy_test_nets:Net", {"output": 4}, "cannot make Net: TypeError.*'output'"),
        ("policy_test_nets:Double", {}, "needs float32 parameters; it has torch.float64"),
        ("policy_test_nets:Grown", {}, r"state of shapes \[\(4,\)\].*\[\(2,\)\]"),
        ("policy_test_nets:Coin", {}, r"Coin fails under .*vmap on .* shape \(3,\): RuntimeError"),
        ("torch.nn:Identity", {}, "it has none"),
        ("feedforward", {"hiden_sizes": [4]}, "no setting 'hiden_sizes'. Did you mean 'hidden_siz"),
        ("feedforward", {"hidden_sizes": [4, 0]}, r"\[4, 0\]: 0 is not a whole number from 1"),
        ("feedforward", {"hidden_sizes": [-1]}, "-1 is not a whole"),
        ("feedforward", {"hidden_sizes": [4.0]}, "4.0 is not a whole"),
        ("feedforward", {"hidden_sizes": [True]}, "True is not a whole"),
        ("feedforward", {"hidden_sizes": 64}, r"=64: give a list such as \[64, 64\]"),
        ("elman", {"hidden_sizes": [4, 4]}, r"\[4, 4\]: an Elman network has exactly one"),
        ("elman", {"hidden_sizes": []}, r"\[\]: an Elman network has exactly one"),
        ("lstm", {"hidden_sizes": [4, 5]}, r"\[4, 5\]: an LSTM has one or more, all equal"),
        ("lstm", {"hidden_sizes": []}, r"\[\]: an LSTM has one or more"),
    ],
)
def test_mistakes_are_one_line(nets, network, settings, message):
    with pytest.raises(PolicyError, match=message) as caught:
        make_policy(network, BOX, BOX, **settings)
    assert "\n" not in str(caught.value)


def test_an_lstm_warns_of_another_hidden_activation(caplog):
    make_policy("lstm", BOX, BOX, hidden_sizes=[4], hidden_activation="relu")
    assert "relu" in caplog.text


def test_sizes_of_spaces():
    spaces = gym.spaces
    assert sizes(spaces.Discrete(5), spaces.Discrete(3)) == (5, 3)
    assert sizes(spaces.Box(0, 1, (2, 3)), spaces.Box(0, 1, (4, 2))) == (6, 8)
    assert sizes(spaces.MultiBinary(7), spaces.Box(0, 1, ())) == (7, 1)
    with pytest.raises(PolicyError, match=r"actions are MultiDiscrete\(\[2 3\]\)"):
        sizes(BOX, spaces.MultiDiscrete([2, 3]))
    with pytest.raises(PolicyError, match=r"observations are Dict.*FlattenObservation"):
        sizes(spaces.Dict({"a": BOX}), BOX)


def test_resolve_needs_an_address():
    assert resolve("policy.lstm:LSTM") is LSTM
    for address in ("lstm", "policy.lstm:", ":LSTM", "a b:C"):
        with pytest.raises(ValueError, match=r"package\.module:Name"):
            resolve(address)
