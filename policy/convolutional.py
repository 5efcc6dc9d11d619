"""Networks that look at pictures: convolutions, then fully connected layers, ReLU between them.

| network | convolutions: units, size, stride | fully connected | made for |
|---|---|---|---|
| `nature` | 32 of 8/4, 64 of 4/2, 64 of 3/1 | 512 | 4 × 84 × 84 grey; Mnih et al. 2015 |
| `ibm` | 32 of 8/4, 32 of 6/3, 64 of 4/2, 64 of 3/1 | 128 | 3 × 210 × 160 colour |
| `cshenton` | 16 of 8/4, 32 of 4/2, both padded to keep the edges | 256 | 3 × 210 × 160 colour |

They are those of three earlier systems (`nature` also that of ga-dist). What cshenton's has between
its layers, a batch normalization that never gathered statistics, changes nothing and is left out.
"""

import math
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar

import gymnasium as gym
import numpy as np
from numpy.lib.stride_tricks import as_strided

from policy.base import PolicyError, sizes
from policy.filters import Filters
from policy.twin import Twin

if TYPE_CHECKING:
    import torch

BRIGHTEST = 255  # a picture's values are divided by it


class Convolutional(Twin):
    """Base of the networks: a subclass says its layers.

    Each observation is computed by itself, by the same few calls of the same shapes, so that its
    outputs have the same bits whoever is computed beside it. A convolution over one picture is a
    product of matrices that is large enough for BLAS as it is; of the fully connected layers, what
    costs is to read the weights. They stay in the cache as long as it is always the same theta's
    turn, so lanes of different thetas had better not be played side by side.

    Args:
        observation_space: a Box of pictures, channels first, from 0 to 255.
        action_space: gives the number of outputs.
    Raises:
        PolicyError: the observations are no such pictures, or too small.
    """

    filters: ClassVar[tuple[Filters, ...]]
    hidden: ClassVar[tuple[int, ...]]

    def __init__(self, observation_space: gym.Space, action_space: gym.Space) -> None:
        _, self._outputs = sizes(observation_space, action_space)
        self._input_shape = observation_space.shape or ()
        if len(self._input_shape) != 3:
            raise PolicyError(
                f"observations have shape {self._input_shape}; a network for pictures needs"
                " (channels, height, width)"
            )
        self._convolutions = self._lay_out()
        last = self._convolutions[-1]
        self._widths = (last.values.size, *self.hidden, self._outputs)
        self._shapes = [shape for each in self._convolutions for shape in each.shapes]
        for width, next_width in pairwise(self._widths):
            self._shapes += [(next_width, width), (next_width,)]
        self.num_params = sum(map(math.prod, self._shapes))
        self._thetas = np.empty((0, self.num_params), np.float32)
        self._layers: list[list[np.ndarray]] = []  # of each theta
        self._owners = np.empty(0, np.int64)

    def _lay_out(self) -> "list[_Convolution]":
        found: list[_Convolution] = []
        channels, height, width = self._input_shape
        for filters in self.filters:
            if min(filters.places(height), filters.places(width)) < 1:
                raise PolicyError(
                    f"observations have shape {self._input_shape}: too small for this network"
                )
            before = found[-1].values if found else None
            found.append(_Convolution(filters, (channels, height, width), before))
            channels = filters.units
            height, width = filters.places(height), filters.places(width)
        return found

    def load(self, thetas: np.ndarray, owners: np.ndarray | None = None) -> None:
        """Let lane i compute with thetas[owners[i]], or thetas[i] without owners; copied."""
        thetas = np.asarray(thetas, np.float32)
        if thetas.ndim != 2 or thetas.shape[1] != self.num_params:
            raise PolicyError(
                f"thetas have shape {thetas.shape}, the policy needs (lanes, {self.num_params})"
            )
        if len(self._thetas) < len(thetas):  # new memory costs as much as copying
            self._thetas = np.empty(thetas.shape, np.float32)
        kept = self._thetas[: len(thetas)]
        np.copyto(kept, thetas)
        self._layers = [self._tensors(theta) for theta in kept]
        self._owners = np.arange(len(thetas)) if owners is None else np.asarray(owners)

    def _tensors(self, theta: np.ndarray) -> list[np.ndarray]:
        ends = np.cumsum([math.prod(shape) for shape in self._shapes])
        parts = np.split(theta, ends[:-1])
        tensors = [part.reshape(shape) for part, shape in zip(parts, self._shapes, strict=True)]
        for place, convolution in enumerate(self._convolutions):
            tensors[2 * place] = convolution.packed(tensors[2 * place])
        tensors[0] *= np.float32(1 / BRIGHTEST)  # which is as good as dividing the picture
        return tensors

    def reset(self, lanes: np.ndarray, seeds: np.ndarray | None = None) -> None:
        """Begin an episode: there is nothing to forget."""

    def act(self, observations: np.ndarray, lanes: np.ndarray) -> np.ndarray:
        """Compute one step: float32[n, outputs].

        Args:
            observations: float32[n, channels, height, width]; row r belongs to lane lanes[r].
            lanes: int64[n] without repeats.
        """
        expected = (len(lanes), *self._input_shape)
        try:
            pictures = np.asarray(observations).reshape(expected)
        except ValueError:
            raise PolicyError(
                f"observations have shape {np.shape(observations)}, the policy needs {expected}"
            ) from None
        if not self._layers:
            raise PolicyError("no parameters yet: call load(thetas) before act")
        outputs = np.empty((len(lanes), self._outputs), np.float32)
        features = np.empty(self._widths[0], np.float32)
        for row, owner in enumerate(self._owners[lanes].tolist()):
            self._look(pictures[row], self._layers[owner], features)
            outputs[row] = self._connect(features, self._layers[owner])
        return outputs

    def _look(self, picture: np.ndarray, tensors: list[np.ndarray], features: np.ndarray) -> None:
        """Compute the convolutions of one picture."""
        np.copyto(self._convolutions[0].inside, picture.transpose(1, 2, 0))
        layers = zip(tensors[::2], tensors[1::2], strict=True)
        for convolution, (kernels, bias) in zip(self._convolutions, layers, strict=False):
            convolution.compute(kernels, bias)
        channels_first = self._convolutions[-1].values.transpose(2, 0, 1)
        np.copyto(features.reshape(channels_first.shape), channels_first)

    def _connect(self, values: np.ndarray, tensors: list[np.ndarray]) -> np.ndarray:
        """Compute the fully connected layers: float32[outputs]."""
        begin = 2 * len(self._convolutions)
        layers = list(zip(tensors[begin::2], tensors[begin + 1 :: 2], strict=True))
        for place, (weights, bias) in enumerate(layers, 1):
            values = np.matmul(weights, values)
            np.add(values, bias, out=values)
            if place < len(layers):
                np.maximum(values, 0, out=values)
        return values

    def _build(self) -> "torch.nn.Module":
        from policy.picture_module import PictureModule

        return PictureModule(self._input_shape, self.filters, self._widths)


