"""The survivors of each generation as NumPy files, and what a generation's metrics say of it."""

import io
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import ROOT, run_here, setting
from pymongo.database import Database
from stored import run_stored
from test_resume import Runs, digest, runs  # noqa: F401 (a fixture)

import ga.survivors
from ga.experiment import ex
from ga.genome_text import GenomeText
from ga.survivors import Survivors, SurvivorsError, genome_of, read_survivors
from store.reader import RunReader

TINY = {
    **{"pop_size": 20, "n_parents": 6, "champions": 2, "n_elite_candidates": 3, "n_evals": 4},
    **{"num_episodes": 2, "eval_episodes": 3, "final_episodes": 4, "max_ep_length": 30},
    **{"noise_size": 100_000, "evaluator": "local", "num_generations": 5, "seed": 4},
}
# ga-dist's names, but for EliteGenome, which is text.
METRICS = {
    *("EliteRetMax", "EliteRetMed", "EliteRetMean", "EliteRetMin"),
    *("EliteLenMax", "EliteLenMed", "EliteLenMin", "EvalEpsMax", "EvalEpsMed", "EvalEpsMin"),
    *("EvalMeanMax", "EvalMeanMed", "EvalMeanMin", "MutRetMax", "MutRetParentMin", "MutRetMed"),
    *("MutRetMin", "MutLenMax", "MutLenMed", "MutLenMin", "MutEps", "TimestepsThisIter"),
    *("ExpMutEps", "TimestepsSoFar", "UniqueWorkers", "UniqueWorkersFrac", "WorkerEpsMax"),
    *("WorkerEpsMed", "WorkerEpsMin", "ResultsSkippedFrac", "TimeElapsedThisIter", "TimeElapsed"),
}
OF_ELITES = {name for name in METRICS if name.startswith(("EliteRet", "EliteLen", "EvalMean"))}
UNEVEN = Survivors((-2.0, 1.0, 3.5), ((7,), (5, 6, 0), (9, 2)), (1, 2, 0), 0.1, "0123456789abcdef")


@pytest.fixture(scope="module")
def run(store: Database) -> RunReader:
    run_id = run_stored(store, "cartpole", experiment=ex, engine="gymnasium", **TINY)
    return RunReader(store, run_id)


def files(run: RunReader) -> dict[str, bytes]:
    found = {each.name: run.load(each) for each in run.artifacts}
    return {name: data for name, data in found.items() if name.endswith(".npz")}


def test_a040_genomes_of_any_length_need_no_pickle(tmp_path: Path) -> None:
    (tmp_path / "file.npz").write_bytes(UNEVEN.to_bytes())
    with np.load(tmp_path / "file.npz", allow_pickle=False) as found:
        assert found["scores"].tolist() == [-2.0, 1.0, 3.5]
        assert found["genes"].tolist() == [[7, -1, -1], [5, 6, 0], [9, 2, -1]]
        assert found["lengths"].tolist() == [1, 3, 2]
        assert found["order"].tolist() == [1, 2, 0]
        assert (found["scores"].dtype, found["genes"].dtype) == (np.float64, np.int64)
        assert genome_of(found["genes"][-1]) == (9, 2)
    assert read_survivors(tmp_path / "file.npz") == UNEVEN
    assert (UNEVEN.elite, UNEVEN.ranked(1)) == ((5, 6, 0), (9, 2))
    with pytest.raises(SurvivorsError, match="rank 4: 3 survivors"):
        UNEVEN.ranked(4)


def test_a040_the_example_of_how_to_read_a_file_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("Generation_12.npz").write_bytes(UNEVEN.to_bytes())
    readme = (ROOT / "README.md").read_text().partition("**Survivors.**")[2]
    example = readme.partition("```python\n")[2].partition("```")[0]
    assert example in textwrap.dedent(str(ga.survivors.__doc__).partition("left:\n\n")[2])
    names: dict[str, Any] = {}
    exec(example, names)
    assert names["best_score"] == 3.5
    assert genome_of(names["best_genes"]) == (9, 2)
    assert names["best_genome"] == [9, 2]
    assert names["elite_genome"].tolist() == [5, 6, 0]


