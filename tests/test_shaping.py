"""Fitness shaping against ranks computed by hand."""

from collections.abc import Callable

import numpy as np
import pytest

from evolution.shaping import SHAPINGS, centered_ranks, log_ranks


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


def test_log_ranks_by_hand() -> None:
    """Wierstra et al. 2014 for six, the best last: ln 4 - ln k for k = 1, 2, 3, and nothing."""
    raw = np.array([0.0, 0.0, 0.0, np.log(4 / 3), np.log(2), np.log(4)])
    expected = (raw - raw.mean()) / raw.std() / np.sqrt(12)
    found = log_ranks(np.array([-7.0, -2.0, -1.0, 0.5, 3.0, 80.0], np.float32))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    order = np.random.default_rng(0).permutation(6)
    np.testing.assert_array_equal(log_ranks(np.arange(6.0)[order]), found[order])


def test_ties_share_their_log_rank() -> None:
    alone = log_ranks(np.arange(4.0))
    tied = log_ranks(np.array([0.0, 1.0, 7.0, 7.0]))
    np.testing.assert_allclose(tied, [*alone[:2], *[alone[2:].mean()] * 2], rtol=1e-6)
    assert log_ranks(np.full(5, 3.0)).tolist() == [0.0] * 5


@pytest.mark.parametrize("count", [2, 3, 10, 77, 1000])
def test_both_shapings_weigh_alike_in_all(count: int) -> None:
    """So that the same weight decay means the same: their sums are zero, the spread is equal."""
    fitness = np.random.default_rng(count).permutation(count)
    for shaped in (shape(fitness).astype(np.float64) for shape in SHAPINGS.values()):
        assert abs(shaped.sum()) < 1e-4
        assert shaped.std() == pytest.approx(np.sqrt(1 / 12), rel=3 / count)
        assert shaped.argmax() == fitness.argmax()


@pytest.mark.parametrize("shape", SHAPINGS.values())
def test_a010_what_has_no_rank_is_refused(shape: Callable[..., np.ndarray]) -> None:
    with pytest.raises(ValueError, match="NaN"):
        shape(np.array([1.0, np.nan, 2.0]))
    for few in ([], [1.0]):
        with pytest.raises(ValueError, match=f"at least 2 values, got {len(few)}"):
            shape(np.array(few))
