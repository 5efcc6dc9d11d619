"""A population, written in the fewest bytes that still say it.

A candidate is described, not shipped: the head sends what all candidates share once, and one
small code per candidate; whoever holds the noise table can write out any candidate's theta.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Protocol

import numpy as np

from evolution.noise import NoiseTable


class Population(Protocol):
    """Candidates in rows; ``group`` neighbours meet the same environment seeds."""

    kind: ClassVar[str]
    group: ClassVar[int]

    def __len__(self) -> int: ...

    @property
    def dim(self) -> int:
        """Parameters of each candidate."""

    def thetas(self, rows: Sequence[int], noise: NoiseTable) -> np.ndarray:
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

    def thetas(self, rows: Sequence[int], noise: NoiseTable) -> np.ndarray:
        written = np.empty((len(rows), self.dim), np.float32)
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

    def thetas(self, rows: Sequence[int], noise: NoiseTable) -> np.ndarray:
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

    def thetas(self, rows: Sequence[int], noise: NoiseTable) -> np.ndarray:
        return self.values[np.asarray(rows, np.int64)]


KINDS: dict[str, Any] = {cls.kind: cls for cls in (Mirrored, Repeated, Dense)}


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
