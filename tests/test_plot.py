"""Pictures of single runs: lengths, returns, who worked when, what was skipped."""

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from conftest import Crew
from matplotlib.image import imread
from pymongo.database import Database
from stored import CARTPOLE, SPHERE, Script, commands_of_readme, run_stored

from cluster.clients import WorkerClient
from store import plot as script
from store.comparison.evaluation_figures import (
    lengths_figure,
    returns_figure,
    skipped_figure,
    workers_figure,
)
from store.comparison.evaluations import (
    came_early,
    moments,
    of_generations,
    read_results,
    work_of,
)
from store.reader import RunReader

GENERATIONS = 4
CONFIG = {**CARTPOLE, "num_generations": GENERATIONS, "seed": 2, "max_ep_length": 100}
PICTURES = ("lengths", "returns", "workers")


@pytest.fixture(scope="module")
def plot(store: Database) -> Script:
    return Script(script.cli, store)


@pytest.fixture(scope="module", autouse=True)
def runs(store: Database) -> list[RunReader]:
    """Run 1 with two workers, and run 2 whose evaluations are not listed."""
    workers = {"evaluator": "redis", "num_workers": 2, "min_task_runtime": 0.0}
    run_stored(store, "cartpole", **CONFIG | workers, log_evaluations=True)
    run_stored(store, "sphere", **SPHERE)
    return [RunReader(store, run) for run in (1, 2)]


@pytest.fixture
def results(runs: list[RunReader]) -> pd.DataFrame:
    return read_results(runs[0])


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def words_in(path: str) -> set[str]:
    """The texts of an SVG file, which matplotlib notes beside their outlines."""
    assert ElementTree.parse(path).getroot().tag.endswith("svg")
    return set(re.findall(r"<!-- (.*?) -->", Path(path).read_text()))


def check_picture(path: str) -> None:
    image = imread(path)
    assert image.shape[0] > 200 and image.shape[1] > 600
    assert len(np.unique(image[::7, ::7].reshape(-1, image.shape[-1]), axis=0)) > 5


# --- from real runs


@pytest.mark.parametrize("picture", PICTURES)
def test_a107_pictures_are_made(picture: str, plot: Script) -> None:
    assert f"wrote 1-{picture}.png" in plot(picture, 1)
    check_picture(f"1-{picture}.png")
    plot(picture, 1, "--generation", "1-2", "--out", "some.svg")
    assert "run 1, CartPole-v1, generations 1 to 2" in words_in("some.svg")


def test_a107_lengths_and_returns_of_all(plot: Script, results: pd.DataFrame) -> None:
    output = plot("lengths", 1, "--out", "lengths.svg")
    used = results[results["valid"]]
    mean = (used["steps"] / used["episodes"]).mean()
    assert f"mean steps per episode: {mean:,.1f} of {len(used)} results" in output
    early = used[came_early(used)]
    assert 0.5 <= len(early) / len(used) <= 1
    assert f"{early['length'].mean():,.1f} of the {len(early)} that" in output
    texts = {"return", "steps per episode", "share of the results", "first half to arrive"}
    assert words_in("lengths.svg") >= texts | {"candidate", "theta"}
    scatter, histogram = lengths_figure(used, "").axes
    for dots, kind in zip(scatter.collections, ("candidate", "theta"), strict=True):
        rows = used[used["kind"] == kind]
        assert np.allclose(dots.get_offsets(), rows[["length", "fitness"]])
        assert (rows["fitness"] == rows["length"]).all()  # one point for each step
    (filled,) = (p for p in histogram.patches if p.get_label() == "all results")
    outline = np.asarray(filled.get_path().vertices)
    counts, _ = np.histogram(used["length"], np.unique(outline[:, 0]))
    assert outline[:, 1].max() == pytest.approx(counts.max() / len(used))


def test_a107_returns_of_the_final_evaluation(plot: Script, results: pd.DataFrame) -> None:
    final = results[results["generation"] == GENERATIONS]["fitness"]
    assert len(final) == CONFIG["final_episodes"]
    output = plot("returns", 1, "--out", "returns.svg")
    assert f"theta: 6 evaluations, mean {final.mean():.2f}, median {final.median():.2f}" in output
    assert "candidate" not in output
    assert "run 1, CartPole-v1, final evaluation" in words_in("returns.svg")
    output = plot("returns", 1, "-g", f"0-{GENERATIONS}")
    assert "candidate: 32 evaluations" in output and "theta: 22 evaluations" in output
    (axes,) = returns_figure(results, "").axes
    bars = [sum(bar.get_height() for bar in kind) for kind in axes.containers]  # type: ignore
    assert bars == [32, 22]


def test_a107_who_worked_when(plot: Script, results: pd.DataFrame) -> None:
    output = plot("workers", 1, "--out", "workers.svg")
    for worker, rows in results.groupby("worker"):
        assert f"{worker}: {len(rows)} results in" in output
        assert worker in words_in("workers.svg")
    (axes,) = workers_figure(results, "").axes
    marks = [len(np.asarray(line.get_xdata())) for line in axes.lines]
    assert marks == [32, 22]
    (bars,) = axes.collections
    spans = np.array([path[:, 0] for path in bars.get_segments()])  # type: ignore[attr-defined]
    assert len(spans) == len(results.groupby(["worker", "finished"]))
    assert np.diff(spans).sum() == pytest.approx(results["seconds"].sum())


