"""What the batched policies share: which lane sits in which row, and where its numbers are.

All parameters are kept, repacked for speed, in tables `[thetas, ...]`. Those of the lanes that run
are copied to *rows*: row r holds lane lanes[r], so that a forward pass is a few NumPy calls over
contiguous blocks. When a new array of lanes comes, only rows that changed are copied. While every
so many neighbours have a theta in common, one copy of its weights serves them all.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence

import numpy as np

from policy.activations import FIXED_STD
from policy.base import PolicyError
from policy.noise import LaneNoise
from policy.twin import Twin

NOBODY = np.iinfo(np.int64).min  # in place of a lane, in rows without one


class LanePolicy(Twin, ABC):
    """Base of the batched policies; implements `policy.base.Policy` over a forward pass.

    A subclass says how parameters are packed (`_pack`), which buffers its rows need
    (`_allocate`, `_bind`) and what one step computes (`_forward`). With `_shares` it reads the
    weights of the row r from row `r // self._each` of its tables.

    Args:
        shapes: of the parameter tensors, in the order of theta.
        input_shape: of one observation as `_forward` wants it.
        outputs: how many numbers one step gives.
        output_activation: only the Gaussian ones are applied here.
    """

    _shares = False

    def __init__(
        self,
        shapes: list[tuple[int, ...]],
        input_shape: tuple[int, ...],
        outputs: int,
        output_activation: str = "none",
    ) -> None:
        self._noise = LaneNoise(outputs) if output_activation.startswith("gaussian") else None
        self._learns_std = output_activation == "gaussian"
        self._shapes = [*shapes, *[(outputs,)] * self._learns_std]
        self.num_params = sum(int(np.prod(shape, dtype=np.int64)) for shape in self._shapes)
        self._input_shape = input_shape
        # Of one lane: its parameters as `_forward` reads them, and its recurrent state.
        self._packed_shapes: Sequence[tuple[int, ...]] = shapes
        self._memory_shapes: list[tuple[int, ...]] = []
        self._packed: list[np.ndarray] = []  # [thetas, ...] parameters
        self._memory: list[np.ndarray] = []  # [lanes, ...] state of lanes that are in no row
        self._active: list[np.ndarray] = []  # [capacity, ...] parameters of the rows: vectors by
        # row, matrices by `_each` rows
        self._state: list[np.ndarray] = []  # [capacity, ...] state of the rows
        self._capacity = 0
        self._leave_rows(np.zeros(0, np.int64))

    # --- to be written by a subclass

    @abstractmethod
    def _pack(self, tensors: list[np.ndarray], packed: list[np.ndarray]) -> None:
        """Write parameters [lanes, *shape] into arrays [lanes, *packed shape]."""

    @abstractmethod
    def _allocate(self, capacity: int) -> list[np.ndarray]:
        """Make buffers for `capacity` rows; return those that hold the rows' recurrent state."""

    @abstractmethod
    def _bind(self, rows: int) -> None:
        """Cut `self._active` and the buffers to the first `rows` rows."""

    @abstractmethod
    def _forward(self, observations: np.ndarray) -> np.ndarray:
        """Compute float32[rows, outputs] from float32[rows, *input_shape]."""

    # --- lanes

    def load(self, thetas: np.ndarray, owners: np.ndarray | None = None) -> None:
        """Let lane i compute with thetas[owners[i]], which are copied.

        Args:
            thetas: float32[n, num_params].
            owners: int64[lanes]; without it, lane i has thetas[i].
        """
        thetas = np.asarray(thetas, np.float32)
        if thetas.ndim != 2 or thetas.shape[1] != self.num_params:
            raise PolicyError(
                f"thetas have shape {thetas.shape}, the policy needs (lanes, {self.num_params})"
            )
        owners = np.arange(len(thetas)) if owners is None else owners
        lanes, rows = len(owners), len(thetas)
        if not self._packed or len(self._packed[0]) < rows:  # new memory costs as much as copying
            shapes = [*self._packed_shapes, *self._shapes[-1:] * self._learns_std]
            self._packed = [np.empty((rows, *shape), np.float32) for shape in shapes]
        tensors, packed = self._split(thetas), [array[:rows] for array in self._packed]
        if self._learns_std:
            np.exp(tensors.pop(), out=packed.pop())
        self._pack(tensors, packed)
        self._memory = [np.zeros((lanes, *shape), np.float32) for shape in self._memory_shapes]
        self._leave_rows(owners)
        if self._noise is not None:
            self._noise.load(lanes)

    def reset(self, lanes: np.ndarray, seeds: np.ndarray | None = None) -> None:
        """Begin an episode in int64[n] lanes with int64[n] seeds for Gaussian noise."""
        if self._noise is not None:
            self._noise.reset(lanes, seeds)
        if self._memory:
            rows = self._row_of[lanes]
            rows = rows[rows >= 0]
            for memory in self._memory:
                memory[lanes] = 0
            for state in self._state:
                state[rows] = 0

    def act(self, observations: np.ndarray, lanes: np.ndarray) -> np.ndarray:
        """Compute one step: float32[n, outputs], overwritten by the next call.

        Args:
            observations: float32[n, ...]; row r belongs to lane lanes[r].
            lanes: int64[n] without repeats, never changed in place by the caller.
        """
        if lanes is not self._lanes:
            self._arrange(lanes)
        outputs = self._forward(self._checked(observations))
        if self._noise is not None:
            noise = self._noise.draw(self._placed)
            noise *= self._std
            outputs += noise
        return outputs

    def _checked(self, observations: np.ndarray) -> np.ndarray:
        # Another layout or dtype would take another path through NumPy and give other bits.
        try:
            return np.ascontiguousarray(observations, np.float32).reshape(self._expected)
        except ValueError:
            raise PolicyError(
                f"observations have shape {np.shape(observations)}, "
                f"the policy needs {self._expected}"
            ) from None

    def _split(self, thetas: np.ndarray) -> list[np.ndarray]:
        tensors, begin = [], 0
        for shape in self._shapes:
            end = begin + int(np.prod(shape, dtype=np.int64))
            tensors.append(thetas[:, begin:end].reshape(len(thetas), *shape))
            begin = end
        return tensors

    def _leave_rows(self, owners: np.ndarray) -> None:
        self._lanes: np.ndarray | None = None
        self._owners = owners  # lane -> theta
        self._rows, self._each, self._may_share = 0, 1, self._shares
        self._lane_of = np.full(self._capacity, NOBODY)  # row -> lane
        self._row_of = np.full(len(owners), -1, np.int64)  # lane -> row, or -1
        self._forget_parameters()

    def _forget_parameters(self) -> None:
        self._thetas_of = {"rows": self._lane_of.copy(), "groups": self._lane_of.copy()}

    def _arrange(self, lanes: np.ndarray) -> None:
        # In most calls one or two rows change, so Python's loops below are short.
        rows = len(lanes)
        if rows > self._capacity:
            self._grow(rows)
        wanted = np.full(self._capacity, NOBODY)
        wanted[:rows] = lanes
        changed = (wanted != self._lane_of).nonzero()[0]
        rows_changed, arriving = changed.tolist(), wanted[changed].tolist()
        self._vacate(rows_changed)
        self._lanes = None  # until the rows are whole again
        for row, lane in zip(rows_changed, arriving, strict=True):
            if row < rows:
                self._occupy(row, lane)
        bound = self._rows, self._each
        self._place_parameters(self._owners[lanes])
        if bound != (rows, self._each):
            self._rows = rows
            self._expected = (rows, *self._input_shape)
            self._bind(rows)
            self._std = self._active[-1][:rows] if self._learns_std else np.float32(FIXED_STD)
        self._lanes, self._placed = lanes, wanted[:rows]

    def _grow(self, capacity: int) -> None:
        if not self._packed:
            raise PolicyError("no parameters yet: call load(thetas) before act")
        self._vacate(range(self._capacity))
        self._active = [np.zeros((capacity, *p.shape[1:]), np.float32) for p in self._packed]
        self._state = self._allocate(capacity)
        self._capacity, self._rows = capacity, 0
        self._lane_of = np.full(capacity, NOBODY)
        self._forget_parameters()

    def _vacate(self, rows: Iterable[int]) -> None:
        for row in rows:
            lane = self._lane_of[row]
            if lane == NOBODY:
                continue
            self._lane_of[row], self._row_of[lane] = NOBODY, -1
            for memory, state in zip(self._memory, self._state, strict=True):
                memory[lane] = state[row]

    def _occupy(self, row: int, lane: int) -> None:
        if not 0 <= lane < len(self._row_of) or self._row_of[lane] >= 0:
            raise PolicyError(
                f"lane {lane} is asked for in row {row}; give each of the "
                f"{len(self._row_of)} loaded lanes at most once"
            )
        self._lane_of[row], self._row_of[lane] = lane, row
        for memory, state in zip(self._memory, self._state, strict=True):
            state[row] = memory[lane]

    def _place_parameters(self, owners: np.ndarray) -> None:
        """Copy the thetas int64[rows] to the rows; only where there was another."""
        self._each = self._neighbours(owners)
        for kind, wanted in (("rows", owners), ("groups", owners[:: self._each])):
            there = self._thetas_of[kind][: len(wanted)]
            changed = (there != wanted).nonzero()[0]
            there[:] = wanted
            tables = [
                (packed, active)
                for packed, active in zip(self._packed, self._active, strict=True)
                if (active.ndim == 2) == (kind == "rows")
            ]
            for row, theta in zip(changed.tolist(), wanted[changed].tolist(), strict=True):
                for packed, active in tables:
                    active[row] = packed[theta]

    def _neighbours(self, owners: np.ndarray) -> int:
        """Count the neighbours that have their theta in common; 1 unless all have as many.

        Once that is so it stays, for going back and forth would cost more than it gains.
        """
        if self._may_share:
            borders = np.flatnonzero(owners[1:] != owners[:-1]) + 1
            each = int(borders[0]) if len(borders) else len(owners)
            regular = np.arange(each, len(owners), each)
            if each > 1 and len(owners) % each == 0 and np.array_equal(borders, regular):
                return each
            self._may_share = False
        return 1
