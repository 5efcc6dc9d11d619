"""Compare runs: python store/compare.py es=12-16 cma=17,18 --out curves.png"""

import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import pandas as pd
from pymongo.database import Database

from store.command_line import check_out, in_one_line
from store.comparison.curves import BANDS, ESTIMATES
from store.comparison.differences import common_and_different
from store.comparison.groups import Group, parse_groups
from store.comparison.learning import (
    AXES,
    Learning,
    costs_until,
    final_values,
    learn,
    read_curve,
    time_measure,
)
from store.reader import RunReader
from utils.program import set_up_program

ENDINGS = (".png", ".svg", ".csv")
FITNESS = "current fitness"
BAND_WORDS = {
    "ci": "95 % bootstrap interval over the runs",
    "range": "lowest and highest run",
}


@click.command()
@click.argument("groups", nargs=-1)
@click.option("--metric", default=FITNESS, show_default=True)
@click.option("--x", "axis", type=click.Choice(list(AXES)), default="generation", show_default=True)
@click.option("--estimate", type=click.Choice(list(ESTIMATES)), default="iqm", show_default=True)
@click.option("--band", type=click.Choice(list(BANDS)), default="ci", show_default=True)
@click.option("--threshold", type=float, help="Also say what it took to get there.")
@click.option("--smooth", type=click.IntRange(min=1), default=20, show_default=True)
@click.option("--single", is_flag=True, help="Draw each run too.")
@click.option("--out", type=click.Path(path_type=Path), help="A .png, .svg or .csv file.")
@click.option("--list", "listing", is_flag=True, help="List the runs, or all that there are.")
@click.option("--config-diff", "--config_diff", is_flag=True, help="Compare the runs' configs.")
@click.pass_obj
def cli(find_store: Callable[[], Database], groups: tuple[str, ...], **options: Any) -> None:
    """Learning curves of GROUPS of runs, such as es=12-16 cma=17,18.

    An estimate over the runs of a group (iqm: mean of the middle half) with a band (ci: its 95 %
    bootstrap interval; range: from the lowest run to the highest), smoothed over generations by a
    trailing mean, cut to the shortest run of the group. A group without a label is called by its
    ids.
    """
    with in_one_line():
        parsed = parse_groups(groups)
        _check(parsed, options)
        store = find_store()
        if options["listing"]:
            click.echo(list_runs(store, [run for group in parsed for run in group.runs]))
        elif options["config_diff"]:
            click.echo(config_diff([RunReader(store, run) for g in parsed for run in g.runs]))
        else:
            compare(store, parsed, options)


def _check(groups: Sequence[Group], options: dict[str, Any]) -> None:
    out = options["out"]
    if options["listing"] and options["config_diff"]:
        raise ValueError("--list or --config-diff: choose one")
    if not groups and not options["listing"]:
        raise ValueError("which runs? Name some, such as es=12-16 cma=17,18; --list shows them")
    if out is not None:
        check_out(out, ENDINGS)


# --- learning curves


def compare(store: Database, groups: Sequence[Group], options: dict[str, Any]) -> None:
    """Print the table, and write the file if one is wanted."""
    metric, axis, window = options["metric"], options["axis"], options["smooth"]
    estimate, band = ESTIMATES[options["estimate"]], BANDS[options["band"]]
    readers = {group.label: [RunReader(store, run) for run in group.runs] for group in groups}
    learnings = [
        learn(label, [read_curve(run, metric, axis, window) for run in runs], axis, estimate, band)
        for label, runs in readers.items()
    ]
    rows = []
    for learning in learnings:
        row: dict[str, Any] = {
            "runs": len(learning.curves),
            **final_values(learning, estimate, band),
        }
        if options["threshold"] is not None:
            runs = readers[learning.label]
            row |= _until(costs_until(runs, metric, options["threshold"], window), len(runs))
        rows.append(row)
    click.echo(
        pd.DataFrame(rows, index=list(readers)).to_string(na_rep="–", float_format="{:,.2f}".format)
    )
    for remark in _remarks(learnings, list(itertools.chain(*readers.values())), options):
        click.echo(remark)
    if options["out"] is not None:
        _write(learnings, options)


