"""Look at the policy of a run: python env/render.py RUN_ID"""

import logging
import secrets
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
from pymongo.database import Database

from evolution.loop import confidence_interval
from evolution.problem import Problem, problem_of
from evolution.replay import fresh_seeds, play_episodes
from evolution.seeding import Seeding
from evolution.settings import whole_number
from evolution.show import PICTURES, WINDOW, Stage, draw_without_display, has_display
from evolution.simulator import EpisodeError
from store.command_line import in_one_line
from store.reader import ReadError, RunReader, SavedPolicy
from store.recorder import theta_sha256
from utils.film import Film, check_film
from utils.program import set_up_program

CHECKPOINTS = 10  # running means shown of an evaluation


@dataclass(frozen=True)
class Logged:
    """What the run itself found out about the policy."""

    fitness: float  # the metric "current fitness" of its generation
    seeds: np.ndarray  # int64[episodes], whose mean return it is


@dataclass(frozen=True, eq=False)
class Subject:
    """A saved policy, and all it takes to play with it."""

    run: RunReader
    policy: SavedPolicy
    problem: Problem  # on the engine that the run was evaluated on
    theta: np.ndarray  # float32[dim]
    logged: Logged | None


@click.command()
@click.argument("run_id", type=click.IntRange(min=1))
@click.option("--gen", type=click.IntRange(min=0), help="Generation; the newest without it.")
@click.option("--best", is_flag=True, help="The policy with the best logged fitness so far.")
@click.option("--num_episodes", type=click.IntRange(min=1), help="As in the run without it.")
@click.option("--max_ep_length", type=click.IntRange(min=1), help="As in the run without it.")
@click.option("--sleep", type=click.FloatRange(min=0), default=0.01, help="Seconds between steps.")
@click.option("--record", type=click.Path(path_type=Path), help="A film: FILE.mp4 or FILE.gif.")
@click.option("--evaluate", type=click.IntRange(min=2), help="Play so many fresh episodes unseen.")
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), help="Decides the episodes.")
@click.option("--export", type=click.Path(path_type=Path), help="Write the torch state_dict.")
@click.option(
    "--engine",
    type=click.Choice(["recorded", "gymnasium", "envpool"]),
    default="recorded",
    help="Plays what is not shown; by default the one that the run used.",
)
@click.pass_obj
def cli(find_store: Callable[[], Database], run_id: int, **options: Any) -> None:
    """Show how a policy of run RUN_ID plays, in a window or as a film; the run may still be going.

    Without a display the film goes to RUN_ID-GENERATION.mp4. Then the run's own evaluation of
    this policy is played again, episode for episode. --evaluate and --export show nothing.
    """
    with in_one_line(EpisodeError):
        _check(options)
        subject = read_subject(find_store(), run_id, options)
        click.echo(_title(subject))
        if options["export"]:
            export(subject, options["export"])
        if options["evaluate"]:
            evaluate(subject, options["evaluate"], options["seed"])
        quiet = options["export"] or options["evaluate"]
        if options["record"] or not quiet:
            show(subject, options)
        if not quiet and options["seed"] is None and options["max_ep_length"] is None:
            play_again(subject)


def _check(options: dict[str, Any]) -> None:
    """Refuse what cannot be, before anything is read."""
    if options["best"] and options["gen"] is not None:
        raise ValueError("--best or --gen: choose one")
    if options["record"]:
        check_film(options["record"])
    if options["export"] and not options["export"].parent.is_dir():
        raise ValueError(f"{options['export']}: there is no folder {options['export'].parent}")


# --- which policy, and what the run knows about it


def read_subject(store: Database, run_id: int, options: dict[str, Any]) -> Subject:
    """The policy that the options ask for.

    Raises:
        ReadError: there is no such run or policy.
        ValueError: the run's environment or network cannot be made here.
    """
    run = RunReader(store, run_id)
    policy = run.policy(options["gen"], options["best"])
    try:
        problem = _problem(run, options["engine"])
        logged = _logged(run, policy)
    except KeyError as error:
        raise ReadError(f"run {run_id} has no config key {error}: no experiment of ours") from error
    theta = problem.make_policy().theta_from_state_dict(policy.state_dict)
    if policy.digest is not None and policy.digest != theta_sha256(theta):
        # The run has stored another one since it wrote its notes.
        logged, policy = None, replace(policy, generation=None)
    if options["max_ep_length"] is not None:
        problem = replace(problem, max_steps=options["max_ep_length"])
    return Subject(run, policy, problem, theta, logged)


def _problem(run: RunReader, engine: str) -> Problem:
    """What the run optimized, as this machine can play it."""
    if engine == "recorded" and "engine" not in run.info:  # its first notes are still to come
        return problem_of(run.config)
    engine = run.info["engine"] if engine == "recorded" else engine
    problem = problem_of({**run.config, "engine": "gymnasium"})  # which every machine has
    problem = replace(problem, engine=engine)
    return replace(problem, versions=problem.versions_here())


def _logged(run: RunReader, policy: SavedPolicy) -> Logged | None:
    """The evaluation of the policy's generation; None if there was none, or not yet."""
    metrics, config = run.metrics(), run.config
    current = metrics.get("current fitness")
    if policy.generation is None or current is None or policy.generation not in current.steps:
        return None
    # The theta after the last generation has no population, and was judged on more episodes.
    asked = policy.generation in metrics["mean fitness"].steps
    episodes = config["eval_episodes" if asked else "final_episodes"]
    seeds = Seeding(config["seed"]).evaluation(policy.generation, episodes)[:, 0]
    return Logged(float(current.values[current.steps == policy.generation][0]), seeds)


