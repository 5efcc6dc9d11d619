"""What can be said to cluster/launch.py, and which provider understands it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from cluster.providers import CLOUDS, PROVIDERS, ProviderError
from utils.settings import VARIABLES

HOURS = {"slurm": 1.0}  # of one sitting
HOURS_OF_OTHERS = 12.0  # after which all ends, if the run has not

SLURMS = ("partition", "warning_seconds", "sittings", "options")
CLOUDY = (
    *("head_type", "worker_type", "owner", "image", "price"),
    *("keep", "worker_command", "committed_only"),
)
UNDERSTOOD = {"slurm": SLURMS, **dict.fromkeys(CLOUDS, CLOUDY)}


def launch_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command all options, those of every provider too."""
    for option in reversed((*_common(), *_how(), *_of_slurm(), *_of_clouds())):
        command = option(command)
    return command


def _common() -> tuple[Any, ...]:
    at_least_one = click.IntRange(min=1)
    return (
        click.option(
            "--provider",
            "provider_name",
            type=click.Choice(PROVIDERS),
            default="aws",
            show_default=True,
        ),
        click.option(
            "--experiment", default="es", show_default=True, help="es, ga or nevergrad_es."
        ),
        click.option("--config", default="", help="What stands behind `with`: 'lander seed=3'."),
        click.option(
            *("--nodes", "--size"),
            type=at_least_one,
            default=1,
            show_default=True,
            help="Machines of workers.",
        ),
        click.option(
            *("--hours", "--max-hours", "--max_hours"),
            type=click.FloatRange(min=0, min_open=True),
            help="slurm: of a sitting, 1; else 12, after which all ends even if nobody is there.",
        ),
        click.option(
            *("--cpus-per-node", "--cpus_per_node", "--workers_per_machine"),
            *("--workers-per-machine",),
            type=at_least_one,
            help="Workers on each; default: as many as it has cores.",
        ),
        click.option(
            *("--name", "--cluster_name", "--cluster-name", "-n", "--hostname-prefix"),
            help="Default: from experiment and config, or two words.",
        ),
    )


def _how() -> tuple[Any, ...]:
    return (
        click.option(
            "--folder",
            type=click.Path(file_okay=False, path_type=Path),
            help="Of the jobs' folders, which all nodes see; default: runs/clusters.",
        ),
        click.option("--dry-run", "--dry_run", "dry_run", is_flag=True, help="Start nothing."),
        click.option("--datacenter", hidden=True, expose_value=False, callback=_refuse_datacenter),
        click.option("--yes", "-y", is_flag=True, help="Do not ask."),
    )


def _refuse_datacenter(context: click.Context, option: click.Parameter, value: object) -> None:
    if value is not None:
        raise click.UsageError(
            f"--datacenter={value}: IBM's classic infrastructure (SoftLayer), whose data centers"
            f" these are, is retired: say --provider=ibm, with {VARIABLES['ibm', 'region']} and"
            f" {VARIABLES['ibm', 'subnet']} set"
        )


def _of_slurm() -> tuple[Any, ...]:
    return (
        click.option("--partition", help="slurm: default: its default one."),
        click.option(
            *("--warning-seconds", "--warning_seconds"),
            type=click.IntRange(min=1),
            default=120,
            show_default=True,
            help="slurm: before the hours are over, in which to write a checkpoint.",
        ),
        click.option(
            "--sittings",
            type=click.IntRange(min=1),
            default=20,
            show_default=True,
            help="slurm: how often, at most, a run goes on for so many hours.",
        ),
        click.option(
            "--option", "options", multiple=True, help="slurm: for sbatch, as --account=NAME."
        ),
    )


def _of_clouds() -> tuple[Any, ...]:
    return (
        click.option(
            *("--master_type", "--master-type", "head_type"), help="cloud: the head's machine."
        ),
        click.option(*("--worker_type", "--worker-type"), help="cloud: the machines of workers."),
        click.option("--owner", help="cloud: default: EVO_OWNER, else your name here."),
        click.option(
            *("--image_id", "--image-id", "image"), help="cloud: default: its Linux of today."
        ),
        click.option(
            "--price",
            type=float,
            help="cloud: the most a worker's machine may cost an hour; default: the fixed price.",
        ),
        click.option(
            *("--keep-vms", "--keep_vms", "keep"),
            is_flag=True,
            help="cloud: machines stay when the run has ended, until --max-hours.",
        ),
        click.option(
            *("--worker_command", "--worker-command"),
            default="python -u es/worker.py workers",
            show_default=True,
            help="cloud: what machines of workers run.",
        ),
        click.option(
            *("--committed-only", "--committed_only"),
            is_flag=True,
            help="cloud: go on although there are changes that are in no commit.",
        ),
    )


def understood_by(provider_name: str, options: dict[str, Any]) -> dict[str, Any]:
    """The options that a provider understands.

    Raises:
        ProviderError: one that it does not understand was given.
    """
    context = click.get_current_context()
    others = {*SLURMS, *CLOUDY} - {*UNDERSTOOD.get(provider_name, ())}
    for name in sorted(others):
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            (option,) = [each for each in context.command.params if each.name == name]
            raise ProviderError(f"{option.opts[0]} means nothing to {provider_name}: leave it out")
    return {name: value for name, value in options.items() if name not in others}
