"""The Elman network: one hidden layer that sees its own last values."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import gymnasium as gym
import numpy as np

from policy.activations import activation, hidden_name, output_name
from policy.base import PolicyError, checked_hidden_sizes, sizes
from policy.lanes import LanePolicy

if TYPE_CHECKING:
    import torch


class Elman(LanePolicy):
    """h = activation(W [x; h] + b), output = activation(V h + c); h starts at zero.

    Elman 1990, "Finding structure in time".

    Args:
        observation_space: flattened to the inputs.
        action_space: gives the number of outputs.
        hidden_sizes: exactly one.
        hidden_activation: of h.
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
        if len(checked) != 1:
            raise PolicyError(
                f"hidden_sizes={list(checked)}: an Elman network has exactly one, such as [5]"
            )
        self._hidden = checked[0]
        self._names = hidden_name(hidden_activation), output_name(output_activation)
        self._activate_hidden, self._activate_output = map(activation, self._names)
        shapes: list[tuple[int, ...]] = [
            (self._hidden, self._inputs + self._hidden),
            (self._hidden,),
            (self._outputs, self._hidden),
            (self._outputs,),
        ]
        super().__init__(shapes, (self._inputs,), self._outputs, self._names[1])
        self._packed_shapes = [shape[::-1] for shape in shapes]
        self._memory_shapes = [(self._hidden,)]

    def _pack(self, tensors: list[np.ndarray], packed: list[np.ndarray]) -> None:
        # [lanes, in, out] is read faster by a vector from the left than [lanes, out, in].
        for weight, kept in zip(tensors[::2], packed[::2], strict=True):
            np.copyto(kept, weight.transpose(0, 2, 1))
        for bias, kept in zip(tensors[1::2], packed[1::2], strict=True):
            np.copyto(kept, bias)

    def _allocate(self, capacity: int) -> list[np.ndarray]:
        self._joined = np.zeros((capacity, self._inputs + self._hidden), np.float32)  # [x; h]
        self._buffers = [
            np.zeros((capacity, width), np.float32)
            for width in (self._hidden, self._hidden, self._outputs, self._outputs)
        ]
        return [self._joined[:, self._inputs :]]

    def _bind(self, rows: int) -> None:
        self._joined_rows = self._joined[:rows]
        self._x = self._joined_rows[:, : self._inputs]
        self._h = self._joined_rows[:, self._inputs :]
        self._parameters = [active[:rows] for active in self._active[:4]]
        self._values = [buffer[:rows] for buffer in self._buffers]

    def _forward(self, observations: np.ndarray) -> np.ndarray:
        weight, bias, output_weight, output_bias = self._parameters
        hidden, hidden_scratch, outputs, output_scratch = self._values
        np.copyto(self._x, observations)
        np.vecmat(self._joined_rows, weight, out=hidden)
        np.add(hidden, bias, out=hidden)
        self._activate_hidden(hidden, hidden_scratch)
        np.copyto(self._h, hidden)
        np.vecmat(hidden, output_weight, out=outputs)
        np.add(outputs, output_bias, out=outputs)
        self._activate_output(outputs, output_scratch)
        return outputs

    def _build(self) -> "torch.nn.Module":
        from policy import modules

        return modules.ElmanModule(self._inputs, self._hidden, self._outputs, self._names)
