"""What there is to say of a generation under ga-dist's names, beside what the algorithm says."""

from collections.abc import Sequence

import numpy as np

from evolution.evaluation import Evaluations
from evolution.loop import Generation

OF_ELITES = tuple(
    f"{name}{which}"
    for name, kinds in (
        ("EliteRet", ("Max", "Med", "Mean", "Min")),
        ("EliteLen", ("Max", "Med", "Min")),
        ("EvalMean", ("Max", "Med", "Min")),
    )
    for which in kinds
)


def report(generation: Generation, n_evals: int) -> dict[str, float]:
    """The metrics of a generation that are not yet among its own.

    Of the first generation no elite was evaluated again, so what is said of these is NaN.

    Args:
        n_evals: times each candidate for elite played.
    """
    told, metrics = list(generation.told.values()), generation.metrics
    children, elites = generation.population, generation.told.get("elite")
    workers = _episodes_of_workers(told)
    there = max(metrics.get("workers alive", 1.0), float(len(workers)))
    made = {
        **dict.fromkeys(OF_ELITES, float("nan")),
        **_spread("EvalEps", _episodes_of_candidates(elites, n_evals)),
        "ExpMutEps": float(len(children.fitness) * children.episodes),
        "TimestepsThisIter": float(_steps(*told, generation.current)),
        "TimestepsSoFar": metrics["total sim steps"],
        "UniqueWorkers": float(len(workers)),
        "UniqueWorkersFrac": len(workers) / there,
        **_spread("WorkerEps", workers),
        "ResultsSkippedFrac": metrics["frac. results skipped"],
        "TimeElapsedThisIter": metrics["time per gen"],
        "TimeElapsed": metrics["total time elapsed"],
    }
    return {name: value for name, value in made.items() if name not in metrics}


def _episodes_of_candidates(elites: Evaluations | None, n_evals: int) -> np.ndarray:
    """Episodes that each candidate for elite has played: float64[candidates]."""
    if elites is None:
        return np.zeros(1)
    return np.full(len(elites.fitness) // n_evals, float(n_evals * elites.episodes))


def _episodes_of_workers(told: Sequence[Evaluations]) -> np.ndarray:
    """Episodes that each worker has played with children and elites: float64[workers]."""
    worker = np.concatenate([each.worker for each in told])
    episodes = np.concatenate([np.full(len(each.fitness), each.episodes) for each in told])
    _, number = np.unique(worker, return_inverse=True)
    return np.bincount(number, weights=episodes)


def _steps(*told: Evaluations) -> int:
    return sum(int(each.steps.sum()) for each in told)


def _spread(name: str, values: np.ndarray) -> dict[str, float]:
    found = {"Max": values.max(), "Med": np.median(values), "Min": values.min()}
    return {f"{name}{which}": float(value) for which, value in found.items()}
