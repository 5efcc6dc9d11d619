"""Look at the policy of a run: python env/render.py RUN_ID"""

import logging
import secrets
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from pymongo.database import Database

from evolution.playback import playing
from evolution.playback.replay import fresh_seeds, play_candidate, play_episodes
from evolution.playback.subject import Subject, subject_of_file, subject_of_run
from evolution.settings import whole_number
from evolution.simulator import EpisodeError
from store.command_line import in_one_line
from store.recorder import theta_sha256
from utils.film import check_film
from utils.program import set_up_program

TEXT, TORCH = ".json", (".pt", ".pth", ".model")
EXPORT_HELP = "Write it: FILE.json holds all it takes to play it, FILE.pt the torch state_dict."


class Source(click.ParamType):
    """The id of a run, or else the path of a file."""

    name = "run or file"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | Path:
        """See click."""
        if str(value).isdigit():
            return click.IntRange(1, 2**63 - 1).convert(value, param, ctx)
        if not (path := Path(value)).is_file():
            self.fail(f"{value}: no such file, and no run id", param, ctx)
        return path


@click.command()
@click.argument("source", metavar="RUN_ID|FILE.json", type=Source())
@click.option("--gen", type=click.IntRange(min=0), help="Generation; the newest without it.")
@click.option("--best", is_flag=True, help="The policy with the best logged fitness so far.")
@click.option("--candidate", is_flag=True, help="Nevergrad's with the overall best fitness so far.")
@click.option("--num_episodes", type=click.IntRange(min=1), help="As in the run without it.")
@click.option("--max_ep_length", type=click.IntRange(min=1), help="As in the run without it.")
@click.option("--sleep", type=click.FloatRange(min=0), default=0.01, help="Seconds between steps.")
@click.option("--record", type=click.Path(path_type=Path), help="A film: FILE.mp4 or FILE.gif.")
@click.option("--evaluate", type=click.IntRange(min=2), help="Play so many fresh episodes unseen.")
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), help="Decides the episodes.")
@click.option("--export", type=click.Path(path_type=Path), help=EXPORT_HELP)
@click.option(
    "--engine",
    type=click.Choice(["recorded", "gymnasium", "envpool"]),
    default="recorded",
    help="Plays what is not shown; by default the one that the run used.",
)
@click.pass_obj
def cli(find_store: Callable[[], Database], source: int | Path, **options: Any) -> None:
    """Show how a policy plays, in a window or as a film: one of run RUN_ID, which may still be
    going, or that of a file written by --export FILE.json, which needs no store.

    Without a display the film goes to RUN_ID-GENERATION.mp4. Then the run's own evaluation of
    this policy is played again, episode for episode. --evaluate and --export show nothing.
    """
    with in_one_line(EpisodeError):
        _check(source, options)
        subject = _subject(find_store, source, options)
        click.echo(_title(subject))
        if options["export"]:
            export(subject, options["export"])
        if options["evaluate"]:
            seed = secrets.randbelow(2**31) if options["seed"] is None else options["seed"]
            asked = options["evaluate"], seed
            click.echo(playing.evaluate(subject.problem, subject.theta, *asked))
        quiet = options["export"] or options["evaluate"]
        if options["record"] or not quiet:
            show(subject, options)
        if not quiet and options["seed"] is None and options["max_ep_length"] is None:
            play_again(subject)


def _check(source: int | Path, options: dict[str, Any]) -> None:
    """Refuse what cannot be, before anything is read."""
    chosen = [options["best"], options["candidate"], options["gen"] is not None]
    if sum(chosen) > 1:
        raise ValueError("--best, --candidate or --gen: choose one")
    if isinstance(source, Path) and any(chosen):
        raise ValueError(f"{source} holds one policy: --best, --candidate and --gen are for runs")
    if options["record"]:
        check_film(options["record"])
    if path := options["export"]:
        if path.suffix not in (TEXT, *TORCH):
            raise ValueError(f"{path}: policies are {', '.join((TEXT, *TORCH))} files")
        if not path.parent.is_dir():
            raise ValueError(f"{path}: there is no folder {path.parent}")


