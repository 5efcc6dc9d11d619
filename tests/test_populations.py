"""Every population writes out the candidates it stands for, here and behind the wire."""

from typing import Any

import numpy as np
import pytest

from cluster.wire import pack, unpack
from evolution.decoder import Decoder
from evolution.evaluation import Part
from evolution.exchange.messages import task_fields, task_parts
from evolution.noise import NoiseTable
from evolution.population import (
    KINDS,
    Dense,
    Lineages,
    Mirrored,
    Population,
    Repeated,
    from_fields,
    to_fields,
)

DIM = 30


def centre() -> np.ndarray:
    return np.random.default_rng(1).normal(size=DIM).astype(np.float32)


def make(kind: str) -> Population:
    """A population of each kind; a new kind is added here."""
    made: dict[str, Population] = {
        "mirrored": Mirrored(centre(), 0.1, np.array([5, 0, 1000, 199_970])),
        "repeated": Repeated(centre(), 6),
        "dense": Dense(np.arange(5 * DIM, dtype=np.float32).reshape(5, DIM)),
        "lineages": Lineages(
            shapes=np.array([[4, 5], [4, 0], [1, 4], [2, 0]]),
            sigma=0.05,
            parents=np.array([7, 3, 90_000, 11]),
            lengths=np.array([3, 1]),
            parent_of=np.array([0, 1, -1, 0, 1, 0]),
            mutations=np.array([5, 6, 199_970, -1, -1, 8]),
        ),
    }
    return made[kind]


each_kind = pytest.mark.parametrize("kind", sorted(KINDS))


def test_a011_antithetic_pairs_are_centre_plus_and_minus_sigma_epsilon(noise: NoiseTable) -> None:
    population = Mirrored(centre(), 0.1, np.array([5, 0, 1000, 199_970]))
    thetas = population.thetas(range(8), Decoder(noise))
    for pair, index in enumerate(population.noise_indices.tolist()):
        epsilon = noise.get(index, DIM)
        step = np.float32(0.1) * epsilon
        assert np.array_equal(thetas[2 * pair], population.centre + step)
        assert np.array_equal(thetas[2 * pair + 1], population.centre - step)
        middle = (thetas[2 * pair].astype(np.float64) + thetas[2 * pair + 1]) / 2
        np.testing.assert_allclose(middle, population.centre, atol=1e-6)
    assert population.group == 2  # so that both of a pair meet the same seeds
    assert len(population) == 8


def test_repeated_and_dense_are_what_was_given(noise: NoiseTable) -> None:
    assert np.array_equal(
        make("repeated").thetas(range(6), Decoder(noise)), np.tile(centre(), (6, 1))
    )
    assert np.array_equal(
        make("dense").thetas([4, 0], Decoder(noise)), [np.arange(4 * DIM, 5 * DIM), np.arange(DIM)]
    )


@each_kind
def test_any_rows_in_any_order(kind: str, noise: NoiseTable) -> None:
    population = make(kind)
    whole = population.thetas(range(len(population)), Decoder(noise))
    assert whole.shape == (len(population), population.dim) == (len(population), DIM)
    assert whole.dtype == np.float32
    for rows in ([], [3], [1, 0, 3, 1], list(range(len(population)))[::-1]):
        assert np.array_equal(population.thetas(rows, Decoder(noise)), whole[rows])


@each_kind
def test_nothing_changes_on_the_wire(kind: str, noise: NoiseTable) -> None:
    population = make(kind)
    fields = to_fields(population)
    assert fields["kind"] == kind
    back = from_fields(unpack(pack(fields)))
    assert type(back) is type(population)
    rows = range(len(population))
    assert len(back) == len(rows)
    assert np.array_equal(
        back.thetas(rows, Decoder(noise)), population.thetas(rows, Decoder(noise))
    )


@pytest.mark.parametrize(("table", "width"), [(10_000_000, 4), (1 << 40, 8)])
def test_a_pair_travels_as_few_bytes_as_its_index_needs(table: int, width: int) -> None:
    small, large = (
        len(pack(to_fields(Mirrored(centre(), 0.1, np.full(pairs, table - DIM)))))
        for pairs in (1000, 9000)
    )
    assert large - small == width * 8000
    assert small < 4 * DIM + width * 1000 + 150


@each_kind
def test_a_missing_field_is_named(kind: str) -> None:
    fields = to_fields(make(kind))
    for name in set(fields) - {"kind"}:
        with pytest.raises(ValueError, match=f"{kind} population needs the fields {name}"):
            from_fields({key: value for key, value in fields.items() if key != name})


@pytest.mark.parametrize("kind", [None, "", "mirored", 3])
def test_an_unknown_kind_is_refused(kind: Any) -> None:
    with pytest.raises(ValueError, match=r"is none of mirrored, repeated, dense"):
        from_fields({"kind": kind})


def test_a_part_has_seeds_for_each_of_its_pieces() -> None:
    assert Part(make("mirrored"), np.zeros((4, 3), np.int64)).pieces == 4
    assert Part(make("dense"), np.zeros((5, 1), np.int64)).pieces == 5
    for wrong in (np.zeros((8, 3), np.int64), np.zeros(4, np.int64), np.zeros((4, 1, 1))):
        with pytest.raises(ValueError, match=r"8 candidates need \(4, episodes\)"):
            Part(make("mirrored"), wrong)


def test_a_task_of_many_parts_travels(noise: NoiseTable) -> None:
    rng = np.random.default_rng(2)
    parts = []
    for episodes, kind in enumerate([*KINDS, *KINDS], start=1):
        population = make(kind)
        pieces = len(population) // population.group
        parts.append(Part(population, rng.integers(0, 2**31, (pieces, episodes))))
    parts[0] = Part(parts[0].population, np.broadcast_to(np.array([7, 8]), (4, 2)))
    message = unpack(pack(task_fields(parts, share=3, min_seconds=0.25, max_seconds=2.0)))
    assert (message["share"], message["min_seconds"]) == (3, 0.25)
    for part, back in zip(parts, task_parts(message), strict=True):
        assert np.array_equal(back.env_seeds, part.env_seeds)
        rows = range(len(part.population))
        there = back.population.thetas(rows, Decoder(noise))
        assert np.array_equal(there, part.population.thetas(rows, Decoder(noise)))
