"""Fitness shaping against ranks computed by hand."""

import numpy as np
import pytest

from evolution.shaping import centered_ranks


@pytest.mark.parametrize(
    ("fitness", "expected"),
    [
        ([1.0, 2.0], [-0.5, 0.5]),
        ([30.0, -10.0, 20.0], [0.5, -0.5, 0.0]),
        ([5.0, 1.0, 9.0, 7.0, 3.0], [0.0, -0.5, 0.5, 0.25, -0.25]),
        ([0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]),
        ([1.0, 1.0, 2.0], [-0.25, -0.25, 0.5]),
        ([7.0, 3.0, 7.0, 1.0, 7.0], [0.25, -0.25, 0.25, -0.5, 0.25]),
        ([-np.inf, 0.0, np.inf], [-0.5, 0.0, 0.5]),
    ],
)
def test_a010_centered_ranks_by_hand(fitness: list[float], expected: list[float]) -> None:
    ranks = centered_ranks(np.array(fitness, np.float32))
    assert ranks.dtype == np.float32
    assert ranks.tolist() == expected


def test_a010_ranks_span_exactly_one_and_sum_to_zero() -> None:
    for count in (2, 3, 10, 77, 1000):
        ranks = centered_ranks(np.random.default_rng(count).permutation(count))
        assert ranks.min() == -0.5
        assert ranks.max() == 0.5
        assert abs(ranks.sum(dtype=np.float64)) < 1e-4
        assert len(set(ranks.tolist())) == count


def test_a010_only_the_order_counts() -> None:
    fitness = np.random.default_rng(0).normal(size=50).astype(np.float32)
    assert np.array_equal(centered_ranks(fitness), centered_ranks(np.exp(3 * fitness) - 100))
    assert np.array_equal(centered_ranks(fitness), -centered_ranks(-fitness))


def test_a010_what_has_no_rank_is_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        centered_ranks(np.array([1.0, np.nan, 2.0]))
    for few in ([], [1.0]):
        with pytest.raises(ValueError, match=f"at least 2 values, got {len(few)}"):
            centered_ranks(np.array(few))
