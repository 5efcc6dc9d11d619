"""Draw the learning curves of runs kept as files: python benchmarks/plot_run.py 1 2 3 --out FILE

One line a run, each to its own end.
"""

import argparse
import json
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot

RUNS = Path(__file__).resolve().parent.parent / "runs"


def curve(run: str, metric: str, folder: Path) -> np.ndarray:
    """The values of a metric, in the order of its steps."""
    return np.array(json.loads((folder / run / "metrics.json").read_text())[metric]["values"])


def smoothed(values: np.ndarray, window: int) -> np.ndarray:
    """Trailing mean over ``window`` values, over fewer at the beginning."""
    sums = np.cumsum(np.insert(values, 0, 0.0))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - window, 0)
    return (sums[ends] - sums[starts]) / (ends - starts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", help="run ids under runs/")
    parser.add_argument("--metric", default="current fitness")
    parser.add_argument("--window", type=int, default=5, help="generations in a trailing mean")
    parser.add_argument("--title", default="")
    parser.add_argument("--folder", type=Path, default=RUNS)
    parser.add_argument("--out", required=True)
    options = parser.parse_args()
    curves = [
        smoothed(curve(r, options.metric, options.folder), options.window) for r in options.runs
    ]
    figure, axes = pyplot.subplots(figsize=(7, 3.6), dpi=110)
    for run, values in zip(options.runs, curves, strict=True):
        axes.plot(values, linewidth=1.5, label=f"run {run}")
    axes.legend(loc="lower right", fontsize=8)
    axes.axhline(200, linewidth=0.8, linestyle="--", color="0.4")
    axes.set(xlabel="generation", ylabel=options.metric, title=options.title)
    axes.grid(alpha=0.25)
    figure.tight_layout()
    figure.savefig(options.out)


if __name__ == "__main__":
    main()
