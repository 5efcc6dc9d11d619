"""Pictures of single evaluations: lengths, returns, who worked when, what was skipped."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from store.comparison.evaluations import came_early, moments, work_of
from store.comparison.figures import tidy
from store.reader import Metric

if TYPE_CHECKING:
    import pandas as pd

MOST_BINS = 60
MOST_NAMES = 30  # workers that are named beside their lines; of more, the numbers
NOT_USED = "twice or too late"
COLORS = {"candidate": "C0", "theta": "C1", NOT_USED: "C3"}


def lengths_figure(results: "pd.DataFrame", caption: str) -> Figure:
    """Return against episode length, and whether short episodes were the first to arrive."""
    figure = Figure(figsize=(8, 3.6), dpi=150, layout="constrained")
    scatter, histogram = figure.subplots(1, 2)
    for kind, rows in _by_kind(results):
        style = {"color": COLORS.get(kind, "C2"), "label": kind, "gid": kind}
        scatter.scatter(rows["length"], rows["fitness"], s=8, alpha=0.4, linewidth=0, **style)
    scatter.set(xlabel="steps per episode", ylabel="return")
    scatter.legend(frameon=False, fontsize=8)
    tidy(scatter, caption)
    edges = _edges(results["length"])
    early = results[came_early(results)]
    _shares(histogram, results, edges, histtype="stepfilled", color="0.8", label="all results")
    word = "first half to arrive"
    _shares(histogram, early, edges, histtype="step", color="C3", linewidth=1.4, label=word)
    histogram.set(xlabel="steps per episode", ylabel="share of the results")
    histogram.legend(frameon=False, fontsize=8)
    tidy(histogram)
    return figure


def returns_figure(results: "pd.DataFrame", caption: str) -> Figure:
    """How often which return was found, of candidates and of theta itself."""
    figure = Figure(figsize=(7, 3.6), dpi=150, layout="constrained")
    axes = figure.subplots()
    edges = _edges(results["fitness"])
    for kind, rows in _by_kind(results):
        color, mean = COLORS.get(kind, "C2"), rows["fitness"].mean()
        label = f"{kind}: {len(rows)}, mean {mean:,.1f}"
        axes.hist(rows["fitness"], edges, color=color, alpha=0.55, label=label, gid=kind)
        axes.axvline(mean, color=color, linewidth=1.2, linestyle="--")
    axes.set(xlabel="return", ylabel="evaluations")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False, fontsize=8)
    tidy(axes, caption)
    return figure


def workers_figure(results: "pd.DataFrame", caption: str) -> Figure:
    """Who worked when: a pale line while a worker was at work, a mark for each result."""
    names = results["worker"].drop_duplicates().tolist()
    line = {name: number for number, name in enumerate(names)}
    height = 1.4 + min(0.3 * len(names), 8)
    figure = Figure(figsize=(8, height), dpi=150, layout="constrained")
    axes = figure.subplots()
    work = work_of(results)
    pale: dict[str, Any] = {"color": "0.85", "linewidth": 7, "label": "at work"}
    axes.hlines(work["worker"].map(line), work["begin"], work["end"], gid="at work", **pale)
    kinds = results["kind"].where(results["valid"], NOT_USED)
    marks = results.assign(kind=kinds, x=moments(results), y=results["worker"].map(line))
    for kind, rows in _by_kind(marks):
        style: dict[str, Any] = {"color": COLORS.get(kind, "C2"), "label": kind, "gid": kind}
        axes.plot(rows["x"], rows["y"], "|", markersize=7, markeredgewidth=0.8, **style)
    if len(names) <= MOST_NAMES:
        axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.set(xlabel="seconds of the run", ylabel="worker", ylim=(len(names) - 0.4, -0.6))
    tidy(axes, caption)
    axes.grid(visible=False, axis="y")
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=4, frameon=False, fontsize=8)
    return figure


def skipped_figure(groups: Mapping[str, Sequence[Metric]], caption: str) -> Figure:
    """The share of answers that came twice or too late, one line for each run."""
    figure = Figure(figsize=(7, 3.6), dpi=150, layout="constrained")
    axes = figure.subplots()
    for number, (label, runs) in enumerate(groups.items()):
        for each, metric in enumerate(runs):
            name = label if each == 0 else f"_{label}"  # once in the legend
            style: dict[str, Any] = {"color": f"C{number % 10}", "linewidth": 1.0, "alpha": 0.8}
            axes.step(metric.steps, metric.values, where="mid", label=name, gid=label, **style)
    highest = max(metric.values.max() for runs in groups.values() for metric in runs)
    axes.set(xlabel="generation", ylabel="frac. results skipped")
    top = max(1.05 * highest, 0.05)
    axes.set_ylim(-0.02 * top, top)  # a line of zeros is to be seen
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.margins(x=0)
    axes.legend(frameon=False, fontsize=8)
    tidy(axes, caption)
    return figure


def _by_kind(results: "pd.DataFrame") -> "Iterator[tuple[str, pd.DataFrame]]":
    """Candidates first, so that the few others lie above them."""
    for kind, rows in sorted(results.groupby("kind"), key=lambda each: str(each[0])):
        yield str(kind), rows


def _edges(values: "pd.Series") -> list[float]:
    edges = np.histogram_bin_edges(values, "auto")
    edges = edges if len(edges) <= MOST_BINS else np.histogram_bin_edges(values, MOST_BINS)
    return edges.tolist()


def _shares(axes: Axes, results: "pd.DataFrame", edges: list[float], **style: Any) -> None:
    weights = np.full(len(results), 1 / len(results))
    axes.hist(results["length"], edges, weights=weights, **style)
