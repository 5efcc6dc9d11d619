"""Single evaluations of a run, read back from its results.csv."""

import io
import re
from typing import TYPE_CHECKING

import numpy as np

from store.reader import ReadError, RunReader
from store.results import RESULTS, Result

if TYPE_CHECKING:
    import pandas as pd

# Columns of genetic algorithms, under ga-dist's names, by their names in store.results.
OF_GENOMES = {
    **{"worker_gen": "generation", "worker_id": "worker", "ret": "fitness", "n_steps": "steps"},
    **{"n_seconds": "seconds", "finish_time": "finished", "is_valid": "valid"},
}
FINAL = "final"  # instead of a generation: the last theta's own evaluation


def read_results(run: RunReader) -> "pd.DataFrame":
    """The columns of ``store.results.Result``, and "length": mean steps of an episode.

    Raises:
        ReadError: the run has not listed its evaluations, or not yet.
    """
    import pandas as pd

    artifact = next((each for each in run.artifacts if each.name == RESULTS), None)
    if artifact is None and run.config.get("log_evaluations"):
        raise ReadError(f"run {run.id} has no {RESULTS} yet: it is stored when the run ends")
    if artifact is None:
        raise ReadError(f"run {run.id} has no {RESULTS}: say log_evaluations=True when you run it")
    found = pd.read_csv(io.BytesIO(run.load(artifact)), dtype={"noise_list": str})
    found = found.rename(columns=OF_GENOMES)
    if missing := set(Result._fields) - set(found.columns):
        raise ReadError(f"run {run.id}: {RESULTS} has no column {', '.join(sorted(missing))}")
    return found.assign(length=found["steps"] / found["episodes"])


def of_generations(results: "pd.DataFrame", wanted: str) -> "pd.DataFrame":
    """The results of some generations.

    Args:
        wanted: such as 12, 10-20 or final.
    Raises:
        ValueError: another form, or there is none of these.
    """
    first, last = int(results["generation"].min()), int(results["generation"].max())
    if wanted == FINAL:
        if set(results.loc[results["generation"] == last, "kind"]) != {"theta"}:
            raise ValueError(f"--generation final: the run ended early, with generation {last}")
        wanted = str(last)
    match = re.fullmatch(r"(\d+)(?:-(\d+))?", wanted)
    if match is None:
        raise ValueError(f"--generation {wanted}: write it as 12, 10-20 or final")
    found = results[results["generation"].between(int(match[1]), int(match[2] or match[1]))]
    if found.empty:
        raise ValueError(f"--generation {wanted}: the run has generations {first}-{last}")
    return found


def came_early(results: "pd.DataFrame") -> np.ndarray:
    """True for what arrived in the first half of its generation: bool[rows].

    What a worker sends at a time arrives together, and is early as a whole or not at all.
    """
    arrived = results.groupby("generation")["finished"]
    return (results["finished"] <= arrived.transform("median")).to_numpy()


def work_of(results: "pd.DataFrame") -> "pd.DataFrame":
    """When workers were at work: one row for each of their answers, with "begin" and "end".

    The way between worker and head is left out, so each is a little late.
    """
    answers = results.groupby(["worker", "finished"], sort=False)["seconds"].sum().reset_index()
    return answers.assign(begin=answers["finished"] - answers["seconds"], end=answers["finished"])


def moments(results: "pd.DataFrame") -> np.ndarray:
    """A moment for each result, float64[rows]: those of an answer share its time evenly."""
    together = results.groupby(["worker", "finished"], sort=False)["seconds"]
    left = together.transform("sum") - together.cumsum()
    return (results["finished"] - left).to_numpy()
