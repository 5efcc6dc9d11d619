"""Writes out genomes: lists of indices into the noise table, as in Such et al. 2018, section 3.

The first index makes an ancestor, each further one a mutation. Children are mostly of parents that
have been written out before, so what was written is remembered: one mutation then costs one
addition, however long the genome has become. What is not remembered is added up from an *anchor*,
an ancestor that somebody else has written out; see `evolution.anchors`.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence

import numpy as np

from evolution.noise import NoiseTable

REMEMBERED_BYTES = 1 << 29  # of written genomes, at most
SPACING = 32  # indices from one possible anchor of a genome to the next
STRIDE = 1 << 16  # floats; many mutations are added stride by stride, which stays in the cache
_NAME_BYTES = 16

Genome = tuple[int, ...]


class Decoder:
    """A noise table, and what has been written with it; one per process and run."""

    def __init__(
        self,
        noise: NoiseTable,
        remembered_bytes: int = REMEMBERED_BYTES,
        fetch: Callable[[str], np.ndarray] | None = None,
    ) -> None:
        """Begin with nothing written.

        Args:
            remembered_bytes: of written genomes, at most; one is always remembered.
            fetch: the parameters of the anchor of that name, float32[dim].
        """
        self.noise, self._room, self._fetch = noise, remembered_bytes, fetch
        self._written: OrderedDict[str, np.ndarray] = OrderedDict()
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

    def write(
        self, genome: Sequence[int], shapes: np.ndarray, sigma: float, anchor: str = ""
    ) -> np.ndarray:
        """The parameters of a genome, which are remembered: float32[dim], read-only.

        Args:
            genome: one index at least.
            shapes: see ``ancestor``.
            sigma: by which mutations are multiplied.
            anchor: the name of the ancestor that ``genome`` goes on from; "" if it is whole.
        """
        names = Names(genome, anchor or root_name(shapes, sigma))
        known = self._longest_known(names, 0 if anchor else 1)
        if known is None:
            known = 0 if anchor else 1
            first = self._fetched(anchor) if anchor else self.ancestor(genome[0], shapes)
            self._remember(names.at(known), first)
        theta = self._recall(names.at(known))
        for end in _stops(known, len(genome)):
            theta = self._added(theta, genome[known:end], sigma)
            self._remember(names.at(end), theta)
            known = end
        return theta

    def mutate(self, theta: np.ndarray, index: int, sigma: float, out: np.ndarray) -> None:
        """Write a child of written parameters into ``out``, float32[dim]."""
        self.additions += 1
        noise, scale = self.noise.get(index, len(theta)), np.float32(sigma)
        for start in range(0, len(theta), STRIDE):
            part = slice(start, start + STRIDE)
            np.multiply(noise[part], scale, out=out[part])
            np.add(theta[part], out[part], out=out[part])

    def _longest_known(self, names: "Names", least: int) -> int | None:
        """Of a genome's beginnings the longest that is remembered; None if there is none."""
        ends = range(len(names), least - 1, -1)
        return next((end for end in ends if names.at(end) in self._written), None)

    def _fetched(self, anchor: str) -> np.ndarray:
        if self._fetch is None:
            raise LookupError(f"nobody here has anchor {anchor}")
        return self._fetch(anchor)

    def _added(self, theta: np.ndarray, indices: Sequence[int], sigma: float) -> np.ndarray:
        """Mutations added one after the other: each parameter sees them in their order."""
        first, *others = indices
        result = np.empty_like(theta)
        self.mutate(theta, first, sigma, result)
        self.additions += len(others)
        dim, scale = len(theta), np.float32(sigma)
        steps = np.empty(min(STRIDE, dim), np.float32)
        for start in range(0, dim, STRIDE) if others else ():
            part = result[start : start + STRIDE]
            step = steps[: len(part)]
            for index in others:
                np.multiply(self.noise.get(index + start, len(part)), scale, out=step)
                np.add(part, step, out=part)
        return result

    def _recall(self, name: str) -> np.ndarray:
        self._written.move_to_end(name)
        return self._written[name]

    def _remember(self, name: str, theta: np.ndarray) -> None:
        theta.setflags(write=False)
        self._written[name] = theta
        while len(self._written) > 1 and len(self._written) * theta.nbytes > self._room:
            self._written.popitem(last=False)


class Names:
    """The names of a genome's beginnings: equal for equal genomes, whatever anchor is used.

    Every ``SPACING`` indices make a link of a chain of hashes. Anchors end with a link, so the
    name of one is all that the chain needs to go on.
    """

    def __init__(self, genome: Sequence[int], root: str) -> None:
        """Name a genome.

        Args:
            root: of the genome: what `root_name` says, or the anchor that it goes on from.
        """
        self._indices, self._links = np.array(genome, "<i8"), [root]
        for start in range(0, len(genome) - SPACING + 1, SPACING):
            block = self._indices[start : start + SPACING]
            self._links.append(_name(self._links[-1], block))

    def __len__(self) -> int:
        return len(self._indices)

    def at(self, end: int) -> str:
        """The name of the first ``end`` indices."""
        link, rest = divmod(end, SPACING)
        if not rest:
            return self._links[link]
        return _name(self._links[link], self._indices[end - rest : end])


def root_name(shapes: np.ndarray, sigma: float) -> str:
    """Tells genomes apart that mean other things by the same indices."""
    return _name("", shapes.astype("<i8"), np.array([sigma], "<f4"))


def anchor_length(length: int) -> int:
    """Of a genome's beginnings the one that is its anchor; 0: it needs none.

    The anchor lies 32 to 63 indices back, where the lineages of a population have mostly met:
    many parents then share it.
    """
    return max(length // SPACING - 1, 0) * SPACING


def tensor_sizes(shapes: np.ndarray) -> np.ndarray:
    """Parameters in each tensor: int64[tensors]."""
    return shapes[:, 0] * np.maximum(shapes[:, 1], 1)


def _stops(known: int, length: int) -> list[int]:
    """Where to remember what has been added up: the genome, its parent, and possible anchors."""
    if known == length:
        return []
    anchors = range((known // SPACING + 1) * SPACING, length, SPACING)
    return sorted({*anchors, max(length - 1, known), length} - {known})


def _name(*parts: str | np.ndarray) -> str:
    code = hashlib.blake2b(digest_size=_NAME_BYTES)
    for part in parts:
        code.update(part.encode() if isinstance(part, str) else part.tobytes())
    return code.hexdigest()
