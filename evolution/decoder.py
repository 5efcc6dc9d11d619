"""Writes out genomes: lists of indices into the noise table, as in Such et al. 2018, section 3.

The first index makes an ancestor, each further one a mutation. Children are mostly of parents that
have been written out before, so what was written is remembered: one mutation then costs one
addition, however long the genome has become.
"""

from collections import OrderedDict

import numpy as np

from evolution.noise import NoiseTable

REMEMBERED_BYTES = 1 << 29  # of written genomes, at most

Genome = tuple[int, ...]


class Decoder:
    """A noise table, and what has been written with it; one per process and run."""

    def __init__(self, noise: NoiseTable, remembered_bytes: int = REMEMBERED_BYTES) -> None:
        self.noise, self._room = noise, remembered_bytes
        self._written: OrderedDict[tuple[bytes, Genome], np.ndarray] = OrderedDict()
        self.additions = 0  # so far

    def ancestor(self, index: int, shapes: np.ndarray) -> np.ndarray:
        """The network that a first index stands for: float32[dim].

        Weights into a unit are noise, scaled to a Euclidean length of 1; biases are 0.

        Args:
            shapes: int64[tensors, 2], units and weights into each; 0 weights for a bias.
        """
        sizes = tensor_sizes(shapes)
        theta = np.zeros(int(sizes.sum()), np.float32)
        noise = self.noise.get(index, len(theta))
        start = 0
        for (units, inputs), size in zip(shapes.tolist(), sizes.tolist(), strict=True):
            if inputs:
                weights = noise[start : start + size].reshape(units, inputs)
                lengths = np.sqrt(np.square(weights).sum(axis=1, keepdims=True))
                np.divide(weights, lengths, out=theta[start : start + size].reshape(units, inputs))
            start += size
        return theta

    def write(self, genome: Genome, shapes: np.ndarray, sigma: float) -> np.ndarray:
        """The parameters of a genome: float32[dim], read-only.

        Args:
            genome: one index at least.
            shapes: see ``ancestor``.
            sigma: by which mutations are multiplied.
        """
        same = shapes.tobytes() + np.float32(sigma).tobytes()
        if len(genome) == 1 or (same, genome) in self._written:
            return self._recall(same, genome, shapes)
        known = self._known(same, genome[:-1])
        parent = self._recall(same, known, shapes)
        for end in range(len(known) + 1, len(genome)):
            parent = self._mutated(parent, genome[end - 1], sigma)
        if len(known) < len(genome) - 1:
            self._remember(same, genome[:-1], parent)
        return self._mutated(parent, genome[-1], sigma)

    def _known(self, same: bytes, genome: Genome) -> Genome:
        """The longest beginning of a genome that is remembered; else its ancestor."""
        known = len(genome)
        while known > 1 and (same, genome[:known]) not in self._written:
            known -= 1
        return genome[:known]

    def _recall(self, same: bytes, genome: Genome, shapes: np.ndarray) -> np.ndarray:
        if (same, genome) not in self._written:
            self._remember(same, genome, self.ancestor(genome[0], shapes))
        self._written.move_to_end((same, genome))
        return self._written[same, genome]

    def _mutated(self, theta: np.ndarray, index: int, sigma: float) -> np.ndarray:
        self.additions += 1
        step = self.noise.get(index, len(theta)) * np.float32(sigma)
        return np.add(theta, step, out=step)

    def _remember(self, same: bytes, genome: Genome, theta: np.ndarray) -> None:
        theta.setflags(write=False)
        self._written[same, genome] = theta
        while len(self._written) > 1 and len(self._written) * theta.nbytes > self._room:
            self._written.popitem(last=False)


def tensor_sizes(shapes: np.ndarray) -> np.ndarray:
    """Parameters in each tensor: int64[tensors]."""
    return shapes[:, 0] * np.maximum(shapes[:, 1], 1)
