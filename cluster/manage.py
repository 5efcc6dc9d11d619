"""Look after clusters: python cluster/manage.py list, tail NAME, kill NAME"""

import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from cluster.jobs import JobError
from cluster.providers import PROVIDERS, Provider, ProviderError, provider
from store.location import runs_folder
from utils.program import set_up_program

LOOK_SECONDS = 1.0
WIDTHS = (10, 12, 6)  # of the columns job, status, nodes


@click.group()
def cli() -> None:
    """Clusters that cluster/launch.py has made."""
    set_up_program()


def _about_clusters(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the provider that its options name; tell errors in one line."""

    @click.option("--provider", "name", type=click.Choice(PROVIDERS), default="slurm")
    @click.option(
        "--folder",
        type=click.Path(file_okay=False, path_type=Path),
        help="Of the jobs' folders; default: runs/clusters.",
    )
    @functools.wraps(command)
    def wrapped(name: str, folder: Path | None, **options: Any) -> None:
        try:
            command(provider(name, folder or runs_folder() / "clusters"), **options)
        except (JobError, ProviderError) as error:
            raise click.ClickException(str(error)) from error

    return wrapped


@cli.command("list")
@_about_clusters
def list_(chosen: Provider) -> None:
    """Show all clusters and how they are."""
    found = chosen.list()
    if not found:
        click.echo("no clusters")
    for each in found:
        columns = zip((each.job or "-", each.status or "new", str(each.nodes)), WIDTHS, strict=True)
        shown = " ".join(text.ljust(width) for text, width in columns)
        click.echo(f"{shown} {each.name}  {each.detail}".rstrip())


@cli.command()
@click.argument("cluster")
@click.option("-n", "--lines", type=click.IntRange(min=1), default=10, show_default=True)
@click.option("--node", type=click.IntRange(min=0), help="Of its workers; default: the head.")
@click.option("--follow", "-f", is_flag=True, help="And what comes, until Ctrl-C.")
@_about_clusters
def tail(chosen: Provider, cluster: str, lines: int, node: int | None, follow: bool) -> None:
    """Show what the head, or the workers of a node, have said last."""
    shown = chosen.tail(cluster, lines, node)
    click.echo(shown)
    while follow:
        time.sleep(LOOK_SECONDS)
        now = chosen.tail(cluster, lines, node)
        before, after = shown.splitlines(), now.splitlines()
        known = next(
            (n for n in range(len(after), 0, -1) if after[:n] == before[len(before) - n :]), 0
        )
        for line in after[known:]:
            click.echo(line)
        shown = now


@cli.command()
@click.argument("cluster")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@_about_clusters
def kill(chosen: Provider, cluster: str, yes: bool) -> None:
    """End a cluster; its run can go on from its last checkpoint."""
    if yes or click.confirm(f"end {cluster}?", abort=True):
        chosen.destroy(cluster)
        click.echo(f"{cluster} has ended")


if __name__ == "__main__":
    cli()
