"""The plain multi-layer network."""

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import gymnasium as gym
import numpy as np

from policy.activations import activation, hidden_name, output_name
from policy.base import checked_hidden_sizes, sizes
from policy.lanes import LanePolicy

if TYPE_CHECKING:
    import torch


class FeedForward(LanePolicy):
    """Linear layers with an activation after each; without hidden sizes, one linear layer.

    Args:
        observation_space: flattened to the inputs.
        action_space: gives the number of outputs.
        hidden_sizes: units of the hidden layers, from the input on; may be empty.
        hidden_activation: after each hidden layer.
        output_activation: after the last layer.
    Raises:
        PolicyError: for settings or spaces that make no network.
    """

    _shares = True

    def __init__(
        self,
        observation_space: gym.Space,
        action_space: gym.Space,
        *,
        hidden_sizes: Sequence[int] = (64, 64),
        hidden_activation: str | None = "tanh",
        output_activation: str | None = "none",
    ) -> None:
        inputs, outputs = sizes(observation_space, action_space)
        self._widths = (inputs, *checked_hidden_sizes(hidden_sizes), outputs)
        self._names = [hidden_name(hidden_activation)] * (len(self._widths) - 2)
        self._names.append(output_name(output_activation))
        self._activations = [activation(name) for name in self._names]
        shapes: list[tuple[int, ...]] = []
        for width, next_width in pairwise(self._widths):
            shapes += [(next_width, width), (next_width,)]
        super().__init__(shapes, (inputs,), outputs, self._names[-1])
        self._packed_shapes = [shape[::-1] for shape in shapes]

    def _pack(self, tensors: list[np.ndarray], packed: list[np.ndarray]) -> None:
        # [lanes, in, out] is read faster by a vector from the left than [lanes, out, in].
        for weight, kept in zip(tensors[::2], packed[::2], strict=True):
            np.copyto(kept, weight.transpose(0, 2, 1))
        for bias, kept in zip(tensors[1::2], packed[1::2], strict=True):
            np.copyto(kept, bias)

    def _allocate(self, capacity: int) -> list[np.ndarray]:
        shapes = [(capacity, width) for width in self._widths[1:]]
        self._values = [np.zeros(shape, np.float32) for shape in shapes]
        self._scratch = [np.zeros(shape, np.float32) for shape in shapes]
        return []

    def _bind(self, rows: int) -> None:
        each, groups = self._each, rows // self._each
        self._grouped = (groups, each, self._widths[0])
        self._layers = [
            (
                self._active[2 * layer][:groups, None],
                self._active[2 * layer + 1][:rows],
                activate,
                self._values[layer][:rows],
                self._values[layer][:rows].reshape(groups, each, -1),
                self._scratch[layer][:rows],
            )
            for layer, activate in enumerate(self._activations)
        ]

    def _forward(self, observations: np.ndarray) -> np.ndarray:
        inputs = observations.reshape(self._grouped)
        for weight, bias, activate, values, grouped, scratch in self._layers:
            np.vecmat(inputs, weight, out=grouped)
            np.add(values, bias, out=values)
            activate(values, scratch)
            inputs = grouped
        return values

    def _build(self) -> "torch.nn.Module":
        from policy import modules

        return modules.FeedForwardModule(self._widths, self._names)
