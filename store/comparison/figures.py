"""Pictures of learning curves."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from store.comparison.learning import Learning

LABELS = {"generation": "generation", "steps": "environment steps", "seconds": "seconds"}


def draw(
    groups: Sequence[Learning],
    path: Path,
    *,
    metric: str,
    axis: str,
    threshold: float | None = None,
    single: bool = False,
) -> None:
    """Draw one line with its 95 % band per group.

    Args:
        path: of a .png or .svg file.
        threshold: drawn as a dashed line.
        single: draw each run too, thinly, to its own end.
    """
    figure = Figure(figsize=(7, 3.8), dpi=150, layout="constrained")
    axes = figure.subplots()
    for number, group in enumerate(groups):
        color = f"C{number % 10}"
        for curve in group.curves if single else ():
            axes.plot(curve.x, curve.values, color=color, linewidth=0.6, alpha=0.5)
        axes.fill_between(group.x, group.low, group.high, color=color, alpha=0.2, linewidth=0)
        runs = len(group.curves)
        label = f"{group.label} ({runs} run{'s' * (runs > 1)})"
        axes.plot(group.x, group.middle, color=color, linewidth=1.6, label=label)
    if threshold is not None:
        axes.axhline(threshold, color="0.4", linewidth=0.8, linestyle="--")
    if axis == "steps":
        axes.xaxis.set_major_formatter(EngFormatter())  # 500 k, 2 M
    axes.set(xlabel=LABELS[axis], ylabel=metric)
    axes.margins(x=0)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(path)
