"""Any torch module as a policy, computed for many lanes with `torch.func.vmap`."""

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import nn
from torch.func import functional_call, vmap
from torch.utils import _pytree as pytree  # the tree walk that vmap itself uses

from policy import modules
from policy.base import PolicyError, sizes
from policy.lanes import LanePolicy

# Lanes per call of torch. The shape never changes (spare lanes compute zeros), because torch's
# kernels give a lane other bits when fewer run beside it.
BLOCK = 16


class TorchModule(LanePolicy):
    """Evaluates `network(observation_space, action_space, **network_kwargs)` for many lanes.

    The module's `forward` takes one observation of the space's own shape, without a batch axis,
    and returns one number per output. A recurrent module also has `initial_state()`, returning a
    tensor or a tuple of tensors, and `forward(observation, state) -> (output, state)`. It is
    called in eval mode; buffers keep the values they have after construction, the same everywhere
    as they are drawn from a fixed seed. What vmap cannot run is refused when the policy is made:
    PyTorch's recurrent layers are (use network=lstm, or write the cell with `nn.Linear`), and so is
    drawing random numbers.

    Args:
        observation_space: handed to the network.
        action_space: handed to the network; its size is the number of outputs.
        network: the class.
        device: where torch computes, "cpu" or "cuda".
        network_kwargs: further arguments of the network.
    Raises:
        PolicyError: in one line, if the class is no module, cannot be made, does not run on one
            observation or gives another number of outputs.
    """

    def __init__(
        self,
        observation_space: gym.Space,
        action_space: gym.Space,
        *,
        network: type[nn.Module],
        device: str = "cpu",
        **network_kwargs: Any,
    ) -> None:
        if not (isinstance(network, type) and issubclass(network, nn.Module)):
            raise PolicyError(f"{network!r} is not a torch.nn.Module class")
        _, outputs = sizes(observation_space, action_space)
        self._title = network.__name__
        self._make = lambda: network(observation_space, action_space, **network_kwargs)
        self._network: Any = self._made(device)
        self._parameter_names = [name for name, _ in self._network.named_parameters()]
        shapes = [tuple(value.shape) for value in self._network.parameters()]
        input_shape = observation_space.shape or (gym.spaces.flatdim(observation_space),)
        super().__init__(shapes, input_shape, outputs)
        self._outputs, self._device = outputs, torch.device(device)
        self._recurrent = hasattr(self._network, "initial_state")
        self._step = vmap(self._call, in_dims=(0, 0, 0) if self._recurrent else (0, 0))
        self._prepare_state()
        self._try_out(outputs)

    def _made(self, device: str) -> nn.Module:
        try:
            module = modules.seeded(self._make, 0).eval().to(device)
        except Exception as error:  # whatever the user's constructor raises
            raise PolicyError(f"cannot make {self._title}: {_one_line(error)}") from error
        kinds = {value.dtype for value in module.parameters()}
        if kinds != {torch.float32}:
            found = ", ".join(sorted(map(str, kinds))) or "none"
            raise PolicyError(f"{self._title} needs float32 parameters; it has {found}")
        return module.requires_grad_(False)

    def _call(self, parameters: dict[str, torch.Tensor], *inputs: torch.Tensor) -> Any:
        return functional_call(self._network, parameters, inputs)

    # --- recurrent state: a tree of tensors, kept per lane as one array per tensor

    def _prepare_state(self) -> None:
        if not self._recurrent:
            self._initial: list[np.ndarray] = []
            return
        try:
            leaves, self._state_tree = pytree.tree_flatten(self._network.initial_state())
            self._initial = [leaf.detach().cpu().float().numpy() for leaf in leaves]
        except Exception as error:  # the user's code again
            raise PolicyError(f"{self._title}.initial_state(): {_one_line(error)}") from error
        self._memory_shapes = [tuple(leaf.shape) for leaf in self._initial]

    def load(self, thetas: np.ndarray, owners: np.ndarray | None = None) -> None:
        """Let lane i compute with thetas[owners[i]], or thetas[i] without owners."""
        super().load(thetas, owners)
        for memory, initial in zip(self._memory, self._initial, strict=True):
            memory[:] = initial

    def reset(self, lanes: np.ndarray, seeds: np.ndarray | None = None) -> None:
        """Begin an episode in int64[n] lanes: they take the module's initial state."""
        rows = self._row_of[lanes]
        rows = rows[rows >= 0]
        for memory, initial in zip(self._memory, self._initial, strict=True):
            memory[lanes] = initial
        for state, initial in zip(self._state, self._initial, strict=False):
            state[rows] = initial

    # --- rows, in blocks of a fixed size

    def _pack(self, tensors: list[np.ndarray], packed: list[np.ndarray]) -> None:
        for tensor, kept in zip(tensors, packed, strict=True):
            np.copyto(kept, tensor)

    def _grow(self, capacity: int) -> None:
        super()._grow(-(-capacity // BLOCK) * BLOCK)

    def _allocate(self, capacity: int) -> list[np.ndarray]:
        self._observations = np.zeros((capacity, *self._input_shape), np.float32)
        self._values = np.zeros((capacity, self._outputs), np.float32)
        return [np.zeros((capacity, *shape), np.float32) for shape in self._memory_shapes]

    def _arrange(self, lanes: np.ndarray) -> None:
        super()._arrange(lanes)
        rows = self._rows
        self._observations[rows:] = 0
        self._blocks = [slice(begin, begin + BLOCK) for begin in range(0, rows, BLOCK)]
        self._block_parameters = [self._parameters(block) for block in self._blocks]

    def _parameters(self, block: slice) -> dict[str, torch.Tensor]:
        return {
            name: self._tensor(active[block])
            for name, active in zip(self._parameter_names, self._active, strict=True)
        }

    def _tensor(self, values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(values).to(self._device)

    def _bind(self, rows: int) -> None:
        pass

    @torch.no_grad()
    def _forward(self, observations: np.ndarray) -> np.ndarray:
        self._observations[: self._rows] = observations
        for block, parameters in zip(self._blocks, self._block_parameters, strict=True):
            inputs = self._tensor(self._observations[block])
            if self._recurrent:
                leaves = [self._tensor(state[block]) for state in self._state]
                tree = pytree.tree_unflatten(leaves, self._state_tree)
                output, tree = self._step(parameters, inputs, tree)
                for state, leaf in zip(self._state, pytree.tree_leaves(tree), strict=True):
                    state[block] = leaf.cpu().numpy()
            else:
                output = self._step(parameters, inputs)
            self._values[block] = output.cpu().numpy().reshape(BLOCK, -1)
        return self._values[: self._rows]

    def _try_out(self, outputs: int) -> None:
        parameters = {name: value[None] for name, value in self._network.named_parameters()}
        inputs: list[Any] = [torch.zeros((1, *self._input_shape), device=self._device)]
        if self._recurrent:
            leaves = [self._tensor(initial[None]) for initial in self._initial]
            inputs.append(pytree.tree_unflatten(leaves, self._state_tree))
        shapes: list[tuple[int, ...]] = []
        try:
            with torch.no_grad():
                output = self._step(parameters, *inputs)
            if self._recurrent:
                output, state = output
                shapes = [tuple(leaf.shape[1:]) for leaf in pytree.tree_leaves(state)]
            count = output[0].numel()
        except Exception as error:  # whatever the user's forward raises
            raise PolicyError(
                f"{self._title} fails under torch.func.vmap on an observation of shape "
                f"{self._input_shape}: "
                f"{_one_line(error)}"
            ) from error
        if count != outputs:
            raise PolicyError(
                f"{self._title} gives {count} outputs, the action space has {outputs}"
            )
        if shapes != self._memory_shapes:
            raise PolicyError(
                f"{self._title} returns a state of shapes {shapes}, "
                f"initial_state() has {self._memory_shapes}"
            )

    def _build(self) -> nn.Module:
        return self._make()


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
