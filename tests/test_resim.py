"""Runs of genetic algorithms played once more."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pymongo.database import Database
from stored import Script, run_stored, without_display

from evolution.decoder import Decoder
from evolution.noise import NoiseTable
from evolution.playback.replay import play_episodes
from ga.config import tensor_shapes
from ga.experiment import ex
from ga.resim import cli
from ga.stored import StoredRun
from store.reader import RunReader

TINY = {
    **{"pop_size": 14, "n_parents": 5, "champions": 2, "n_elite_candidates": 3, "n_evals": 2},
    **{"eval_episodes": 2, "final_episodes": 3, "max_ep_length": 60, "noise_size": 100_000},
    **{"evaluator": "local", "num_generations": 5, "seed": 2, "num_episodes": 2},
}
WORKERS = "--num_workers", "1"


@pytest.fixture(scope="module")
def run(store: Database) -> RunReader:
    run_id = run_stored(store, "cartpole", experiment=ex, engine="gymnasium", **TINY)
    return RunReader(store, run_id)


@pytest.fixture
def resim(store: Database, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Script:
    without_display(monkeypatch, tmp_path)
    return Script(cli, store)


def test_a108_the_last_mutations_are_the_same_again(
    resim: Script, run: RunReader, tmp_path: Path
) -> None:
    output = resim(run.id, "--mode", "last_muts", *WORKERS)
    logged = run.metric("MutRetMax").values[-1]
    assert f"MutRetMax was {float(logged)!r}: the same" in output
    folder = tmp_path / f"{run.id}-resim"
    rows = pd.read_csv(folder / "resim_results.csv", dtype={"noise_list": str})
    assert len(rows) == 14
    assert (rows["worker_id"] == 1).all() and not rows["is_eval"].any()
    assert rows["ret"].median() == pytest.approx(run.metric("MutRetMed").values[-1])
    found = json.loads((folder / "resim_short_log.json").read_text())
    assert (found["MutRetMax"], found["generation"], found["episodes"]) == (logged, 4, 28)
    (film,) = folder.glob("child_episode_0_return_*.gif")
    assert film.stat().st_size > 1000
    parents = RunReader.metric(run, "genome indices").values
    assert rows["noise_list"].str.count("-").max() <= parents.max()


def test_a108_the_best_elite_plays_as_often_as_one_likes(
    resim: Script, run: RunReader, store: Database, tmp_path: Path
) -> None:
    words = run.id, "--runs", 40, "--seed", 3, "--out", "here", "--n_gifs", 2, *WORKERS
    output = resim(*words)
    rows = pd.read_csv(tmp_path / "here" / "elite_results.csv", dtype={"noise_list": str})
    assert len(rows) == 40 and rows["is_eval"].all()
    found = json.loads((tmp_path / "here" / "elite_short_log.json").read_text())
    assert found["EliteRetMean"] == pytest.approx(rows["ret"].mean())
    assert f"mean {rows['ret'].mean():.2f} ± " in output
    scores = run.metric("EvalMeanMax").values
    assert found["generation"] == 1 + int(scores[1:].argmax())
    stored = StoredRun(store, run.id)
    elite = stored.survivors(found["generation"]).elite
    assert set(rows["noise_list"]) == {"-".join(map(str, elite))}
    with NoiseTable(100_000, 123) as noise:
        shapes = tensor_shapes(stored.policy)
        theta = Decoder(noise).write(elite, shapes, run.config["sigma"])
        returns, _ = play_episodes(stored.problem, theta, rows["env_seeds"].to_numpy())
    assert returns.tolist() == rows["ret"].to_numpy(np.float32).tolist()
    assert (tmp_path / "here" / "elite_returns.png").stat().st_size > 1000
    assert len(list((tmp_path / "here").glob("elite_episode_*_return_*.gif"))) == 2
    before = (tmp_path / "here" / "elite_results.csv").stat().st_mtime_ns
    assert "nothing is done" in resim(*words)
    assert (tmp_path / "here" / "elite_results.csv").stat().st_mtime_ns == before


def test_resim_refuses_in_one_line(
    resim: Script, run: RunReader, store: Database, tmp_path: Path
) -> None:
    refused = resim.refuses(run.id, "--runs", 6, "--worker_min", 7, *WORKERS)
    assert "--worker_min 7: one of 1 workers has played 6 episodes only" in refused
    assert not list((tmp_path / f"{run.id}-resim").glob("*.json"))
    assert "no run 99" in resim.refuses(99)
    seldom = run_stored(store, "sphere", experiment=ex, **TINY, save_generations=3)
    assert "no film: Sphere-v0" in resim(seldom, "--mode", "last_muts", *WORKERS)
    found = json.loads((tmp_path / f"{seldom}-resim" / "resim_short_log.json").read_text())
    assert found["generation"] == 4  # of which generation 3 are the parents
    (tmp_path / "file").touch()
    assert "--out file/x cannot be made" in resim.refuses(run.id, "--out", "file/x")
