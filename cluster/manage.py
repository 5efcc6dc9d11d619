"""Look after clusters: python cluster/manage.py list, tail NAME, size NAME N, kill NAME"""

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from cluster import following
from cluster.jobs import JobFolder
from cluster.providers import (
    CLOUDS,
    PROVIDERS,
    Account,
    Change,
    Provider,
    ProviderError,
    account,
    no_cluster,
    provider,
)
from store.command_line import in_one_line
from store.location import runs_folder
from utils.one_line import OneLineGroup
from utils.program import set_up_program
from utils.settings import VARIABLES, setting

WIDTHS = (19, 12, 6)  # of the columns job, status, nodes
# Whoever has set one of these may have clusters on AWS.
AWS_VARIABLES = ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION")


@click.group(cls=OneLineGroup)
def cli() -> None:
    """Clusters that cluster/launch.py has made."""
    set_up_program()


_folder = click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Of the jobs' folders; default: runs/clusters.",
)
_provider = click.option(
    *("--provider", "provider_name"),
    type=click.Choice(PROVIDERS),
    help="Default: the one whose traces are in the folder, else the cloud that is set up.",
)
_owner = click.option("--owner", help="Of a cloud's clusters; default: EVO_OWNER, else you.")
_yes = click.option("--yes", "-y", is_flag=True, help="Do not ask.")


