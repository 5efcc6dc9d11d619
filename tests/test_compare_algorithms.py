"""The comparison of algorithms, at a size that is quick."""

import json
import re
import sys
from pathlib import Path

import pytest
from commands import ROOT, setting
from stores import end_server

sys.path.append(str(ROOT / "benchmarks"))

import compare_algorithms
from compare_algorithms import Contender, Study, main

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
    try:
        assert compared(tmp_path, monkeypatch, "--done") == []
        first = compared(tmp_path, monkeypatch)
        begun = capfd.readouterr().err
        assert compared(tmp_path, monkeypatch) == first
        assert compared(tmp_path, monkeypatch, "--done") == first
    finally:
        end_server(tmp_path / "runs" / "store.sqlite")
    assert len(re.findall(r"seed=\d+-\w+ begins", begun)) == 2 + 2 * 2 + 2
    assert "begins" not in capfd.readouterr().err
    assert [(each["contender"], each["runs"]) for each in first] == [("ES", 2), ("CMA", 2)]
    assert [each["published"] for each in first] == ["as published", ""]
    assert first[0]["settings"] == "" and first[1]["settings"] in STUDY.contenders[1].tries
    for each in first:
        assert each["generations"] == 4 and each["lowest"] <= each["highest"] < 0
        mean, plus_minus, interval = each["fresh"].split()
        assert each["lowest"] <= float(mean) <= each["highest"] and float(interval) > 0
        assert plus_minus == "±" and each["core_seconds"] >= 0
    assert (tmp_path / "small.png").read_bytes().startswith(b"\x89PNG")


def compared(folder: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> list[dict[str, object]]:
    """The rows of the study."""
    out = folder / "rows.json"
    monkeypatch.setattr(sys, "argv", ["", f"--folder={folder}", f"--json={out}", *words])
    main()
    rows: list[dict[str, object]] = json.loads(out.read_text())
    return rows
