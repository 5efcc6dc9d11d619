"""The built-in networks as torch modules, and the way between theta and a state_dict.

Importing this module imports torch, which takes two seconds; it is therefore imported where it is
needed, and playing episodes with a built-in policy never needs it.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from policy.activations import FIXED_STD, HALF_LEVELS, INITIAL_STD, LEAK
from policy.base import PolicyError

LSTMState = tuple[torch.Tensor, torch.Tensor]


class Discrete(nn.Module):
    """tanh rounded to the 11 levels -1, -0.8, … 1."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Return a tensor of the same shape."""
        levels = float(HALF_LEVELS)
        return torch.round(levels * torch.tanh(values)) / levels


class Gaussian(nn.Module):
    """A normal distribution around its input: the mean in eval mode, a sample in train mode.

    Args:
        outputs: how many numbers.
        learned: whether log(std) is a parameter, from std 0.5; otherwise std is 0.01.
    """

    def __init__(self, outputs: int, learned: bool) -> None:
        super().__init__()
        if learned:
            self.log_std = nn.Parameter(torch.full((outputs,), float(np.log(INITIAL_STD))))
        self._learned = learned

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Return a tensor of the same shape."""
        if not self.training:
            return values
        noise = torch.randn_like(values)
        return values + (self.log_std.exp() * noise if self._learned else FIXED_STD * noise)


def activation_module(name: str, outputs: int) -> nn.Module:
    """Make the activation of a checked name, for a layer of `outputs` units."""
    makers: dict[str, Callable[[], nn.Module]] = {
        "none": nn.Identity,
        "tanh": nn.Tanh,
        "relu": nn.ReLU,
        "lrelu": lambda: nn.LeakyReLU(float(LEAK)),
        "elu": nn.ELU,
        "discrete": Discrete,
        "gaussian": lambda: Gaussian(outputs, learned=True),
        "gaussian_fixed": lambda: Gaussian(outputs, learned=False),
    }
    return makers[name]()


class FeedForwardModule(nn.Module):
    """Linear layers between `widths`, the activation `names[i]` after layer i."""

    def __init__(self, widths: Sequence[int], names: Sequence[str]) -> None:
        super().__init__()
        pairs = list(pairwise(widths))
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in pairs)
        self.activations = nn.ModuleList(
            activation_module(name, width) for name, width in zip(names, widths[1:], strict=True)
        )

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        """Compute [..., outputs] from [..., inputs]."""
        values = observation
        for layer, activation in zip(self.layers, self.activations, strict=True):
            values = activation(layer(values))
        return values


class ElmanModule(nn.Module):
    """h = activation(W [x; h] + b), output = activation(V h + c)."""

    def __init__(self, inputs: int, hidden: int, outputs: int, names: Sequence[str]) -> None:
        super().__init__()
        self.hidden = nn.Linear(inputs + hidden, hidden)
        self.output = nn.Linear(hidden, outputs)
        self.hidden_activation = activation_module(names[0], hidden)
        self.output_activation = activation_module(names[1], outputs)

    def initial_state(self) -> torch.Tensor:
        """Return h at the beginning of an episode: [hidden]."""
        return self.hidden.weight.new_zeros(self.hidden.out_features)

    def forward(
        self, observation: torch.Tensor, state: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute output [..., outputs] and the new h from [..., inputs] and h."""
        joined = torch.cat([observation, state], dim=-1)
        state = self.hidden_activation(self.hidden(joined))
        return self.output_activation(self.output(state)), state


class LSTMModule(nn.Module):
    """`torch.nn.LSTM`, then a linear output layer."""

    def __init__(self, inputs: int, hidden: int, layers: int, outputs: int, name: str) -> None:
        super().__init__()
        self.lstm = nn.LSTM(inputs, hidden, layers)
        self.output = nn.Linear(hidden, outputs)
        self.output_activation = activation_module(name, outputs)

    def initial_state(self) -> LSTMState:
        """Return h and c at the beginning of an episode: [layers, hidden] each."""
        zeros = self.output.weight.new_zeros(self.lstm.num_layers, self.lstm.hidden_size)
        return zeros, zeros.clone()

    def forward(
        self, observation: torch.Tensor, state: LSTMState
    ) -> tuple[torch.Tensor, LSTMState]:
        """Compute output [..., outputs] and the new (h, c) from one step's [..., inputs]."""
        hidden, state = self.lstm(observation.unsqueeze(0), state)
        return self.output_activation(self.output(hidden.squeeze(0))), state


def seeded(build: Callable[[], nn.Module], seed: int) -> nn.Module:
    """Make a module initialised from `seed`; torch's global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(seed)
        return build()


def theta_of(module: nn.Module) -> np.ndarray:
    """Read a module's parameters as float32[num_params]."""
    return parameters_to_vector(module.parameters()).detach().cpu().numpy().astype(np.float32)


def state_dict(module: nn.Module, theta: np.ndarray) -> dict[str, torch.Tensor]:
    """Write `theta` into a module and return its state_dict, each tensor on its own memory.

    Raises:
        PolicyError: if theta has not the module's length.
    """
    parameters = list(module.parameters())
    count = sum(parameter.numel() for parameter in parameters)
    if np.shape(theta) != (count,):
        raise PolicyError(f"theta has shape {np.shape(theta)}, the policy needs ({count},)")
    vector_to_parameters(torch.from_numpy(np.array(theta, np.float32)), parameters)
    return {key: value.detach().clone() for key, value in module.state_dict().items()}


def theta_from_state_dict(module: nn.Module, given: Mapping[str, torch.Tensor]) -> np.ndarray:
    """Read theta from a state_dict that fits `module`.

    Raises:
        PolicyError: if keys or shapes differ, or a buffer has other values than the module's:
            theta holds parameters alone.
    """
    own = module.state_dict()
    missing, unknown = sorted(own.keys() - given.keys()), sorted(given.keys() - own.keys())
    if missing or unknown:
        raise PolicyError(
            f"the state_dict is of another network: missing {missing}, unknown {unknown}"
        )
    for key, value in own.items():
        if given[key].shape != value.shape:
            raise PolicyError(
                f"{key!r} has shape {tuple(given[key].shape)} in the state_dict, "
                f"the network needs {tuple(value.shape)}"
            )
    for key, buffer in module.named_buffers():
        if key in own and not torch.equal(given[key].cpu(), buffer.cpu()):
            raise PolicyError(
                f"buffer {key!r} differs from the network's own; theta cannot hold it"
            )
    parts = [given[key].detach().cpu().reshape(-1) for key, _ in module.named_parameters()]
    return torch.cat(parts).numpy().astype(np.float32)
