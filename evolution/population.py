"""A population, written in the fewest bytes that still say it.

A candidate is described, not shipped: the head sends what all candidates share once, and one
small code per candidate; whoever holds the noise table can write out any candidate's theta.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Protocol

import numpy as np

from evolution.decoder import Decoder, Genome, tensor_sizes


class Population(Protocol):
    """Candidates in rows; ``group`` neighbours meet the same environment seeds."""

    kind: ClassVar[str]
    group: ClassVar[int]

    def __len__(self) -> int: ...

    @property
    def dim(self) -> int:
        """Parameters of each candidate."""

    def thetas(self, rows: Sequence[int], decoder: Decoder) -> np.ndarray:
        """The candidates in ``rows``, written out: float32[len(rows), dim]."""


@dataclass(frozen=True, eq=False)
class Mirrored:
    """Antithetic pairs: row 2k is centre + sigma·epsilon[k], row 2k+1 is centre - sigma·epsilon[k].

    Salimans et al. 2017, section 2.1 ("mirrored sampling").
    """

    kind: ClassVar[str] = "mirrored"
    group: ClassVar[int] = 2

    centre: np.ndarray  # float32[dim]
    sigma: float
    noise_indices: np.ndarray  # int64[pairs]

    def __len__(self) -> int:
        return 2 * len(self.noise_indices)

    @property
    def dim(self) -> int:
        return len(self.centre)

    def thetas(self, rows: Sequence[int], decoder: Decoder) -> np.ndarray:
        written, noise = np.empty((len(rows), self.dim), np.float32), decoder.noise
        for theta, row in zip(written, rows, strict=True):
            signed = np.float32(self.sigma if row % 2 == 0 else -self.sigma)
            np.multiply(noise.get(int(self.noise_indices[row // 2]), self.dim), signed, out=theta)
            np.add(theta, self.centre, out=theta)
        return written


@dataclass(frozen=True, eq=False)
class Repeated:
    """One theta, ``copies`` times: how good a theta is, told one episode per row."""

    kind: ClassVar[str] = "repeated"
    group: ClassVar[int] = 1

    theta: np.ndarray  # float32[dim]
    copies: int

    def __len__(self) -> int:
        return self.copies

    @property
    def dim(self) -> int:
        return len(self.theta)

    def thetas(self, rows: Sequence[int], decoder: Decoder) -> np.ndarray:
        return np.broadcast_to(self.theta, (len(rows), self.dim))


@dataclass(frozen=True, eq=False)
class Dense:
    """Candidates written out in full, for algorithms that sample their own way."""

    kind: ClassVar[str] = "dense"
    group: ClassVar[int] = 1

    values: np.ndarray  # float32[candidates, dim]

    def __len__(self) -> int:
        return len(self.values)

    @property
    def dim(self) -> int:
        return int(self.values.shape[1])

    def thetas(self, rows: Sequence[int], decoder: Decoder) -> np.ndarray:
        return self.values[np.asarray(rows, np.int64)]


@dataclass(frozen=True, eq=False)
class Lineages:
    """Genomes, written as their parents and one mutation each; Such et al. 2018, section 3.1.

    Row r has the genome of parent ``parent_of[r]``, followed by ``mutations[r]``. A parent of -1
    is none: the mutation makes an ancestor. A mutation of -1 is none: the row is the parent itself.
    A parent with an anchor is told by that and the indices after it; see `evolution.anchors`.
    """

    kind: ClassVar[str] = "lineages"
    group: ClassVar[int] = 1

    shapes: np.ndarray  # int64[tensors, 2], units and weights into each; 0 weights for a bias
    sigma: float
    parents: np.ndarray  # int64[n], the parents' genomes one behind the other
    lengths: np.ndarray  # int64[parents], of each
    parent_of: np.ndarray  # int64[candidates]
    mutations: np.ndarray  # int64[candidates]
    anchors: Sequence[str] = ()  # of the parents, "" for none; empty: none has one

    def __len__(self) -> int:
        return len(self.parent_of)

    @property
    def dim(self) -> int:
        return int(tensor_sizes(self.shapes).sum())

    @property
    def repeats(self) -> bool:
        """True if no row is mutated: these are parents that are evaluated again."""
        return bool((self.mutations < 0).all())

    def repeated(self, copies: int) -> "Lineages":
        """The first row so many times."""
        parent_of, mutations = (
            each[:1].repeat(copies) for each in (self.parent_of, self.mutations)
        )
        return replace(self, parent_of=parent_of, mutations=mutations)

    def parent(self, number: int) -> Genome:
        """The indices of a parent, after its anchor if it has one."""
        end = int(self.lengths[: number + 1].sum())
        return tuple(self.parents[end - int(self.lengths[number]) : end].tolist())

    def genome(self, row: int) -> Genome:
        """The indices of a candidate, after its parent's anchor if that has one."""
        parent, mutation = int(self.parent_of[row]), int(self.mutations[row])
        own = (mutation,) if mutation >= 0 else ()
        return own if parent < 0 else (*self.parent(parent), *own)

    def thetas(self, rows: Sequence[int], decoder: Decoder) -> np.ndarray:
        written = np.empty((len(rows), self.dim), np.float32)
        self.write(rows, decoder, written)
        return written

    def write(self, rows: Sequence[int], decoder: Decoder, out: np.ndarray) -> None:
        """Write the candidates in ``rows`` into ``out``, float32[len(rows), dim].

        New memory costs as much as a mutation: whoever has some should hand it over.
        """
        parent, theta = -1, np.empty(0, np.float32)
        # Children of one parent one behind the other: it is looked up once.
        for place in np.argsort(self.parent_of[np.asarray(rows, np.int64)], kind="stable"):
            own, mutation = (int(each[rows[place]]) for each in (self.parent_of, self.mutations))
            if own < 0:
                out[place] = decoder.ancestor(mutation, self.shapes)
                continue
            if own != parent:
                anchor = self.anchors[own] if len(self.anchors) else ""
                theta = decoder.write(self.parent(own), self.shapes, self.sigma, anchor)
                parent = own
            if mutation < 0:
                out[place] = theta
            else:
                decoder.mutate(theta, mutation, self.sigma, out[place])


KINDS: dict[str, Any] = {cls.kind: cls for cls in (Mirrored, Repeated, Dense, Lineages)}


def to_fields(population: Population) -> dict[str, Any]:
    """The population as wire fields; inverse of ``from_fields``."""
    named = {name: getattr(population, name) for name in _wire_names(type(population))}
    return {"kind": population.kind, **named}


def from_fields(message: dict[str, Any]) -> Population:
    """Rebuild the population that ``to_fields`` described.

    Raises:
        ValueError: an unknown kind, or a field that is missing or of another type.
    """
    kind = message.get("kind")
    if kind not in KINDS:
        raise ValueError(f"population kind {kind!r} is none of {', '.join(KINDS)}")
    cls = KINDS[kind]
    missing = [name for name in _wire_names(cls) if name not in message]
    if missing:
        raise ValueError(f"a {kind} population needs the fields {', '.join(missing)}")
    return cls(**{name: message[name] for name in _wire_names(cls)})


def _wire_names(cls: Any) -> list[str]:
    return [field.name for field in fields(cls)]
