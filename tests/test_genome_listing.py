"""results.csv of genetic algorithms: each evaluation with its genome, under ga-dist's names."""

import io
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pymongo.database import Database
from stored import run_stored

from ga.experiment import ex
from ga.listing import GenomeListing
from ga.survivors import read_survivors
from store.comparison.evaluations import read_results
from store.reader import RunReader
from store.results import RESULTS, Result

TINY: dict[str, Any] = {
    **{"pop_size": 16, "n_parents": 5, "champions": 2, "n_elite_candidates": 3, "n_evals": 4},
    **{"eval_episodes": 2, "final_episodes": 6, "max_ep_length": 20, "noise_size": 100_000},
    **{"num_generations": 4, "seed": 2, "engine": "gymnasium", "log_evaluations": True},
}
WORKERS = {"num_workers": 2, "min_task_runtime": 0.0}


@pytest.fixture(scope="module")
def run(store: Database) -> RunReader:
    """Of two worker processes."""
    return RunReader(store, run_stored(store, "cartpole", experiment=ex, **TINY, **WORKERS))


@pytest.fixture(scope="module")
def rows(run: RunReader) -> pd.DataFrame:
    (artifact,) = (each for each in run.artifacts if each.name == RESULTS)
    text = {"noise_list": str}
    return pd.read_csv(io.BytesIO(run.load(artifact)), dtype=text, keep_default_na=False)


def test_r322_a_row_for_each_evaluation(rows: pd.DataFrame) -> None:
    theirs = ["worker_id", "noise_list", "ret", "n_steps", "n_seconds", "finish_time", "is_eval"]
    theirs += ["worker_gen", "worker_task_id", "master_task_id", "is_valid"]
    assert rows.columns[: len(theirs)].tolist() == theirs
    assert len(rows) == 4 * (16 + 2) + 3 * 12 + 6
    assert rows["is_valid"].all()
    assert (rows["is_eval"] == (rows["kind"] != "child")).all()
    assert (rows["worker_gen"] == rows["master_task_id"]).all()
    assert rows["finish_time"].is_monotonic_increasing
    assert 1 <= rows["worker_id"].nunique() <= 2


def test_r322_each_evaluation_has_its_genome(rows: pd.DataFrame, run: RunReader) -> None:
    lengths = rows["noise_list"].str.count("-") + 1
    children = rows[rows["kind"] == "child"]
    assert (lengths[children.index] <= children["worker_gen"] + 1).all()
    assert children["noise_list"].nunique() == len(children)
    for number in range(4):
        (file,) = (a for a in run.artifacts if a.name == f"Generation_{number}.npz")
        survivors = read_survivors(run.load(file))
        told = rows[rows["worker_gen"] == number]
        scores = told.groupby("noise_list")["ret"]
        for genome, score in zip(survivors.genomes, survivors.scores, strict=True):
            name = "-".join(map(str, genome))
            of_it = scores.get_group(name)
            kinds = set(told.loc[of_it.index, "kind"])
            assert "theta" in kinds or np.float32(of_it.mean()) == np.float32(score), kinds
    final = rows[rows["worker_gen"] == 4]
    assert set(final["noise_list"]) == {"-".join(map(str, survivors.elite))}
    of_theta = rows[(rows["worker_gen"] == 0) & (rows["kind"] == "theta")]
    assert set(of_theta["noise_list"]) == {""}  # before there is any genome


def test_pictures_read_it_as_any_other(run: RunReader) -> None:
    found = read_results(run)
    assert set(found["kind"]) == {"child", "elite", "theta"}
    assert found.groupby("generation")["fitness"].max().loc[3] >= 1


def test_late_results_keep_their_genome(run: RunReader) -> None:
    class Ga:
        roles = ("child", "elite")
        elite = None

    listing: Any = GenomeListing(Ga(), 0)  # type: ignore[arg-type]
    late = Result(7, 3, "child", 1.5, 9, 1, "w", 0.1, 2.0, False)
    listing._number = 9
    cells = dict(zip(listing.columns, listing.cells(late), strict=True))
    assert (cells["worker_gen"], cells["master_task_id"], cells["is_valid"]) == (7, 9, False)
    assert (cells["noise_list"], cells["is_eval"], cells["ret"]) == ("", False, "1.5")