def _title(subject: Subject) -> str:
    run, policy = subject.run, subject.policy
    generation = "unknown" if policy.generation is None else policy.generation
    return (
        f"run {run.id} ({run.name}, {run.status}), {subject.problem.env}:"
        f" {policy.name}, generation {generation} of {run.config.get('num_generations')}"
    )


# --- what can be done with it


def export(subject: Subject, path: Path) -> None:
    """Write the state_dict, for ``load_from`` and for torch."""
    import torch

    try:
        torch.save(subject.policy.state_dict, path)
    except (OSError, RuntimeError) as error:
        raise ValueError(f"{path} cannot be written: {error}") from error
    click.echo(f"wrote {path}: theta sha256 {theta_sha256(subject.theta)}")


def evaluate(subject: Subject, episodes: int, seed: int | None) -> None:
    """Play fresh episodes in a batch and say how they went."""
    seed = secrets.randbelow(2**31) if seed is None else seed
    returns, lengths = play_episodes(subject.problem, subject.theta, fresh_seeds(seed, episodes))
    for end in np.unique(np.linspace(0, episodes, CHECKPOINTS + 1).astype(int)[1:]):
        click.echo(f"mean of the first {end}: {_mean(returns[:end]):.2f}")
    click.echo(
        f"{episodes} episodes on {subject.problem.engine} (--seed {seed}): mean"
        f" {_mean(returns):.2f} ± {confidence_interval(returns):.2f} (95 % confidence),"
        f" min {returns.min():.2f}, max {returns.max():.2f}, {lengths.mean():.1f} steps each"
    )


def show(subject: Subject, options: dict[str, Any]) -> None:
    """Play episodes in a window, or into a film."""
    if subject.problem.engine == "envpool":
        click.echo(
            "shown are Gymnasium's episodes: EnvPool, on which the run was evaluated, draws"
            " nothing and begins other episodes from equal seeds"
        )
    seeds = _shown_seeds(subject, options)
    film = _film(subject.run.id, subject.policy, options["record"])
    if film is None:
        with Stage(subject.problem, subject.theta, WINDOW) as stage:
            _play(stage, seeds, lambda: time.sleep(options["sleep"]))
        return
    with (
        Stage(subject.problem, subject.theta, PICTURES) as stage,
        Film(film, stage.pictures_per_second) as reel,
    ):
        if options["record"] is None:
            click.echo(f"no display here: making the film {film}")
        _play(stage, seeds, lambda: reel.add(stage.picture()))
    rate = stage.pictures_per_second
    click.echo(f"wrote {film}: {reel.pictures} pictures, {rate:g} a second")


def _film(run_id: int, policy: SavedPolicy, record: Path | None) -> Path | None:
    """Where the film goes; None for a window."""
    if record is None and has_display():
        return None
    draw_without_display()
    if record is None:
        generation = "best" if policy.generation is None else policy.generation
        record = Path(f"{run_id}-{generation}.mp4")
    return record


def _play(stage: Stage, seeds: list[int], look: Callable[[], object]) -> None:
    for number, seed in enumerate(seeds, 1):
        earned, steps = stage.play(seed, look)
        click.echo(f"episode {number}: return {earned:.2f} after {steps} steps (seed {seed})")


def _shown_seeds(subject: Subject, options: dict[str, Any]) -> list[int]:
    """The first of the logged evaluation's, then fresh ones; or those from --seed on."""
    episodes, seed = options["num_episodes"], options["seed"]
    if episodes is None:
        episodes = subject.run.config["num_episodes"]
        whole_number("num_episodes", episodes, 1)
    if seed is not None:
        return [(seed + number) % 2**31 for number in range(episodes)]
    logged = [] if subject.logged is None else subject.logged.seeds.tolist()
    fresh = fresh_seeds(subject.run.config["seed"], max(episodes - len(logged), 0))
    return [*logged, *fresh.tolist()][:episodes]


def play_again(subject: Subject) -> None:
    """Repeat the evaluation that the run has logged, and compare."""
    logged, problem = subject.logged, subject.problem
    if logged is None:
        click.echo("the run has logged no evaluation of this policy, so none is played again")
        return
    fitness = _mean(play_episodes(problem, subject.theta, logged.seeds)[0])
    said = (
        f"logged: current fitness {logged.fitness!r}; its {len(logged.seeds)} episodes played"
        f" again on {problem.engine}: {fitness!r}"
    )
    if fitness == logged.fitness:
        click.echo(f"{said}: the same")
    else:
        click.echo(f"{said}: NOT the same. {_why(subject)}")


def _why(subject: Subject) -> str:
    info, problem = subject.run.info, subject.problem
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


def _mean(returns: np.ndarray) -> float:
    return float(returns.mean(dtype=np.float64))


if __name__ == "__main__":
    from store.location import find_store

    set_up_program(logging.WARNING)
    # Gymnasium's, of bounds that EnvPool gives as float64
    warnings.filterwarnings("ignore", ".*precision lowered by casting", UserWarning)
    cli(obj=find_store)
