"""Look into runs: python store/plot.py lengths 12 --out lengths.png"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click
from pymongo.database import Database

from store.command_line import check_out, in_one_line
from store.comparison.evaluations import FINAL, came_early, of_generations, read_results
from store.comparison.groups import parse_groups
from store.reader import RunReader
from utils.program import set_up_program

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

ENDINGS = (".png", ".svg")
SKIPPED = "frac. results skipped"

FindStore = Callable[[], Database]
run_id = click.argument("run", type=int)
out_file = click.option("--out", type=click.Path(path_type=Path), help="A .png or .svg file.")
generations = click.option("--generation", "-g", help="Such as 12, 10-20 or final; default: all.")
final_or = click.option(
    "--generation", "-g", default=FINAL, help="12, 10-20 or final, the default."
)


@click.group()
def cli() -> None:
    """Pictures of what happened in a run.

    All but "skipped" need a run with log_evaluations=True.
    """


@cli.command()
@run_id
@generations
@out_file
@click.pass_obj
def lengths(find_store: FindStore, run: int, generation: str | None, out: Path | None) -> None:
    """Return against episode length; were short episodes the first to arrive?"""
    with in_one_line():
        out = _checked(out, f"{run}-lengths")
        results, caption = _results(find_store(), run, generation)
        results = results[results["valid"]]
        early = results[came_early(results)]
        click.echo(
            f"mean steps per episode: {results['length'].mean():,.1f} of {len(results)} results,"
            f" {early['length'].mean():,.1f} of the {len(early)} that were among the first half of"
            " their generation to arrive"
        )
        from store.comparison.evaluation_figures import lengths_figure

        _save(lengths_figure(results, caption), out)


@cli.command()
@run_id
@final_or
@out_file
@click.pass_obj
def returns(find_store: FindStore, run: int, generation: str, out: Path | None) -> None:
    """Histogram of the returns."""
    with in_one_line():
        out = _checked(out, f"{run}-returns")
        results, caption = _results(find_store(), run, generation)
        results = results[results["valid"]]
        for kind, fitness in results.groupby("kind")["fitness"]:
            click.echo(
                f"{kind}: {len(fitness)} evaluations, mean {fitness.mean():,.2f}, median"
                f" {fitness.median():,.2f}, {fitness.min():,.2f} to {fitness.max():,.2f}"
            )
        from store.comparison.evaluation_figures import returns_figure

        _save(returns_figure(results, caption), out)


@cli.command()
@run_id
@generations
@out_file
@click.pass_obj
def workers(find_store: FindStore, run: int, generation: str | None, out: Path | None) -> None:
    """Who worked when, and which results came twice or too late."""
    with in_one_line():
        out = _checked(out, f"{run}-workers")
        results, caption = _results(find_store(), run, generation)
        for name, rows in results.groupby("worker"):
            late = (~rows["valid"]).sum()
            click.echo(
                f"{name}: {len(rows)} results in {rows['seconds'].sum():,.2f} s, {late} not used"
            )
        from store.comparison.evaluation_figures import workers_figure

        _save(workers_figure(results, caption), out)


@cli.command()
@click.argument("groups", nargs=-1, required=True)
@out_file
@click.pass_obj
def skipped(find_store: FindStore, groups: tuple[str, ...], out: Path | None) -> None:
    """Share of the results that came twice or too late, of GROUPS of runs such as es=12-16."""
    with in_one_line():
        out = _checked(out, "skipped")
        store = find_store()
        found = {
            group.label: [RunReader(store, run).metric(SKIPPED) for run in group.runs]
            for group in parse_groups(groups)
        }
        for label, metrics in found.items():
            shares = [metric.values.mean() for metric in metrics]
            each = ", ".join(f"{100 * share:.2f} %" for share in shares)
            click.echo(f"{label}: skipped on average {each}")
        from store.comparison.evaluation_figures import skipped_figure

        _save(
            skipped_figure(found, "results that came twice or too late; a line for each run"), out
        )


def _checked(out: Path | None, name: str) -> Path:
    out = out or Path(f"{name}.png")
    check_out(out, ENDINGS)
    return out


def _results(store: Database, run: int, generation: str | None) -> tuple["pd.DataFrame", str]:
    """What was asked for, and what to call it."""
    reader = RunReader(store, run)
    results = read_results(reader)
    if generation is not None:
        results = of_generations(results, generation)
    first, last = results["generation"].min(), results["generation"].max()
    span = f"generation {first}" if first == last else f"generations {first} to {last}"
    span = "final evaluation" if generation == FINAL else span
    return results, f"run {run}, {reader.config.get('env_name')}, {span}"


def _save(figure: "Figure", out: Path) -> None:
    try:
        figure.savefig(out)
    except OSError as error:
        raise ValueError(f"--out {out}: {error.strerror or error}") from error
    click.echo(f"wrote {out}")


if __name__ == "__main__":
    from store.location import find_store

    set_up_program(logging.WARNING)
    cli(obj=find_store)
