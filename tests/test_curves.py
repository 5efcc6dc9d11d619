"""The statistics of learning curves, against numbers computed by hand."""

import numpy as np
import pytest

from store.comparison.curves import (
    bootstrap_interval,
    common_axis,
    extremes,
    first_reaching,
    iqm,
    mean,
    median,
    smoothed,
)


def column(*values: float) -> np.ndarray:
    return np.array(values)[:, None]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([5], 5),
        ([1, 9], 5),
        ([0, 3, 9], 4),  # too few to leave any out
        ([4, 1, 100, 2], 3),
        ([100, 1, 2, 3, -50], 2),
        ([7, 2, 100, 5, 6, 3, 4, -90], 4.5),
    ],
)
def test_iqm_is_the_mean_of_the_middle_half(values: list[float], expected: float) -> None:
    assert iqm(column(*values)) == [expected]


def test_iqm_is_scipys() -> None:
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(1)
    for runs in range(1, 30):
        values = rng.normal(size=(runs, 3))
        assert np.allclose(iqm(values), stats.trim_mean(values, 0.25, axis=0), atol=1e-12)


@pytest.mark.parametrize(
    ("window", "expected"),
    [(1, [1, 3, 8, 0]), (2, [1, 2, 5.5, 4]), (3, [1, 2, 4, 11 / 3]), (20, [1, 2, 4, 3])],
)
def test_a_smoothing_window_starts_narrow(window: int, expected: list[float]) -> None:
    assert smoothed(np.array([1, 3, 8, 0]), window) == pytest.approx(expected)


def test_a_common_axis_ends_with_the_shortest_curve() -> None:
    axes = [np.array([0.0, 1, 2, 3, 4]), np.array([1.0, 2, 3])]
    assert common_axis(axes, whole=True).tolist() == [0, 1, 2, 3]
    ends = common_axis([np.array([10.0, 500]), np.array([20.0, 80])], whole=False)
    assert (len(ends), ends[0], ends[-1]) == (200, 10, 80)
    assert common_axis([np.array([0.1, 0.2]), np.array([3.0, 9.0])], whole=False)[-1] == 0.2


def test_a_bootstrap_interval_of_two_runs_spans_both() -> None:
    """Their resamples have the means 0, 1/2, 1/2 and 1."""
    low, high = bootstrap_interval(np.array([[0.0, 7.0], [1.0, 7.0]]), mean)
    assert low.tolist() == [0, 7]
    assert high.tolist() == [1, 7]


def test_a_bootstrap_interval_of_many_is_the_normal_one() -> None:
    values = np.random.default_rng(3).normal(10, 2, (400, 1))
    low, high = bootstrap_interval(values, mean)
    half = 1.96 * values.std() / 20
    assert (high - low) / 2 == pytest.approx(half, rel=0.06)
    assert (high + low) / 2 == pytest.approx(values.mean(), abs=0.02)
    narrow = bootstrap_interval(values, iqm)
    assert narrow[0] < values.mean() < narrow[1]


def test_runs_are_drawn_anew_within_their_stratum() -> None:
    values, strata = column(0, 0, 6, 6), np.array([1, 1, 0, 0])
    assert bootstrap_interval(values, mean, strata) == (np.array([3]), np.array([3]))
    low, high = bootstrap_interval(values, mean)
    assert low < 3 < high


def test_a_bootstrap_interval_is_the_same_each_time() -> None:
    """And the same for each point, however many there are."""
    values = np.random.default_rng(5).normal(size=(5, 1000))
    first, again = (bootstrap_interval(values, iqm) for _ in range(2))
    alone = bootstrap_interval(values[:, 700:701], iqm)
    for end in range(2):
        assert np.array_equal(first[end], again[end])
        assert first[end][700] == alone[end][0]


def test_a_single_run_has_no_interval() -> None:
    low, high = bootstrap_interval(np.ones((1, 3)), iqm)
    assert np.isnan(low).all() and np.isnan(high).all()


def test_where_a_curve_reaches_a_threshold() -> None:
    axis, values = np.array([10, 20, 30, 40]), np.array([1.0, 5.0, 4.0, 6.0])
    reached = [first_reaching(axis, values, threshold) for threshold in (0, 5, 5.5, 7)]
    assert reached == [10, 20, 40, np.inf]


def test_a_median_counts_those_that_never_arrive() -> None:
    assert median(column(3, np.inf, 1)) == 3
    assert median(column(1, 3)) == 2
    assert median(column(1, np.inf, np.inf)) == np.inf
    assert median(column(1, np.inf)) == np.inf


def test_a_median_is_taken_at_each_point() -> None:
    assert median(np.array([[1.0, 8], [2, 7], [90, -6]])).tolist() == [2, 7]


def test_extremes_are_those_of_the_runs() -> None:
    low, high = extremes(np.array([[1.0, 8], [2, 7], [90, -6]]), median)
    assert (low.tolist(), high.tolist()) == ([1, -6], [90, 8])
    low, high = extremes(np.ones((1, 2)), median)
    assert (low.tolist(), high.tolist()) == ([1, 1], [1, 1])