class Nature(Convolutional):
    """The network of Mnih et al. 2015, doi:10.1038/nature14236, and of Such et al. 2018."""

    filters = (Filters(32, 8, 4), Filters(64, 4, 2), Filters(64, 3, 1))
    hidden = (512,)


class IBM(Convolutional):
    """IBM's: 236,356 parameters for 4 actions and pictures of 3 × 210 × 160."""

    filters = (Filters(32, 8, 4), Filters(32, 6, 3), Filters(64, 4, 2), Filters(64, 3, 1))
    hidden = (128,)


class CShenton(Convolutional):
    """cshenton's: 17,280 values after the convolutions of pictures of 3 × 210 × 160."""

    filters = (Filters(16, 8, 4, padded=True), Filters(32, 4, 2, padded=True))
    hidden = (256,)


class _Convolution:
    """A layer's memory: the picture, what each unit sees of it, and what the units say."""

    def __init__(
        self, filters: Filters, shape: tuple[int, int, int], before: np.ndarray | None
    ) -> None:
        """Lay it out.

        Args:
            shape: channels, height and width of its picture.
            before: the values of the layer before, float32[height, width, channels].
        """
        size, stride, (channels, height, width) = filters.size, filters.stride, shape
        (above, below), (left, right) = filters.padding(height), filters.padding(width)
        rows, columns = filters.places(height), filters.places(width)
        self._before = before if filters.padded else None
        padded = before
        if before is None or filters.padded:
            padded = np.zeros((above + height + below, left + width + right, channels), np.float32)
        assert padded is not None
        self.inside = padded[above : above + height, left : left + width]
        down, along, each = padded.strides
        # [rows, columns, size, size * channels]: neighbours in a row of the picture stay together.
        self._views = as_strided(
            padded,
            (rows, columns, size, size * channels),
            (down * stride, along * stride, down, each),
        )
        self._seen = np.empty(self._views.shape, np.float32)
        self._matrix = self._seen.reshape(rows * columns, -1)
        self.values = np.empty((rows, columns, filters.units), np.float32)
        self._flat = self.values.reshape(rows * columns, -1)
        self._zeros = np.zeros_like(self._flat)  # a scalar is slower
        self.shapes = [(filters.units, channels, size, size), (filters.units,)]

    def packed(self, weights: np.ndarray) -> np.ndarray:
        """The weights [units, channels, size, size] as a matrix that `compute` takes."""
        return np.ascontiguousarray(weights.transpose(2, 3, 1, 0)).reshape(-1, len(weights))

    def compute(self, kernels: np.ndarray, bias: np.ndarray) -> None:
        """Set `values`, float32[rows, columns, units], to what the units say to the picture."""
        if self._before is not None:
            np.copyto(self.inside, self._before)
        np.copyto(self._seen, self._views)
        np.matmul(self._matrix, kernels, out=self._flat)
        np.add(self._flat, bias, out=self._flat)
        np.maximum(self._flat, self._zeros, out=self._flat)
