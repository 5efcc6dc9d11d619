"""Playing once more what a run of a genetic algorithm has found."""

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evolution.decoder import Genome
from evolution.evaluation import Evaluations, Part
from evolution.noise import NoiseTable
from evolution.population import Lineages
from evolution.seeding import Seeding
from ga.config import SIZES, tensor_shapes
from ga.deep_ga import DeepGA
from ga.stored import StoredRun
from ga.survivors import Survivors
from store.reader import ReadError

CHILD, ELITE = "child", "elite"
COLUMNS = (
    *("worker_id", "noise_list", "ret", "n_steps", "n_seconds", "is_eval", "episodes"),
    "env_seeds",
)


@dataclass(frozen=True, eq=False)
class Piece:
    """What is played once more."""

    generation: int
    part: Part
    logged: float | None  # the run's own metric, should the same come out

    def genome(self, row: int) -> Genome:
        """Of a candidate."""
        assert isinstance(self.part.population, Lineages)
        return self.part.population.genome(row)


def last_mutations(run: StoredRun, noise: NoiseTable) -> Piece:
    """The children of the last generation, made from their parents and on their own episodes.

    Raises:
        ReadError: the generation before was not kept.
    """
    config = run.reader.config
    ahead = 1 + config["overlap"]  # generations from parents to children
    number = _last(run, ahead)
    seeding = Seeding(config["seed"], config["env_seed"])
    ga = _algorithm(run, noise)
    if number >= ahead:
        ga.restore({"survivors": _state(run.survivors(number - ahead))})
    (children, *_) = ga.ask(seeding.ask(number))
    seeds = seeding.training(number, len(children), config["num_episodes"])
    return Piece(number, Part(children, seeds, CHILD), _logged(run, number))


def top_elite(run: StoredRun, episodes: int, seed: int) -> Piece:
    """The elite with the best score of all generations, on fresh episodes."""
    number = _best_generation(run)
    survivors = run.survivors(number)
    genome = survivors.elite
    rows = np.zeros(episodes, np.int64)
    population = Lineages(
        shapes=tensor_shapes(run.policy),
        sigma=survivors.sigma,
        parents=np.array(genome, np.int64),
        lengths=np.array([len(genome)], np.int64),
        parent_of=rows,
        mutations=np.full_like(rows, -1),
    )
    return Piece(number, Part(population, Seeding(seed).evaluation(0, episodes), ELITE), None)


def _logged(run: StoredRun, number: int) -> float | None:
    """The best return of that generation's children, as the run has noted it."""
    if "MutRetMax" not in run.reader.metric_names():
        return None
    best = run.reader.metric("MutRetMax")
    found = best.values[best.steps == number]
    return float(found[0]) if len(found) else None


def _last(run: StoredRun, ahead: int) -> int:
    """The last generation whose survivors were kept, and so were its parents."""
    kept = run.generations
    fitting = [number for number in kept if number < ahead or number - ahead in kept]
    if not fitting:
        raise ReadError(
            f"run {run.reader.id} has not kept the parents of a generation: see save_generations"
        )
    return fitting[-1]


def _best_generation(run: StoredRun) -> int:
    """Of those that were kept, the one with the best elite."""
    run.survivors()  # there are some
    # Of the first generation no elite was evaluated again: what it has is luck.
    judged = [number for number in run.generations if number > 0] or run.generations
    found = ((number, run.survivors(number)) for number in judged)
    scores = {number: each.scores[each.order[0]] for number, each in found}
    return max(scores, key=scores.__getitem__)


def _algorithm(run: StoredRun, noise: NoiseTable) -> DeepGA:
    config = run.reader.config
    sizes = {name: config[name] for name in SIZES}
    return DeepGA(tensor_shapes(run.policy), noise, sigma=config["sigma"], **sizes)


def _state(survivors: Survivors) -> list[tuple[list[int], float]]:
    """Them as the algorithm had them."""
    return [(list(survivors.genomes[row]), survivors.scores[row]) for row in survivors.order]


# --- what is written


def write_rows(path: Path, piece: Piece, told: Evaluations) -> None:
    """One line for each candidate, ga-dist's columns first."""
    with path.open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(COLUMNS)
        for row, fitness in enumerate(told.fitness.tolist()):
            rows.writerow(
                (
                    int(told.worker[row]),
                    "-".join(map(str, piece.genome(row))),
                    f"{np.float32(fitness)}",
                    int(told.steps[row]),
                    f"{told.seconds[row]:.6f}",
                    piece.part.role == ELITE,
                    told.episodes,
                    "-".join(map(str, piece.part.env_seeds[row].tolist())),
                )
            )


def summary(piece: Piece, told: Evaluations) -> dict[str, Any]:
    """What there is to say of all of it, under names like ga-dist's."""
    name = "MutRet" if piece.part.role == CHILD else "EliteRet"
    fitness, lengths = told.fitness.astype(np.float64), told.steps / told.episodes
    _, counts = np.unique(told.worker, return_counts=True)
    found: dict[str, Any] = {
        "generation": piece.generation,
        "evaluations": len(fitness),
        "episodes": len(fitness) * told.episodes,
        f"{name}Mean": float(fitness.mean()),
        f"{name}StDev": float(fitness.std(ddof=1)),
        "Timesteps": int(told.steps.sum()),
        "UniqueWorkers": len(counts),
        "WorkerEpsMin": int(counts.min()) * told.episodes,
        "WorkerEpsMax": int(counts.max()) * told.episodes,
    }
    for kind, values in ((name, fitness), (name.replace("Ret", "Len"), lengths)):
        found |= {f"{kind}Max": float(values.max()), f"{kind}Min": float(values.min())}
        found |= {f"{kind}Med": float(np.median(values))}
    if piece.logged is not None:
        found["logged MutRetMax"] = piece.logged
    return found


def write_summary(path: Path, found: dict[str, Any]) -> None:
    """Last of all files: it is the sign that all of them are there."""
    path.write_text(json.dumps(found, indent=1) + "\n")