def _until(costs: dict[str, float], runs: int) -> dict[str, str]:
    reached = f"{costs.pop('reached')} of {runs}"
    shown = {name: "–" if cost == float("inf") else f"{cost:,.0f}" for name, cost in costs.items()}
    return {"reached": reached, **shown}


def _remarks(
    learnings: Sequence[Learning], readers: Sequence[RunReader], options: dict[str, Any]
) -> Iterator[str]:
    yield (
        f"final: {options['estimate']} of each run's last {options['metric']!r};"
        f" low, high: {BAND_WORDS[options['band']]}"
    )
    if options["threshold"] is not None:
        yield (
            f"reached: {options['threshold']:g} by the trailing mean over {options['smooth']}"
            " generations; steps and time until then: medians, – where half of the runs never do"
        )
        if "seconds" in time_measure(readers):
            yield "seconds are on the wall: these runs have logged no core-seconds"
    alone = [learning.label for learning in learnings if len(learning.curves) == 1]
    if alone and options["band"] == "ci":
        yield f"a single run has no interval: {', '.join(alone)}"
    if going := [str(run.id) for run in readers if run.status == "RUNNING"]:
        yield f"still running: {', '.join(going)}"


def _write(learnings: Sequence[Learning], options: dict[str, Any]) -> None:
    out = options["out"]
    try:
        if out.suffix.lower() == ".csv":
            pd.concat([learning.frame() for learning in learnings]).to_csv(out, index=False)
        else:
            from store.comparison.figures import draw

            names = ("metric", "axis", "threshold", "single")
            draw(learnings, out, _caption(options), **{name: options[name] for name in names})
    except OSError as error:
        raise ValueError(f"--out {out}: {error.strerror or error}") from error
    click.echo(f"wrote {out}")


def _caption(options: dict[str, Any]) -> str:
    window = options["smooth"]
    smoothing = f"; trailing mean over {window} generations" if window > 1 else ""
    return f"line: {options['estimate']}; band: {BAND_WORDS[options['band']]}{smoothing}"


# --- lists


def list_runs(store: Database, ids: Sequence[int]) -> str:
    """A table of runs: what they are, how they ended, and in what their configs differ."""
    if not ids:
        ids = sorted(each["_id"] for each in store["runs"].find({}, {"_id": 1}))
    if not ids:
        return "no runs in the store"
    runs = [RunReader(store, run) for run in ids]
    _, different = common_and_different([run.config for run in runs])
    rows = [
        {
            "id": run.id,
            "name": run.name,
            "status": run.status,
            "result": _result(run),
            "config": "  ".join(f"{key}={values[row]}" for key, values in different.items()),
        }
        for row, run in enumerate(runs)
    ]
    return _table(rows)


def _result(run: RunReader) -> str:
    """What the run returned, or how far it is."""
    if isinstance(run.result, int | float):
        return f"{run.result:,.2f}"
    if FITNESS not in run.metric_names():
        return ""
    current = run.metric(FITNESS)
    return f"{current.values[-1]:,.2f} at {current.steps[-1]}"


def config_diff(runs: Sequence[RunReader]) -> str:
    """Keys on which the configs agree, then those on which they do not."""
    common, different = common_and_different([run.config for run in runs])
    same = "\n".join(f"  {key} = {value}" for key, value in common.items())
    rows = [
        {"different": key, **{f"run {r.id}": value for r, value in zip(runs, values, strict=True)}}
        for key, values in different.items()
    ]
    return f"common\n{same}\n{_table(rows) if rows else 'no difference'}"


def _table(rows: list[dict[str, Any]]) -> str:
    """Left-aligned columns under their names."""
    names = list(rows[0])
    cells = [names, *([str(row[name]) for name in names] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(names))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    )


if __name__ == "__main__":
    from store.location import find_store

    set_up_program(logging.WARNING)
    cli(obj=find_store)