def push_twice() -> None:
    """Make a worker of the process in which this is called say everything twice."""
    push = WorkerClient.push

    def twice(self: WorkerClient, run_id: str, result: dict[str, Any]) -> None:
        push(self, run_id, result)
        push(self, run_id, result)

    WorkerClient.push = twice  # type: ignore[method-assign]


def test_a107_what_was_skipped(
    plot: Script, store: Database, crew: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run whose worker answers twice, beside one with nothing to skip."""
    monkeypatch.setenv("EVO_REDIS", crew.url)
    crew.start(1, push_twice)
    twice = {"evaluator": "redis", "local": False, "min_task_runtime": 0.0}
    run = RunReader(store, run_stored(store, "cartpole", **CONFIG | twice, log_evaluations=True))
    metric = run.metric("frac. results skipped")
    assert 0.2 < metric.values.mean() < 0.6
    output = plot("skipped", f"twice={run.id}", "once=1", "--out", "skipped.svg")
    assert f"twice: skipped on average {100 * metric.values.mean():.2f} %" in output
    assert "once: skipped on average 0.00 %" in output
    assert {"twice", "once", "frac. results skipped", "generation"} <= words_in("skipped.svg")
    plot("skipped", "1-2", "--out", "skipped.png")
    check_picture("skipped.png")
    (axes,) = skipped_figure({"twice": [metric]}, "").axes
    assert np.array_equal(axes.lines[0].get_ydata(), metric.values)
    found = read_results(run)
    unused = found[~found["valid"]]
    of_the_loop = unused[unused["finished"] <= run.metric("total time elapsed").values[-1]]
    assert len(of_the_loop) == run.metric("results skipped").values.sum()
    assert f"{len(unused)} not used" in plot("workers", run.id, "--out", "workers.svg")
    assert "twice or too late" in words_in("workers.svg")
    assert found["valid"].sum() == GENERATIONS * (8 + 4) + 6
    plot("lengths", run.id)
    check_picture(f"{run.id}-lengths.png")


# --- by hand


def frame(**columns: Any) -> pd.DataFrame:
    return pd.DataFrame(columns)


def test_early_is_the_first_half_of_a_generation() -> None:
    finished = [1.0, 2, 3, 4, 9, 9, 9, 9, 5]
    rows = frame(generation=[0, 0, 0, 0, 1, 1, 1, 1, 1], finished=finished)
    assert came_early(rows).tolist() == [True, True, False, False, *[True] * 5]


def test_the_work_of_an_answer() -> None:
    """Three results of one answer, in between one of another worker."""
    rows = frame(
        worker=["a", "a", "b", "a", "a"],
        finished=[6.0, 6.0, 6.0, 6.0, 8.0],
        seconds=[1.0, 1.0, 4.0, 1.0, 0.5],
    )
    work = work_of(rows)
    assert work["worker"].tolist() == ["a", "b", "a"]
    assert work["begin"].tolist() == [3, 2, 7.5]
    assert work["end"].tolist() == [6, 6, 8]
    assert moments(rows).tolist() == [4, 5, 6, 6, 8]


def test_which_generations(results: pd.DataFrame) -> None:
    for wanted, expected in (("2", {2}), ("1-3", {1, 2, 3}), ("3-99", {3, 4}), ("final", {4})):
        assert set(of_generations(results, wanted)["generation"]) == expected
    interrupted = results[results["generation"] < GENERATIONS]
    with pytest.raises(ValueError, match="the run ended early, with generation 3"):
        of_generations(interrupted, "final")


# --- what cannot be


def test_a107_a_run_without_a_list_of_evaluations(
    plot: Script, store: Database, runs: list[RunReader]
) -> None:
    for picture in PICTURES:
        refusal = plot.refuses(picture, 2)
        assert refusal.endswith(
            "run 2 has no results.csv: say log_evaluations=True when you run it"
        )
    going = {"status": "RUNNING", "config.log_evaluations": True}
    store["runs"].update_one({"_id": 2}, {"$set": going})
    refusal = plot.refuses("workers", 2)
    store["runs"].replace_one({"_id": 2}, runs[1].document)
    assert "no results.csv yet: it is stored when the run ends" in refusal


REFUSED = [
    (("lengths", 77), "no run 77 in the store"),
    (("lengths", "one"), "'one' is not a valid integer"),
    (("lengths", 1, "--generation", "late"), "write it as 12, 10-20 or final"),
    (("returns", 1, "--generation", "5-9"), "the run has generations 0-4"),
    (("workers", 1, "--out", "a.pdf"), "ends in .png, .svg"),
    (("workers", 1, "--out", "nowhere/a.png"), "there is no folder nowhere"),
    (("skipped",), "Missing argument"),
    (("skipped", "a"), "'a' names no runs"),
    (("skipped", "1-9"), "no run"),
]


@pytest.mark.parametrize(("words", "line"), REFUSED)
def test_a107_what_cannot_be_drawn(words: tuple, line: str, plot: Script) -> None:
    assert line in plot.refuses(*words)


def test_a008_the_commands_of_readme_and_script(plot: Script) -> None:
    (example,) = re.findall(r"python store/plot.py (.*)", script.__doc__ or "")
    for words in [example.split(), *commands_of_readme("store/plot.py")]:
        ours = (re.sub(r"\d\d(-\d\d)?", "1", word) for word in words)
        assert "wrote" in plot(*ours)
