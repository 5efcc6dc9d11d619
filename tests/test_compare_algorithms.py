"""The comparison of algorithms, at a size that is quick."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from commands import ROOT, setting
from pymongo.database import Database
from stored import SPHERE, run_stored
from stores import end_server

from store.comparison.curves import smoothed
from store.reader import RunReader

sys.path.append(str(ROOT / "benchmarks"))

import compare_algorithms
from compare_algorithms import Contender, Study, main
from curves import METRIC, SMOOTH, kept

pytestmark = pytest.mark.slow
TINY = {"num_generations": 4, "pop_size": 4, "eval_episodes": 1, "final_episodes": 2}
WORDS = " ".join(["sphere", *setting(**TINY, noise_size=50_000)])
STUDY = Study(
    (
        Contender("ES", "es", WORDS, "as published"),
        Contender("CMA", "nevergrad_es", WORDS, tries=("sigma=0.01", "sigma=1.0")),
    ),
    short="num_generations=2",
    seeds="1..2",
)


def test_a094_the_same_task_by_several_algorithms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Step sizes are searched where asked for, what is done is shown and not run again."""
    monkeypatch.setattr(compare_algorithms, "STUDIES", {"small": STUDY})
    night, clone = tmp_path / "night", tmp_path / "clone"
    kept = f"--curves={tmp_path / 'curves'}"
    try:
        assert compared(night, monkeypatch, kept, "--done") == []
        first = compared(night, monkeypatch, kept)
        begun = capfd.readouterr().err
        assert compared(night, monkeypatch, kept) == first
        assert compared(night, monkeypatch, kept, "--done") == first
        assert compared(clone, monkeypatch, kept) == first  # without the runs
    finally:
        end_server(night / "runs" / "store.sqlite")
    assert not (clone / "runs").exists()
    assert len(re.findall(r"seed=\d+-\w+ begins", begun)) == 2 + 2 * 2 + 2
    assert "begins" not in capfd.readouterr().err
    assert [(each["contender"], each["runs"]) for each in first] == [("ES", 2), ("CMA", 2)]
    assert [each["published"] for each in first] == ["as published", ""]
    assert [each["settings"] for each in first] == ["", best_try(tmp_path / "curves")]
    for each in first:
        assert each["generations"] == 4 and each["lowest"] <= each["highest"] < 0
        mean, plus_minus, interval = each["fresh"].split()
        assert each["lowest"] <= float(mean) <= each["highest"] and float(interval) > 0
        assert plus_minus == "±" and each["core_seconds"] >= 0
    for folder in (night, clone):
        assert (folder / "small.png").read_bytes().startswith(b"\x89PNG")


def test_a_curve_that_is_kept_is_that_of_the_run(store: Database) -> None:
    """Smoothed, every fifth generation and the last, against what it took until there."""
    run = RunReader(store, run_stored(store, "sphere", seed=4, **SPHERE))
    line = kept(run, "es", ["sphere", "lr=0.1", "seed=4"]).line
    assert (line["experiment"], line["config"], line["seed"]) == ("es", ["sphere", "lr=0.1"], 4)
    assert (line["fresh"], line["theta sha256"]) == (round(run.result, 3), run.info["theta sha256"])
    assert line["generation"] == [0, 5, 6]
    fitness = smoothed(run.metric(METRIC).values, SMOOTH)
    assert np.allclose(line["fitness"], fitness[[0, 5, 6]], atol=0.01)
    steps = run.metric("total sim steps").values
    assert line["steps"] == [steps[0], steps[5], steps[5]]  # the last policy has cost no more


def best_try(curves: Path) -> str:
    """What CMA should choose, from what is kept of its short runs."""
    lines = [json.loads(line) for line in (curves / "small.jsonl").read_text().splitlines()]
    results: dict[str, list[float]] = {}
    for line in lines:
        if line["config"][-1] == STUDY.short:
            results.setdefault(line["config"][-2], []).append(line["fresh"])
    assert {word: len(found) for word, found in results.items()} == dict.fromkeys(
        STUDY.contenders[1].tries, 2
    )
    return max(results, key=lambda word: sum(results[word]))


def compared(folder: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> list[dict[str, object]]:
    """The rows of the study."""
    out = folder.parent / "rows.json"
    monkeypatch.setattr(sys, "argv", ["", f"--folder={folder}", f"--json={out}", *words])
    main()
    rows: list[dict[str, object]] = json.loads(out.read_text())
    return rows