def test_a_file_of_something_else_is_told(tmp_path: Path) -> None:
    other, pickled = io.BytesIO(), io.BytesIO()
    np.savez(other, scores=np.zeros(3))
    np.savez(pickled, scores=np.array([None]), genes=np.array([None]))
    for data in (b"", b"PK\3\4", UNEVEN.to_bytes()[:-50], other.getvalue(), pickled.getvalue()):
        with pytest.raises(SurvivorsError, match="run 3 holds no survivors"):
            read_survivors(data, "run 3")
    with pytest.raises(SurvivorsError, match="no such file"):
        read_survivors(tmp_path / "lost.npz")


def test_a040_each_generation_is_kept_with_the_best_last(run: RunReader) -> None:
    kept = files(run)
    assert set(kept) == {f"Generation_{number}.npz" for number in range(5)}
    chosen = run.metric("EvalMeanMax").values
    for number in range(5):
        found = read_survivors(kept[f"Generation_{number}.npz"])
        assert len(found.genomes) == 6
        assert list(found.scores) == sorted(found.scores)
        assert number == 0 or found.scores[found.order[0]] == chosen[number]
        assert {len(each) for each in found.genomes} <= set(range(1, number + 2))
    lengths = run.metric("genome indices").values
    assert len(found.elite) == lengths[-1]
    assert GenomeText.parse(run.info["EliteGenome"]).genome == found.elite


@pytest.mark.parametrize(
    ("every", "kept"), [(True, {0, 1, 2, 3, 4}), (3, {0, 3, 4}), (False, set())]
)
def test_so_many_generations_are_kept(every: object, kept: set[int], tmp_path: Path) -> None:
    run_here("sphere", experiment=ex, folder=tmp_path, **TINY, save_generations=every)
    names = {path.name for path in (tmp_path / "1").glob("*.npz")}
    assert names == {f"Generation_{number}.npz" for number in kept}


def test_a100_ga_dists_metrics_have_one_value_per_generation(run: RunReader) -> None:
    frame = run.frame().loc[:4]
    for name in METRICS:
        assert run.metric(name).steps.tolist() == [0, 1, 2, 3, 4], name
        assert frame[name].isna().tolist() == [name in OF_ELITES, *[False] * 4], name
    assert frame["MutEps"].eq(40).all()
    assert frame["ExpMutEps"].eq(40).all()
    assert frame["EvalEpsMin"].tolist() == frame["EvalEpsMax"].tolist() == [0, 8, 8, 8, 8]
    assert frame["TimestepsThisIter"].cumsum().tolist() == frame["total sim steps"].tolist()
    assert frame["TimestepsSoFar"].tolist() == frame["total sim steps"].tolist()
    assert frame["WorkerEpsMax"].tolist() == [40, *[40 + 3 * 4 * 2] * 4]
    assert frame["UniqueWorkersFrac"].eq(1).all()
    assert (frame["EliteRetMean"][1:] <= frame["EvalMeanMax"][1:]).all()
    for name in ("EliteRet", "MutRet", "MutLen", "EvalMean"):
        assert not (frame[f"{name}Min"] > frame[f"{name}Med"]).any()
        assert not (frame[f"{name}Med"] > frame[f"{name}Max"]).any()


@pytest.mark.parametrize("wrong", [0, -3, "often", 2.5])
def test_save_generations_is_checked(wrong: object) -> None:
    with pytest.raises(Exception, match="save_generations="):
        run_here("sphere", experiment=ex, **TINY, save_generations=wrong)


@pytest.mark.slow
def test_w69_a_run_that_goes_on_keeps_every_generation_once(runs: Runs) -> None:  # noqa: F811
    config = {**TINY, "num_generations": 120, "n_evals": 1, "checkpoint_every": 0.05}
    head = runs.place.start("ga/experiment.py", "with", "sphere", *setting(**config))
    run_id = runs.kill_when_checkpointed(head)
    words = "resume", "with", f"run_id={run_id}"
    said = digest(runs.place.start("ga/experiment.py", *words).succeed())
    whole = run_stored(runs.db, "sphere", experiment=ex, **config)
    resumed, straight = (RunReader(runs.db, each) for each in (run_id, whole))
    assert straight.info["theta sha256"] == said
    assert straight.info["EliteGenome"] == resumed.info["EliteGenome"]
    assert files(resumed) == files(straight)
    assert len(files(resumed)) == 120
    names = [each["name"] for each in resumed.document["artifacts"]]
    assert len(names) == len(set(names))
