"""Look after clusters: python cluster/manage.py list, tail NAME, kill NAME"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from cluster.providers import PROVIDERS, Provider, ProviderError, provider
from store.command_line import in_one_line
from store.location import runs_folder
from utils.program import set_up_program

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
        with in_one_line(ProviderError):
            command(provider(name, folder or runs_folder() / "clusters"), **options)

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
@_about_clusters
def tail(chosen: Provider, cluster: str, lines: int, node: int | None) -> None:
    """Show what the head, or the workers of a node, have said last."""
    click.echo(chosen.tail(cluster, lines, node))


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
