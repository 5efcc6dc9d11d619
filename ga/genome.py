"""Genomes as text: python ga/genome.py show RUN_ID"""

import logging
import secrets
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
from pymongo.database import Database

from evolution.playback import playing
from evolution.playback.replay import fresh_seeds
from evolution.problem import Problem
from evolution.simulator import EpisodeError
from ga.genome_text import GenomeText
from ga.stored import StoredRun
from store.command_line import in_one_line
from store.recorder import theta_sha256
from utils.film import check_film
from utils.program import set_up_program

FindStore = Callable[[], Database]
word = click.argument("text")
decides = click.option("--seed", type=click.IntRange(0, 2**31 - 1), help="Decides the episodes.")


@click.group()
def cli() -> None:
    """Genomes of runs as one word of text, which anybody can play anywhere.

    TEXT is what "show" prints, or - to read it from standard input.
    """


@cli.command()
@click.argument("run_id", type=click.IntRange(min=1))
@click.option("--generation", "-g", type=click.IntRange(min=0), help="The newest without it.")
@click.option("--rank", type=click.IntRange(min=1), help="The one with the RANK-th best score.")
@click.pass_obj
def show(find_store: FindStore, run_id: int, generation: int | None, rank: int | None) -> None:
    """Print a genome of a run: the elite, whose score was earned on fresh episodes, or with
    --rank another survivor."""
    with in_one_line():
        run = StoredRun(find_store(), run_id)
        survivors = run.survivors(generation)
        genome = survivors.elite if rank is None else survivors.ranked(rank)
        click.echo(run.text(survivors, genome))


@cli.command()
@word
@click.option("--runs", type=click.IntRange(min=2), default=100, show_default=True)
@decides
def evaluate(text: str, runs: int, seed: int | None) -> None:
    """Play fresh episodes unseen: the running mean, then mean, interval and extremes."""
    with in_one_line(EpisodeError):
        problem, theta = _read(text)
        seed = secrets.randbelow(2**31) if seed is None else seed
        click.echo(playing.evaluate(problem, theta, runs, seed))


@cli.command()
@word
@click.option("--num_episodes", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--sleep", type=click.FloatRange(min=0), default=0.01, help="Seconds between steps.")
@click.option("--record", type=click.Path(path_type=Path), help="A film: FILE.mp4 or FILE.gif.")
@decides
def replay(
    text: str, num_episodes: int, sleep: float, record: Path | None, seed: int | None
) -> None:
    """Show how it plays, in a window or as a film; without a display as genome-SHA256.mp4."""
    with in_one_line(EpisodeError):
        if record:
            check_film(record)
        problem, theta = _read(text)
        seeds = fresh_seeds(secrets.randbelow(2**31) if seed is None else seed, num_episodes)
        playing.show(
            problem,
            theta,
            seeds.tolist(),
            film=record,
            otherwise=Path(f"genome-{theta_sha256(theta)[:8]}.mp4"),
            sleep=sleep,
            say=click.echo,
        )


def _read(text: str) -> tuple[Problem, np.ndarray]:
    """The problem as it is played here, and the genome's parameters."""
    said = GenomeText.parse(sys.stdin.read() if text == "-" else text)
    problem, theta = said.here(), said.theta()
    click.echo(
        f"{problem.env}, {problem.network} of {said.dim} parameters, {len(said.genome)} indices:"
        f" theta sha256 {theta_sha256(theta)}"
    )
    return problem, theta


if __name__ == "__main__":
    from store.location import find_store

    set_up_program(logging.WARNING)
    # Gymnasium's, of bounds that EnvPool gives as float64
    warnings.filterwarnings("ignore", ".*precision lowered by casting", UserWarning)
    cli(obj=find_store)