def _subject(
    find_store: Callable[[], Database], source: int | Path, options: dict[str, Any]
) -> Subject:
    """The policy that the command line asks for."""
    if isinstance(source, Path):
        subject = subject_of_file(source, options["engine"])
    else:
        chosen = options["gen"], options["best"], options["engine"]
        kind = {"candidate": options["candidate"]}
        subject = subject_of_run(find_store(), source, *chosen, **kind)
    if options["max_ep_length"] is not None:
        problem = replace(subject.problem, max_steps=options["max_ep_length"])
        subject = replace(subject, problem=problem)
    return subject


def _title(subject: Subject) -> str:
    generation = "unknown" if subject.generation is None else subject.generation
    return (
        f"{subject.title}, {subject.problem.env}: {subject.name}, generation {generation} of"
        f" {subject.config.get('num_generations')}"
    )


# --- what can be done with it


def export(subject: Subject, path: Path) -> None:
    """Write all of it as text, or the state_dict for ``load_from`` and for torch."""
    if path.suffix == TEXT:
        subject.write(path)
    else:
        import torch

        try:
            torch.save(subject.problem.make_policy().state_dict(subject.theta), path)
        except (OSError, RuntimeError) as error:
            raise ValueError(f"{path} cannot be written: {error}") from error
    click.echo(f"wrote {path}: theta sha256 {theta_sha256(subject.theta)}")


def show(subject: Subject, options: dict[str, Any]) -> None:
    """Play episodes in a window, or into a film."""
    generation = "best" if subject.generation is None else subject.generation
    playing.show(
        subject.problem,
        subject.theta,
        _shown_seeds(subject, options),
        film=options["record"],
        otherwise=Path(f"{subject.label}-{generation}.mp4"),
        sleep=options["sleep"],
        say=click.echo,
    )


def _shown_seeds(subject: Subject, options: dict[str, Any]) -> list[int]:
    """The first of the logged evaluation's, then fresh ones; or those from --seed on."""
    episodes, seed = options["num_episodes"], options["seed"]
    if episodes is None:
        episodes = subject.config["num_episodes"]
        whole_number("num_episodes", episodes, 1)
    if seed is not None:
        return [(seed + number) % 2**31 for number in range(episodes)]
    logged = [] if subject.logged is None else subject.logged.seeds.tolist()
    fresh = fresh_seeds(subject.config["seed"], max(episodes - len(logged), 0))
    return [*logged, *fresh.tolist()][:episodes]


def play_again(subject: Subject) -> None:
    """Repeat the evaluation that the run has logged, and compare."""
    logged, problem = subject.logged, subject.problem
    if logged is None:
        click.echo("the run has logged no evaluation of this policy, so none is played again")
        return
    if logged.of_candidate:
        name, fitness = "fitness", play_candidate(problem, subject.theta, logged.seeds)
    else:
        returns, _ = play_episodes(problem, subject.theta, logged.seeds)
        name, fitness = "current fitness", playing.mean(returns)
    said = (
        f"logged: {name} {logged.fitness!r}; its {len(logged.seeds)} episodes played"
        f" again on {problem.engine}: {fitness!r}"
    )
    if fitness == logged.fitness:
        click.echo(f"{said}: the same")
    else:
        click.echo(f"{said}: NOT the same. {_why(subject)}")


def _why(subject: Subject) -> str:
    info, problem = subject.info, subject.problem
    if info.get("engine", problem.engine) != problem.engine:
        return f"The run was evaluated on {info['engine']}"
    then, here = info.get("versions", {}), problem.versions
    changed = [
        f"{name} {then.get(name, 'absent')} then, {here.get(name, 'absent')} here"
        for name in sorted({*then, *here})
        if then.get(name) != here.get(name)
    ]
    if changed:
        return f"Versions differ: {'; '.join(changed)}"
    return "Versions agree: another kind of CPU rounds otherwise, and so does a changed task"


if __name__ == "__main__":
    from store.location import find_store

    set_up_program(logging.WARNING)
    # Gymnasium's, of bounds that EnvPool gives as float64
    warnings.filterwarnings("ignore", ".*precision lowered by casting", UserWarning)
    cli(obj=find_store)
