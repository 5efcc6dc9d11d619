"""Pictures of learning curves."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from store.comparison.learning import Learning

LABELS = {"steps": "environment steps"}  # of axes that are called otherwise


def draw(
    groups: Sequence[Learning],
    path: Path,
    caption: str,
    *,
    metric: str,
    axis: str,
    threshold: float | None = None,
    single: bool = False,
) -> None:
    """Draw one line with its band per group.

    Args:
        path: of a .png or .svg file.
        caption: says what line and band are.
        threshold: drawn as a dashed line.
        single: draw each run too, thinly, to its own end.
    """
    figure = Figure(figsize=(7, 3.8), dpi=150, layout="constrained")
    axes = figure.subplots()
    _draw_groups(axes, groups, metric, axis, single)
    if threshold is not None:
        axes.axhline(threshold, color="0.4", linewidth=0.8, linestyle="--")
    tidy(axes, caption)
    figure.savefig(path)


def draw_panels(
    panels: Mapping[str, Sequence[Learning]], path: Path, caption: str, *, metric: str, axis: str
) -> None:
    """Draw one panel per task, as `draw` does, up to three in a row.

    Args:
        panels: by the title of each.
    """
    columns = min(len(panels), 3)
    rows = -(-len(panels) // columns)
    size = (7, 3.8) if len(panels) == 1 else (4.2 * columns, 3.2 * rows)
    figure = Figure(figsize=size, dpi=150, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, (title, groups) in zip(grid, panels.items(), strict=False):
        _draw_groups(axes, groups, metric, axis, single=False)
        tidy(axes, title)
    for axes in grid[len(panels) :]:
        axes.remove()
    figure.suptitle(caption, x=0.01, ha="left", fontsize=8, color="0.35")
    figure.savefig(path)


def draw_axes(
    groups: Mapping[str, Sequence[Learning]], path: Path, caption: str, *, metric: str
) -> None:
    """Draw the same groups against several axes, side by side, as `draw` does.

    Args:
        groups: by the name of the axis.
    """
    figure = Figure(figsize=(4.6 * len(groups), 3.8), dpi=150, layout="constrained")
    for axes, (axis, learnings) in zip(
        figure.subplots(1, len(groups), squeeze=False)[0], groups.items(), strict=True
    ):
        _draw_groups(axes, learnings, metric, axis, single=False)
        tidy(axes)
    figure.suptitle(caption, x=0.01, ha="left", fontsize=8, color="0.35")
    figure.savefig(path)


def _draw_groups(
    axes: Axes, groups: Sequence[Learning], metric: str, axis: str, single: bool
) -> None:
    for number, group in enumerate(groups):
        _draw_group(axes, group, f"C{number % 10}", single)
    if axis == "steps":
        axes.xaxis.set_major_formatter(EngFormatter())  # 500 k, 2 M
    axes.set(xlabel=LABELS.get(axis, axis), ylabel=metric)
    axes.margins(x=0)
    axes.legend(frameon=False, fontsize=8)


def _draw_group(axes: Axes, group: Learning, color: str, single: bool) -> None:
    for curve in group.curves if single else ():
        name = f"run {curve.run}"
        axes.plot(curve.x, curve.values, color=color, linewidth=0.6, alpha=0.5, gid=name)
    axes.fill_between(
        group.x,
        group.low,
        group.high,
        color=color,
        alpha=0.2,
        linewidth=0,
        gid=f"band of {group.label}",
    )
    label = f"{group.label} ({len(group.curves)} run{'s' * (len(group.curves) > 1)})"
    axes.plot(group.x, group.middle, color=color, linewidth=1.6, label=label, gid=group.label)


def tidy(axes: Axes, caption: str = "") -> None:
    """No more ink than the data need."""
    axes.grid(alpha=0.25)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(caption, loc="left", fontsize=8, color="0.35")
