"""Run an experiment on many machines: python cluster/launch.py launch --size=5 --config=lander"""

import hashlib
import os
import re
import shlex
from pathlib import Path
from typing import Any

import click

from cluster.bundle import archive
from cluster.jobs import ENV_VARIABLE, JobError, check_config, check_name
from cluster.launch_options import HOURS, HOURS_OF_OTHERS, launch_options, understood_by
from cluster.providers import CLOUDS, CloudPlan, Plan, Provider, ProviderError, provider
from store.command_line import in_one_line
from store.location import runs_folder
from utils.one_line import OneLineGroup
from utils.program import set_up_program
from utils.settings import setting


@click.group(cls=OneLineGroup)
def cli() -> None:
    """Runs on machines of a cluster."""
    set_up_program()


@cli.command()
@launch_options
def launch(
    provider_name: str, folder: Path | None, dry_run: bool, yes: bool, **options: Any
) -> None:
    """Begin a run on machines of its own, or go on with it; it lasts until it is done."""
    with in_one_line(ProviderError, OSError):
        clusters = folder or runs_folder() / "clusters"
        options = understood_by(provider_name, options)
        chosen = provider(provider_name, clusters, options.pop("owner", None))
        asked = _plan(provider_name, **options)
        plan = chosen.check(asked)
        check_config(plan.experiment, plan.config)
        click.echo(
            f"{chosen.preview(plan)}\n{_summary(chosen, plan)}"
            if dry_run
            else _summary(chosen, plan)
        )
        if not dry_run and (yes or click.confirm("launch?", abort=True)):
            _launch(chosen, plan, clusters)


@cli.command()
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("../source.tar"),
    show_default=True,
)
def compress(out: Path) -> None:
    """Pack what is committed, as clusters get it."""
    with in_one_line(ProviderError, OSError):
        out.write_bytes(archive())
        click.echo(f"wrote {out}, {out.stat().st_size:,} bytes")


def _plan(
    provider_name: str, *, config: str, name: str | None, hours: float | None, **options: Any
) -> Plan:
    try:
        words = shlex.split(config)
    except ValueError as error:
        raise JobError(f"--config={config!r}: {error}") from error
    if gym := os.environ.get(ENV_VARIABLE):
        click.echo(f"env_name={gym}, from the variable {ENV_VARIABLE}")
        words.append(f"env_name={gym}")
    hours = hours or HOURS.get(provider_name, HOURS_OF_OTHERS)
    if provider_name in CLOUDS:
        return CloudPlan(config=tuple(words), name=name or "", hours=hours, **options)
    name = check_name(name) if name else _name(options["experiment"], words)
    return Plan(config=tuple(words), name=name, hours=hours, **options)


def _name(experiment: str, words: list[str]) -> str:
    """Says what it is, and is the same for the same."""
    said = re.sub(r"[^A-Za-z0-9.=-]+", "-", "-".join([experiment, *words]))[:60].strip("-")
    return f"{said}-{hashlib.sha256(shlex.join(words).encode()).hexdigest()[:6]}"


def _summary(chosen: Provider, plan: Plan) -> str:
    what = f"{plan.name}: {plan.experiment} with {shlex.join(plan.config)}"
    return f"{what}\n{chosen.estimate(plan)}"


def _launch(chosen: Provider, plan: Plan, clusters: Path) -> None:
    made = chosen.create(plan)
    click.echo(f"job {made.job}: {made.name}, {made.detail}".rstrip(", "))
    where = "" if chosen.name == "slurm" else f" --provider={chosen.name}"
    click.echo(f"python cluster/manage.py tail {made.name}{where}")
    job = clusters.absolute() / made.name
    if chosen.name not in CLOUDS and setting("store", "url") is None:
        click.echo(f"its store, when it is done: EVO_RUNS={shlex.quote(str(job / 'runs'))}")


if __name__ == "__main__":
    cli()
