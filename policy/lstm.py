"""The LSTM network."""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import gymnasium as gym
import numpy as np

from policy.activations import activation, hidden_name, output_name
from policy.base import PolicyError, checked_hidden_sizes, sizes
from policy.lanes import LanePolicy

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

HALF = np.float32(0.5)


class LayerRows(NamedTuple):
    """What one layer computes with, cut to the rows in use."""

    joined: np.ndarray  # [x; h]
    x: np.ndarray
    h: np.ndarray
    c: np.ndarray
    weight: np.ndarray
    bias: np.ndarray


class LSTM(LanePolicy):
    """LSTM layers of equal size, then a linear output layer; h and c start at zero.

    Parameters and equations are those of `torch.nn.LSTM`, with both of its bias vectors.

    Args:
        observation_space: flattened to the inputs.
        action_space: gives the number of outputs.
        hidden_sizes: one per layer, all equal.
        hidden_activation: an LSTM has tanh and no choice; others are warned of and not used.
        output_activation: after the last layer.
    Raises:
        PolicyError: for settings or spaces that make no network.
    """

    def __init__(
        self,
        observation_space: gym.Space,
        action_space: gym.Space,
        *,
        hidden_sizes: Sequence[int] = (64,),
        hidden_activation: str | None = "tanh",
        output_activation: str | None = "none",
    ) -> None:
        self._inputs, self._outputs = sizes(observation_space, action_space)
        checked = checked_hidden_sizes(hidden_sizes)
        if len(set(checked)) != 1:
            raise PolicyError(
                f"hidden_sizes={list(checked)}: an LSTM has one or more, all equal, such as [16]"
            )
        self._hidden, self._num_layers = checked[0], len(checked)
        if hidden_name(hidden_activation) != "tanh":
            log.warning("an LSTM is always tanh inside: %r is not used", hidden_activation)
        self._output_name = output_name(output_activation)
        self._activate_output = activation(self._output_name)
        self._widths = [self._inputs] + [self._hidden] * (self._num_layers - 1)
        shapes: list[tuple[int, ...]] = []
        gates = 4 * self._hidden
        for width in self._widths:
            shapes += [(gates, width), (gates, self._hidden), (gates,), (gates,)]
        shapes += [(self._outputs, self._hidden), (self._outputs,)]
        super().__init__(shapes, (self._inputs,), self._outputs, self._output_name)
        self._packed_shapes = [
            shape for w in self._widths for shape in ((w + self._hidden, gates), (gates,))
        ] + [(self._hidden, self._outputs), (self._outputs,)]
        self._memory_shapes = [(self._hidden,), (self._hidden,)] * self._num_layers

    def _pack(self, tensors: list[np.ndarray], packed: list[np.ndarray]) -> None:
        for layer, width in enumerate(self._widths):
            from_input, from_hidden, bias, other_bias = tensors[4 * layer : 4 * layer + 4]
            joined, summed = packed[2 * layer : 2 * layer + 2]
            self._pack_gates(joined[:, :width], from_input.transpose(0, 2, 1))
            self._pack_gates(joined[:, width:], from_hidden.transpose(0, 2, 1))
            self._pack_gates(summed, bias + other_bias)
        np.copyto(packed[-2], tensors[-2].transpose(0, 2, 1))
        np.copyto(packed[-1], tensors[-1])

    def _pack_gates(self, kept: np.ndarray, gates: np.ndarray) -> None:
        # Torch's i, f, g, o become i, f, o, g. As sigmoid(x) = tanh(x / 2) / 2 + 1 / 2, halving
        # i, f and o (which is exact) lets one tanh serve all four.
        size = self._hidden
        np.multiply(gates[..., : 2 * size], HALF, out=kept[..., : 2 * size])
        np.multiply(gates[..., 3 * size :], HALF, out=kept[..., 2 * size : 3 * size])
        np.copyto(kept[..., 3 * size :], gates[..., 2 * size : 3 * size])

    def _allocate(self, capacity: int) -> list[np.ndarray]:
        def zeros(width: int) -> np.ndarray:
            return np.zeros((capacity, width), np.float32)

        self._joined = [zeros(width + self._hidden) for width in self._widths]  # [x; h]
        self._cells = [zeros(self._hidden) for _ in self._widths]
        self._gates, self._candidate = zeros(4 * self._hidden), zeros(self._hidden)
        self._values, self._scratch = zeros(self._outputs), zeros(self._outputs)
        hidden = [j[:, w:] for j, w in zip(self._joined, self._widths, strict=True)]
        return [s for pair in zip(hidden, self._cells, strict=True) for s in pair]

    def _bind(self, rows: int) -> None:
        gates, size = self._gates[:rows], self._hidden
        self._squashed = gates, gates[:, : 3 * size]
        self._parts = [gates[:, k * size : (k + 1) * size] for k in range(4)]
        self._layers = []
        for layer, width in enumerate(self._widths):
            joined, cells = self._joined[layer][:rows], self._cells[layer][:rows]
            weight, bias = (a[:rows] for a in self._active[2 * layer : 2 * layer + 2])
            x, h = joined[:, :width], joined[:, width:]
            self._layers.append(LayerRows(joined, x, h, cells, weight, bias))
        first = 2 * self._num_layers
        self._output_rows = (
            self._active[first][:rows],
            self._active[first + 1][:rows],
            self._values[:rows],
            self._scratch[:rows],
        )
        self._candidate_rows = self._candidate[:rows]

    def _forward(self, observations: np.ndarray) -> np.ndarray:
        inputs = observations
        for layer in self._layers:
            inputs = self._step_layer(inputs, layer)
        weight, bias, values, scratch = self._output_rows
        np.vecmat(inputs, weight, out=values)
        np.add(values, bias, out=values)
        self._activate_output(values, scratch)
        return values

    def _step_layer(self, inputs: np.ndarray, layer: LayerRows) -> np.ndarray:
        joined, x, h, c, weight, bias = layer
        gates, sigmoids = self._squashed
        input_gate, forget_gate, output_gate, candidate = self._parts
        np.copyto(x, inputs)
        np.vecmat(joined, weight, out=gates)
        np.add(gates, bias, out=gates)
        np.tanh(gates, out=gates)
        np.multiply(sigmoids, HALF, out=sigmoids)
        np.add(sigmoids, HALF, out=sigmoids)
        np.multiply(c, forget_gate, out=c)
        np.multiply(input_gate, candidate, out=candidate)
        np.add(c, candidate, out=c)
        np.tanh(c, out=self._candidate_rows)
        np.multiply(output_gate, self._candidate_rows, out=h)
        return h

    def _build(self) -> "torch.nn.Module":
        from policy import modules

        return modules.LSTMModule(
            self._inputs, self._hidden, self._num_layers, self._outputs, self._output_name
        )
