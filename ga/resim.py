"""Play once more what a run has found: python ga/resim.py RUN_ID --mode top_elite"""

import json
import logging
import secrets
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from pymongo.database import Database
from redis import RedisError

from cluster.redis_server import ServerError
from env.errors import EnvError
from evolution.decoder import Decoder
from evolution.evaluation import Evaluations
from evolution.exchange.lookout import WorkerFailure
from evolution.loop import confidence_interval
from evolution.noise import NoiseTable
from evolution.playback import playing
from evolution.settings import available_cores
from evolution.simulator import EpisodeError
from evolution.workplace import open_private_workplace
from ga.resimulation import Piece, last_mutations, summary, top_elite, write_rows, write_summary
from ga.stored import StoredRun
from store.command_line import in_one_line
from utils.program import set_up_program

MUTATIONS, ELITE = "last_muts", "top_elite"
FILES = {MUTATIONS: "resim", ELITE: "elite"}  # what names of files begin with, as ga-dist's
MIN_SECONDS = 0.05  # of work that a worker takes at a time


@click.command()
@click.argument("run_id", type=click.IntRange(min=1))
@click.option("--mode", type=click.Choice([MUTATIONS, ELITE]), default=ELITE, show_default=True)
@click.option("--runs", type=click.IntRange(min=2), default=200, show_default=True)
@click.option("--n_gifs", type=click.IntRange(min=0), default=1, show_default=True)
@click.option("--worker_min", type=click.IntRange(min=0), default=0, help="Episodes, of each.")
@click.option("--num_workers", type=click.IntRange(min=1), help="One per core without it.")
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, help="Of fresh episodes.")
@click.option("--out", type=click.Path(path_type=Path), help="A folder; RUN_ID-resim without it.")
@click.option("--again", is_flag=True, help="Also if it is done already.")
@click.pass_obj
def cli(find_store: Callable[[], Database], run_id: int, mode: str, **options: Any) -> None:
    """Play the children of the last generation again, from their parents and on their own
    episodes (last_muts), or the best elite of all generations on --runs fresh ones (top_elite).

    Leaves a line for each evaluation, a summary, and films of the best; of the elite also a
    histogram. What is done already is left as it is. With --worker_min it is refused if one of
    the workers has played fewer episodes than that.
    """
    with in_one_line(EpisodeError, WorkerFailure, ServerError, RedisError):
        run = StoredRun(find_store(), run_id)
        out = options["out"] or Path(f"{run_id}-resim")
        mark = {"run": run_id, "started": str(run.reader.document["start_time"]), "mode": mode}
        mark |= {"runs": options["runs"], "seed": options["seed"]} if mode == ELITE else {}
        done = out / f"{FILES[mode]}_short_log.json"
        if not options["again"] and is_done(done, mark):
            click.echo(f"{done} is there: nothing is done. --again plays it once more")
            return
        make_folder(out)
        config = run.reader.config
        with NoiseTable(config["noise_size"], config["noise_seed"]) as noise:
            check_noise(run, noise)
            chosen = options["runs"], options["seed"]
            piece = last_mutations(run, noise) if mode == MUTATIONS else top_elite(run, *chosen)
            told = play(run, piece, noise, options["num_workers"], options["worker_min"])
            found = mark | summary(piece, told)
            tell(piece, told, found)
            leave(out, run, piece, told, FILES[mode])
            make_films(out, run, piece, told, noise=noise, number=options["n_gifs"])
        write_summary(done, found)
        click.echo(f"wrote {done}")


def is_done(summary_file: Path, mark: dict[str, Any]) -> bool:
    """True if the files of a folder are what was asked for; the summary is written last."""
    try:
        found = json.loads(summary_file.read_text())
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and {key: found.get(key) for key in mark} == mark


def make_folder(out: Path) -> None:
    """So that it does not fail when all is done."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"--out {out} cannot be made: {error.strerror}") from error


def check_noise(run: StoredRun, noise: NoiseTable) -> None:
    """Refuse a table that is not the run's."""
    wanted = run.survivors().noise
    if noise.fingerprint != wanted:
        raise ValueError(
            f"run {run.reader.id} used noise table {wanted}, here its size and seed make"
            f" {noise.fingerprint}: another NumPy?"
        )


def play(
    run: StoredRun, piece: Piece, noise: NoiseTable, num_workers: int | None, worker_min: int
) -> Evaluations:
    """Have workers evaluate it."""
    number = num_workers or available_cores()
    name = f"resim-{run.reader.id}-{secrets.token_hex(4)}"
    with (
        open_private_workplace(number, run.problem.engine) as workplace,
        workplace.evaluator(run.problem, noise, name, MIN_SECONDS) as evaluator,
    ):
        (told,) = evaluator.evaluate([piece.part])
    counts = [int((told.worker == each).sum()) for each in range(1, number + 1)]
    if (least := min(counts) * told.episodes) < worker_min:
        raise ValueError(
            f"--worker_min {worker_min}: one of {number} workers has played {least} episodes only;"
            " take fewer workers or more --runs"
        )
    return told


def tell(piece: Piece, told: Evaluations, found: dict[str, Any]) -> None:
    """How it went."""
    name = "EliteRet" if "EliteRetMean" in found else "MutRet"
    half = confidence_interval(told.fitness)
    click.echo(
        f"generation {piece.generation}, {found['evaluations']} evaluations: mean"
        f" {found[name + 'Mean']:.2f} ± {half:.2f} (95 % confidence), min"
        f" {found[name + 'Min']:.2f}, median {found[name + 'Med']:.2f}, max"
        f" {found[name + 'Max']:.2f}"
    )
    if piece.logged is not None:
        same = "the same" if piece.logged == found["MutRetMax"] else "NOT the same"
        click.echo(f"the run's own MutRetMax was {piece.logged!r}: {same}")


def leave(out: Path, run: StoredRun, piece: Piece, told: Evaluations, prefix: str) -> None:
    """The lines, and of an elite the histogram."""
    write_rows(out / f"{prefix}_results.csv", piece, told)
    if prefix != FILES[ELITE]:
        return
    import pandas as pd

    from store.comparison.evaluation_figures import returns_figure

    results = pd.DataFrame({"kind": "elite", "fitness": told.fitness})
    caption = f"run {run.reader.id}, {run.problem.env}, elite of generation {piece.generation}"
    returns_figure(results, caption).savefig(out / f"{prefix}_returns.png")


def make_films(
    out: Path, run: StoredRun, piece: Piece, told: Evaluations, *, noise: NoiseTable, number: int
) -> None:
    """Films of the best candidate's episodes; the names say which episode and what it earned."""
    row = int(told.fitness.argmax())
    seeds = piece.part.env_seeds[row].tolist()
    if piece.part.role == "elite":  # all rows are of one genome
        seeds = piece.part.env_seeds[:, 0].tolist()
    (theta,) = piece.part.population.thetas([row], Decoder(noise))
    for episode, seed in enumerate(seeds[:number]):
        film = out / "film.gif"
        try:
            (earned,) = playing.make_film(run.problem, theta, [seed], film, lambda line: None)
        except EnvError as error:
            click.echo(f"no film: {error}")
            return
        named = out / f"{piece.part.role}_episode_{episode}_return_{earned:.2f}.gif"
        film.replace(named)
        click.echo(f"wrote {named}")


if __name__ == "__main__":
    from store.location import find_store

    set_up_program(logging.WARNING)
    # Gymnasium's, of bounds that EnvPool gives as float64
    warnings.filterwarnings("ignore", ".*precision lowered by casting", UserWarning)
    cli(obj=find_store)
