"""The statistics of learning curves: estimates over runs, their uncertainty, common axes.

Over a handful of runs a mean says little without its uncertainty, and one outlier moves it far:
Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice".
"""

from collections.abc import Callable, Sequence

import numpy as np

POINTS = 200  # of a common axis that is not counted in generations
RESAMPLES = 2000
CONFIDENCE = 0.95
SEED = 0  # of the bootstrap: the same runs give the same band
_BLOCK_VALUES = 1 << 22  # that a bootstrap holds at a time

Estimate = Callable[[np.ndarray], np.ndarray]
Band = Callable[[np.ndarray, Estimate, np.ndarray | None], tuple[np.ndarray, np.ndarray]]


def mean(values: np.ndarray) -> np.ndarray:
    """Average over the first axis."""
    return values.mean(axis=0)


def iqm(values: np.ndarray) -> np.ndarray:
    """Interquartile mean over the first axis: of what is left without both outer quarters.

    Cut off are floor(n / 4) values at either end, as ``scipy.stats.trim_mean(values, 0.25)`` does:
    with fewer than four runs it is the mean.
    """
    cut = len(values) // 4
    return np.sort(values, axis=0)[cut : len(values) - cut].mean(axis=0)


def median(values: np.ndarray) -> np.ndarray:
    """The middle one over the first axis, or the mean of the middle two; they may be infinite."""
    return np.median(values, axis=0)


ESTIMATES: dict[str, Estimate] = {"iqm": iqm, "mean": mean, "median": median}


def smoothed(values: np.ndarray, window: int) -> np.ndarray:
    """Trailing mean over ``window`` values; over those that there are at the beginning.

    Args:
        values: float64[n].
    """
    sums = np.cumsum(np.insert(np.asarray(values, np.float64), 0, 0.0))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - window, 0)
    return (sums[ends] - sums[starts]) / (ends - starts)


def common_axis(axes: Sequence[np.ndarray], whole: bool) -> np.ndarray:
    """Where curves are compared: from the earliest beginning to the earliest end.

    Args:
        axes: ascending, one for each curve.
        whole: whole numbers alone, such as generations; else 200 points.
    """
    first, last = min(axis[0] for axis in axes), min(axis[-1] for axis in axes)
    return np.arange(first, last + 1) if whole else np.linspace(first, last, POINTS)


def bootstrap_interval(
    values: np.ndarray, estimate: Estimate, strata: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Percentile bootstrap over runs: the ends of the 95 % interval of an estimate.

    Args:
        values: float64[runs, points].
        strata: int64[runs], such as the task of each run; runs are drawn anew within theirs, so
            that every resample holds as many of each as there are.
    Returns:
        Lower and upper ends, float64[points] each; NaN where a single run says nothing.
    """
    runs, points = values.shape
    if runs < 2:
        nothing = np.full(points, np.nan)
        return nothing, nothing
    drawn = _resamples(np.zeros(runs, np.int64) if strata is None else strata)
    low, high = np.empty(points), np.empty(points)
    tails = [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]
    width = max(1, _BLOCK_VALUES // (RESAMPLES * runs))
    for begin in range(0, points, width):
        part = slice(begin, begin + width)
        estimates = estimate(np.moveaxis(values[:, part][drawn], 1, 0))
        low[part], high[part] = np.quantile(estimates, tails, axis=0)
    return low, high


def extremes(
    values: np.ndarray, estimate: Estimate, strata: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The lowest and the highest of the runs, whatever is estimated: float64[points] each."""
    return values.min(axis=0), values.max(axis=0)


BANDS: dict[str, Band] = {"ci": bootstrap_interval, "range": extremes}


def _resamples(strata: np.ndarray) -> np.ndarray:
    """Rows of runs: int64[resamples, runs]."""
    rng = np.random.default_rng(SEED)
    drawn = np.empty((RESAMPLES, len(strata)), np.int64)
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum)
        drawn[:, members] = rng.choice(members, (RESAMPLES, len(members)))
    return drawn


def first_reaching(axis: np.ndarray, values: np.ndarray, threshold: float) -> float:
    """Where a curve first is at ``threshold`` or above; infinity if it never is."""
    there = np.flatnonzero(values >= threshold)
    return float(axis[there[0]]) if len(there) else np.inf
