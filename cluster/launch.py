"""Run an experiment on many machines: python cluster/launch.py launch --provider=slurm --nodes=8"""

import hashlib
import os
import re
import shlex
from pathlib import Path
from typing import Any

import click

from cluster.jobs import ENV_VARIABLE, JobError, check_config, check_name
from cluster.providers import PROVIDERS, Plan, Provider, ProviderError, provider
from store.command_line import in_one_line
from store.location import runs_folder
from utils.program import set_up_program
from utils.settings import setting


@click.group()
def cli() -> None:
    """Runs on machines of a cluster."""
    set_up_program()


@cli.command()
@click.option("--provider", "provider_name", type=click.Choice(PROVIDERS), required=True)
@click.option("--experiment", default="es", show_default=True, help="es or ga.")
@click.option("--config", default="", help="What stands behind `with`: 'lander seed=3'.")
@click.option("--nodes", type=click.IntRange(min=1), default=1, show_default=True)
@click.option(
    "--hours", type=click.FloatRange(min=0, min_open=True), default=1.0, show_default=True
)
@click.option("--partition", help="Default: the provider's.")
@click.option(
    *("--cpus-per-node", "--cpus_per_node"),
    type=click.IntRange(min=1),
    help="Workers on each; default: all.",
)
@click.option(
    *("--warning-seconds", "--warning_seconds"),
    type=click.IntRange(min=1),
    default=120,
    show_default=True,
    help="Before the hours are over, in which to write a checkpoint.",
)
@click.option(
    "--sittings",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    help="How often, at most, the run goes on for so many hours when it is not done.",
)
@click.option("--option", "options", multiple=True, help="For sbatch, such as --account=NAME.")
@click.option("--name", help="Of the job and its folder; default: from experiment and config.")
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Of the jobs' folders, which all nodes see; default: runs/clusters.",
)
@click.option("--dry-run", "--dry_run", "dry_run", is_flag=True, help="Show it, and start nothing.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
def launch(
    provider_name: str, folder: Path | None, dry_run: bool, yes: bool, **options: Any
) -> None:
    """Begin a run on machines of its own, or go on with it; it lasts until it is done."""
    with in_one_line(ProviderError):
        clusters = folder or runs_folder() / "clusters"
        chosen = provider(provider_name, clusters)
        plan = chosen.check(_plan(**options))
        check_config(plan.experiment, plan.config)
        click.echo(f"{chosen.preview(plan)}\n{_summary(plan)}" if dry_run else _summary(plan))
        if not dry_run and (yes or click.confirm("launch?", abort=True)):
            _launch(chosen, plan, clusters)


def _plan(*, config: str, name: str | None, **options: Any) -> Plan:
    try:
        words = shlex.split(config)
    except ValueError as error:
        raise JobError(f"--config={config!r}: {error}") from error
    if gym := os.environ.get(ENV_VARIABLE):
        click.echo(f"env_name={gym}, from the variable {ENV_VARIABLE}")
        words.append(f"env_name={gym}")
    name = check_name(name) if name else _name(options["experiment"], words)
    return Plan(config=tuple(words), name=name, **options)


def _name(experiment: str, words: list[str]) -> str:
    """Says what it is, and is the same for the same."""
    said = re.sub(r"[^A-Za-z0-9.=-]+", "-", "-".join([experiment, *words]))[:60].strip("-")
    return f"{said}-{hashlib.sha256(shlex.join(words).encode()).hexdigest()[:6]}"


def _summary(plan: Plan) -> str:
    cores = plan.nodes * (plan.cpus_per_node or 1)
    return (
        f"{plan.name}: {plan.experiment} with {shlex.join(plan.config)}\n"
        f"{plan.nodes} nodes of {plan.cpus_per_node} cores, {plan.hours:g} hours a sitting, at most"
        f" {plan.sittings} sittings: {cores * plan.hours:,.1f} core-hours a sitting, at most"
        f" {cores * plan.hours * plan.sittings:,.1f}"
    )


def _launch(chosen: Provider, plan: Plan, clusters: Path) -> None:
    made = chosen.create(plan)
    job = clusters.absolute() / made.name
    click.echo(f"job {made.job}: {made.name}, in {job}")
    click.echo(f"python cluster/manage.py tail {made.name}")
    if setting("store", "url") is None:
        click.echo(f"its store, when it is done: EVO_RUNS={shlex.quote(str(job / 'runs'))}")


if __name__ == "__main__":
    cli()