def _about_clusters(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the provider that its options name; tell errors in one line."""

    @_provider
    @_owner
    @_folder
    @functools.wraps(command)
    def wrapped(
        provider_name: str | None, owner: str | None, folder: Path | None, **options: Any
    ) -> None:
        with in_one_line(ProviderError, OSError):
            clusters = folder or runs_folder() / "clusters"
            name = provider_name or _provider_of(clusters, options.get("cluster"))
            command(provider(name, clusters, owner), **options)

    return wrapped


def _provider_of(folder: Path, cluster: str | None) -> str:
    """Who has a cluster: jobs leave a folder, what is in a cloud leaves nothing here."""
    clouds = [name for name in _in_use(folder, None) if name in CLOUDS] or ["aws"]
    return _begun_by(folder).get(cluster or "", clouds[0])


def _begun_by(folder: Path) -> dict[str, str]:
    """The providers of all jobs that have a folder."""
    jobs = [JobFolder(file.parent) for file in sorted(folder.glob("*/job.json"))]
    return {job.name: str(job.read().get("provider", "slurm")) for job in jobs}


def _in_use(folder: Path, owner: str | None) -> list[str]:
    """The providers of which there may be clusters, as far as can be seen without asking them."""
    names = [] if owner else sorted(set(_begun_by(folder).values()))
    known = any(name in os.environ for name in AWS_VARIABLES) or setting("aws", "region")
    if known or owner or Path("~/.aws").expanduser().exists():
        names.append("aws")
    if setting("ibm", "region"):
        names.append("ibm")
    return names


def _about_an_account(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the account with a cloud; tell errors in one line."""

    @click.option(
        *("--provider", "provider_name"),
        type=click.Choice(CLOUDS),
        default="aws",
        show_default=True,
    )
    @_owner
    @functools.wraps(command)
    def wrapped(provider_name: str, owner: str | None, **options: Any) -> None:
        with in_one_line(ProviderError):
            command(account(provider_name, owner), **options)

    return wrapped


# --- clusters


@cli.command("list")
@_provider
@_owner
@_folder
def list_(provider_name: str | None, owner: str | None, folder: Path | None) -> None:
    """Show all clusters and how they are, those of all providers that are in use here."""
    with in_one_line(ProviderError, OSError):
        clusters = folder or runs_folder() / "clusters"
        names = [provider_name] if provider_name else _in_use(clusters, owner)
        found = [each for name in names for each in provider(name, clusters, owner).list()]
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
@click.option("--follow", "-f", is_flag=True, help="Go on with what comes, until it has ended.")
@_about_clusters
def tail(chosen: Provider, cluster: str, lines: int, node: int | None, follow: bool) -> None:
    """Show what the head, or the workers of a node, have said last."""
    said = following.follow(chosen, cluster, lines, node) if follow else None
    for text in said or [chosen.tail(cluster, lines, node)]:
        click.echo(text)


@cli.command("exec", context_settings={"ignore_unknown_options": True})
@click.argument("cluster")
@click.argument("command", nargs=-1, required=True)
@click.option("--node", type=click.IntRange(min=0), help="Of its workers; default: the head.")
@_about_clusters
def exec_(chosen: Provider, cluster: str, command: tuple[str, ...], node: int | None) -> None:
    """Run a COMMAND of the shell where the head is, or on a node."""
    click.echo(chosen.exec(cluster, " ".join(command), node), nl=False)


@cli.command()
@click.argument("cluster")
@click.argument("size", type=click.IntRange(min=1))
@_about_clusters
def resize(chosen: Provider, cluster: str, size: int) -> None:
    """Have SIZE machines of workers in a cluster."""
    chosen.resize(cluster, size)
    click.echo(f"{cluster} is to have {size} machines of workers")


@cli.command()
@click.argument("cluster")
@click.argument("size", type=click.IntRange(min=1), required=False)
@_about_clusters
def size(chosen: Provider, cluster: str, size: int | None) -> None:
    """Have SIZE machines of workers in a cluster; without it, say how many there are."""
    if size is not None:
        chosen.resize(cluster, size)
        click.echo(f"{cluster} is to have {size} machines of workers")
        return
    found = {each.name: each for each in chosen.list()}
    if cluster not in found:
        raise no_cluster(cluster, [*found])
    click.echo(f"{found[cluster].nodes} machines of workers; {found[cluster].detail}")


@cli.command()
@click.argument("cluster")
@click.option("--price", type=float, help="The most to pay for an hour; default: the fixed price.")
@click.option("--min_size", "--min-size", type=click.IntRange(min=0))
@click.option("--max_size", "--max-size", type=click.IntRange(min=1))
@click.option("--desired_size", "--desired-size", type=click.IntRange(min=0))
@click.option("--worker_type", "--worker-type", help="Default: as it is.")
@_about_clusters
def set_price(chosen: Provider, cluster: str, **changes: Any) -> None:
    """Have workers on machines at another price, of another type, in another number.

    Machines that are there stay as they are; those that come from now on are as said here.
    """
    chosen.set_price(cluster, Change(**changes))
    price = changes["price"]
    kind = "at the fixed price" if price is None else f"as spot machines for at most ${price:g}"
    click.echo(f"new machines of {cluster} come {kind}")


@cli.command()
@click.argument("machine")
@click.option("--dry_run/--no_dry_run", "--dry-run/--no-dry-run", default=False)
@_about_clusters
def upload(chosen: Provider, machine: str, dry_run: bool) -> None:
    """Bring what is committed here to a MACHINE, by its id or address, to work there by hand."""
    click.echo(chosen.upload(machine, dry_run))


@cli.command()
@click.argument("cluster")
@_yes
@_about_clusters
def kill(chosen: Provider, cluster: str, yes: bool) -> None:
    """End a cluster; its run can go on from its last checkpoint."""
    if not yes:
        there = [each.name for each in chosen.list()]
        if cluster not in there:
            raise no_cluster(cluster, there)
        click.confirm(f"end {cluster}?", abort=True)
    chosen.destroy(cluster)
    click.echo(f"{cluster} has ended")


# --- accounts


@cli.command()
@click.option("--name", help="Default: of the settings, else from account and region.")
@_about_an_account
def create_bucket(chosen: Account, name: str | None) -> None:
    """Make the private store for code and logs that a cloud's clusters need, once."""
    made = chosen.create_bucket(name)
    click.echo(f"bucket {made}")
    if name is not None:
        click.echo(f"{VARIABLES[chosen.name, 'bucket']}={made} in the environment has it used")


@cli.command()
@_about_an_account
def setup(chosen: Account) -> None:
    """Make what else a cloud's clusters need, once; does no harm if it is there."""
    for line in chosen.setup():
        click.echo(line)


@cli.command()
@_yes
@_about_an_account
def teardown(chosen: Account, yes: bool) -> None:
    """Remove what `setup` has made; the bucket and what is in it stay."""
    if yes or click.confirm("remove it?", abort=True):
        removed = chosen.teardown()
        click.echo("\n".join(f"removed {each}" for each in removed) or "there was nothing")


@cli.command()
@_about_an_account
def check(chosen: Account) -> None:
    """Say what is missing before a launch; the exit code is 1 if something is."""
    for line in chosen.remarks():
        click.echo(line)
    if missing := chosen.missing():
        raise ProviderError("; ".join(missing))
    click.echo("nothing is missing")


if __name__ == "__main__":
    cli()
