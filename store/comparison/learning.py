"""Learning curves of groups of runs, read from the store and brought to a common axis."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from store.comparison.curves import (
    Band,
    Estimate,
    bootstrap_interval,
    common_axis,
    first_reaching,
    median,
    smoothed,
)
from store.reader import Metric, ReadError, RunReader

if TYPE_CHECKING:
    import pandas as pd

STEPS, SECONDS, CORE_SECONDS = "total sim steps", "total time elapsed", "total core-seconds"
AXES = {  # name -> metric that measures it
    "generation": None,
    "steps": STEPS,
    "seconds": SECONDS,
    "core-seconds": CORE_SECONDS,
}


@dataclass(frozen=True, eq=False)
class Curve:
    """One run's part in it."""

    run: int
    task: str
    x: np.ndarray  # float64[n], ascending
    values: np.ndarray  # float64[n], smoothed
    final: float  # the last value logged, as it is


@dataclass(frozen=True, eq=False)
class Learning:
    """The curves of a group, and what they say together."""

    label: str
    curves: list[Curve]
    x: np.ndarray  # float64[points]
    middle: np.ndarray  # float64[points]: the estimate over the runs
    low: np.ndarray  # float64[points]: the band around it; NaN if one run does not make one
    high: np.ndarray

    def frame(self) -> "pd.DataFrame":
        """One row for each point."""
        import pandas as pd

        columns = {"x": self.x, "estimate": self.middle, "low": self.low, "high": self.high}
        frame = pd.DataFrame(columns)
        frame.insert(0, "label", self.label)
        return frame.assign(runs=len(self.curves))


def read_curve(run: RunReader, metric: str, axis: str, window: int) -> Curve:
    """The curve of a run over generations, steps or seconds.

    Args:
        window: generations that are averaged; fewer at the beginning.
    Raises:
        ReadError: the run has logged no such metric.
    """
    logged = _finite(run, metric)
    measure = AXES[axis]
    values = smoothed(logged.values, window)
    generations, x = logged.steps, logged.steps.astype(np.float64)
    if measure is not None:
        generations, values, x = _against(logged, values, run.metric(measure))
    if not len(generations):
        raise ReadError(f"run {run.id}: {metric!r} has no generation in common with {measure!r}")
    task = str(run.config.get("env_name"))
    return Curve(run.id, task, x, values, float(logged.values[-1]))


def learn(
    label: str,
    curves: list[Curve],
    axis: str,
    estimate: Estimate,
    band: Band = bootstrap_interval,
) -> Learning:
    """What the curves of a group say together: cut to the shortest, interpolated between points.

    Before its first point a curve is where it begins.
    """
    x = common_axis([curve.x for curve in curves], whole=axis == "generation")
    values = np.stack([np.interp(x, curve.x, curve.values) for curve in curves])
    low, high = band(values, estimate, strata(curves))
    return Learning(label, curves, x, estimate(values), low, high)


def strata(curves: Sequence[Curve]) -> np.ndarray:
    """The task of each run as a number, int64[runs]; all 0 if a task has but one run."""
    _, task, count = np.unique([c.task for c in curves], return_inverse=True, return_counts=True)
    return task if count.min() > 1 else np.zeros_like(task)


def final_values(
    learning: Learning, estimate: Estimate, band: Band = bootstrap_interval
) -> dict[str, float]:
    """The estimate of the last values logged, and the ends of the band around it."""
    finals = np.array([[curve.final] for curve in learning.curves])
    low, high = band(finals, estimate, strata(learning.curves))
    return {"final": float(estimate(finals)[0]), "low": float(low[0]), "high": float(high[0])}


def costs_until(
    runs: Sequence[RunReader], metric: str, threshold: float, window: int
) -> dict[str, float]:
    """What it took until the smoothed metric was at the threshold: medians over the runs.

    A run that was never there counts as infinitely expensive.

    Returns:
        "reached" (runs), "steps", and "core-seconds" if all runs have logged them, else "seconds".
    """
    measures = {"steps": STEPS, **time_measure(runs)}
    found: dict[str, list[float]] = {name: [] for name in measures}
    for run in runs:
        logged = _finite(run, metric)
        values = smoothed(logged.values, window)
        for name, measure in measures.items():
            _, kept, spent = _against(logged, values, run.metric(measure))
            found[name].append(first_reaching(spent, kept, threshold))
    reached = int(np.isfinite(found["steps"]).sum())
    return {
        "reached": reached,
        **{name: float(median(np.array(each))) for name, each in found.items()},
    }


def time_measure(runs: Sequence[RunReader]) -> dict[str, str]:
    """What there is to say how long runs took: name and metric."""
    if all(CORE_SECONDS in run.metric_names() for run in runs):
        return {"core-seconds": CORE_SECONDS}
    return {"seconds": SECONDS}


def _finite(run: RunReader, metric: str) -> Metric:
    logged = run.metric(metric)
    kept = np.isfinite(logged.values)
    if not kept.any():
        raise ReadError(f"run {run.id}: no value of {metric!r} is a number")
    return Metric(metric, logged.steps[kept], logged.values[kept], logged.times[kept])


def _against(
    logged: Metric, values: np.ndarray, measure: Metric
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Generations that both have, the values there, and what the measure says there."""
    generations, ours, theirs = np.intersect1d(logged.steps, measure.steps, return_indices=True)
    return generations, values[ours], measure.values[theirs]
