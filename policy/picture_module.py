"""The networks of `policy.convolutional` as torch modules."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn

from policy.filters import Filters

BRIGHTEST = 255


class PictureModule(nn.Module):
    """Convolutions, then linear layers, ReLU between them; reads values from 0 to 255."""

    def __init__(
        self, shape: Sequence[int], filters: Sequence[Filters], widths: Sequence[int]
    ) -> None:
        """Make it.

        Args:
            shape: channels, height and width of a picture.
            filters: the convolutional layers.
            widths: values after them, units of the hidden layers, outputs.
        """
        super().__init__()
        self._shape = tuple(shape)
        channels, height, width = self._shape
        layers: list[nn.Module] = []
        for each in filters:
            (above, below), (left, right) = each.padding(height), each.padding(width)
            layers.append(nn.ZeroPad2d((left, right, above, below)))
            layers += [nn.Conv2d(channels, each.units, each.size, each.stride), nn.ReLU()]
            channels = each.units
            height, width = each.places(height), each.places(width)
        self.convolutions = nn.Sequential(*layers)
        linear: list[nn.Module] = []
        for pair in pairwise(widths):
            linear += [nn.Linear(*pair), nn.ReLU()]
        self.linear = nn.Sequential(*linear[:-1])

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        """Compute [..., outputs] from pictures [..., channels, height, width], or flat ones."""
        pictures = observation.reshape(-1, *self._shape).float() / BRIGHTEST
        outputs = self.linear(self.convolutions(pictures).flatten(1))
        flat = observation.shape[-1] == math.prod(self._shape)
        leading = observation.shape[: -1 if flat else -len(self._shape)]
        return outputs.reshape(*leading, -1)
