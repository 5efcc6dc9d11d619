"""Several runs side by side: curves, tables, configs."""

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread
from pymongo.database import Database
from stored import SPHERE, Script, commands_of_readme, run_stored

from store.compare import cli
from store.comparison.curves import bootstrap_interval, iqm, smoothed
from store.comparison.differences import common_and_different
from store.comparison.groups import Group, parse_groups
from store.comparison.learning import costs_until, read_curve, time_measure
from store.reader import RunReader

LENGTHS = (6, 7, 6, 9)  # generations of the four quick runs; the slow ones have 6


@pytest.fixture(scope="module")
def compare(store: Database) -> Script:
    return Script(cli, store)


@pytest.fixture(scope="module", autouse=True)
def runs(store: Database) -> list[RunReader]:
    """Four quick runs, 1 to 4, and two slow ones, 5 and 6."""
    for seed, generations in enumerate(LENGTHS):
        config = {**SPHERE, "lr": 0.2, "num_generations": generations}
        run_stored(store, "sphere", seed=seed, **config)
    for seed in range(2):
        run_stored(store, "sphere", seed=seed, **SPHERE, lr=0.001)
    return [RunReader(store, run) for run in range(1, 7)]


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def current(run: RunReader) -> np.ndarray:
    return run.metric("current fitness").values


def test_a107_curves_of_groups(compare: Script, runs: list[RunReader]) -> None:
    """The whole way, from the store to the numbers that are drawn."""
    output = compare("quick=1-4", "slow=5,6", "--smooth", 3, "--out", "curves.csv")
    assert "wrote curves.csv" in output
    curves = pd.read_csv("curves.csv")
    quick = curves[curves["label"] == "quick"]
    assert quick["x"].tolist() == list(range(min(LENGTHS) + 1))  # cut to the shortest
    values = np.stack([smoothed(current(run), 3)[: len(quick)] for run in runs[:4]])
    assert np.allclose(quick["estimate"], iqm(values))
    low, high = bootstrap_interval(values, iqm)
    assert np.allclose(quick["low"], low) and np.allclose(quick["high"], high)
    assert (quick["low"] <= quick["estimate"]).all() and (quick["runs"] == 4).all()
    slow = curves[curves["label"] == "slow"]
    assert np.allclose(
        slow["estimate"], np.mean([smoothed(current(run), 3) for run in runs[4:]], axis=0)
    )


@pytest.mark.parametrize("axis", ["generation", "steps", "seconds"])
@pytest.mark.parametrize("ending", ["png", "svg"])
def test_a107_a_picture_is_made(axis: str, ending: str, compare: Script) -> None:
    words = ("--x", axis, "--threshold", -0.5, "--single", "--out", f"curves.{ending}")
    assert f"wrote curves.{ending}" in compare("quick=1-4", "slow=5-6", *words)
    if ending == "png":
        image = imread("curves.png")
        assert image.shape[0] > 300 and image.shape[1] > 600
        assert len(np.unique(image[::7, ::7].reshape(-1, image.shape[-1]), axis=0)) > 10
    else:
        assert ElementTree.parse("curves.svg").getroot().tag.endswith("svg")


def reached(run: RunReader) -> float:
    """The highest point of a run's curve, smoothed over two generations."""
    return float(smoothed(current(run)[:-1], 2).max())


def test_a107_the_table(compare: Script, runs: list[RunReader]) -> None:
    goal = sorted(map(reached, runs[:4]))[1]  # that all but one of the quick runs reach
    output = compare("quick=1-4", "slow=5-6", "--threshold", repr(goal), "--smooth", 2)
    header, *rows = (line.split() for line in output.splitlines()[:3])
    assert header == ["runs", "final", "low", "high", "reached", "steps", "core-seconds"]
    finals = np.array([[current(run)[-1]] for run in runs[:4]])
    ends = bootstrap_interval(finals, iqm)
    numbers = [f"{each[0]:.2f}" for each in (iqm(finals), *ends)]
    assert rows[0][:5] == ["quick", "4", *numbers]
    costs = costs_until(runs[:4], "current fitness", goal, 2)
    assert rows[0][5:9] == ["3", "of", "4", f"{costs['steps']:,.0f}"]
    assert rows[1][:2] == ["slow", "2"]
    never = compare("quick=1-4", "--threshold", 1).splitlines()[1]
    assert never.split()[-5:] == ["0", "of", "4", "–", "–"]


def test_steps_until_a_threshold(runs: list[RunReader]) -> None:
    run = runs[0]
    goal = reached(run)
    generation = int(smoothed(current(run)[:-1], 2).argmax())
    costs = costs_until([run], "current fitness", goal, 2)
    assert costs["reached"] == 1
    assert costs["steps"] == run.metric("total sim steps").values[generation]
    assert costs["core-seconds"] == run.metric("total core-seconds").values[generation]
    assert costs_until([run], "current fitness", 1, 2)["steps"] == np.inf


def test_core_seconds_are_used_if_all_have_them(store: Database, runs: list[RunReader]) -> None:
    costs = costs_until(runs[:2], "current fitness", -100, 2)
    first = [run.metric("total core-seconds").values[0] for run in runs[:2]]
    assert costs["core-seconds"] == np.mean(first)
    logged = store["metrics"].find_one({"run_id": 2, "name": "total core-seconds"})
    store["metrics"].delete_one(logged)
    assert set(time_measure(runs)) == {"seconds"}
    costs = costs_until(runs[1:2], "current fitness", -100, 2)
    assert costs["seconds"] == runs[1].metric("total time elapsed").values[0]
    store["metrics"].insert_one(logged)


def test_a107_runs_without_core_seconds_are_told(store: Database, compare: Script) -> None:
    logged = store["metrics"].find_one({"run_id": 6, "name": "total core-seconds"})
    store["metrics"].delete_one(logged)
    output = compare("slow=5-6", "--threshold", 1)
    refusal = compare.refuses("slow=5-6", "--x", "core-seconds")
    store["metrics"].insert_one(logged)
    assert "these runs have logged no core-seconds" in output
    assert output.split()[6] == "seconds"
    assert "run 6 has no metric 'total core-seconds'" in refusal


def test_a107_a_median_in_a_band_of_all(compare: Script, runs: list[RunReader]) -> None:
    """What the older systems drew: mean or median, and the lowest and highest run around it."""
    words = ("--smooth", 2, "--out", "curves.csv", "--band", "range")
    for name, estimate in (("median", np.median), ("mean", np.mean)):
        output = compare("quick=1-4", "6", *words, "--estimate", name)
        curves = pd.read_csv("curves.csv")
        quick = curves[curves["label"] == "quick"]
        values = np.stack([smoothed(current(run), 2)[: len(quick)] for run in runs[:4]])
        assert np.allclose(quick["estimate"], estimate(values, axis=0))
        assert np.allclose(quick["low"], values.min(axis=0))
        assert np.allclose(quick["high"], values.max(axis=0))
        finals = [current(run)[-1] for run in runs[:4]]
        numbers = [estimate(finals), min(finals), max(finals)]
        assert output.splitlines()[1].split()[2:] == [f"{each:.2f}" for each in numbers]
        assert "low, high: lowest and highest run" in output
        assert "no interval" not in output


def test_a107_what_is_drawn(compare: Script) -> None:
    """Also in words: a legend, and what line and band are."""
    words = ("--x", "core-seconds", "--band", "range", "--single", "--out", "curves.svg")
    compare("quick=1-4", "slow=5-6", "--threshold", -0.5, *words)
    drawn = Path("curves.svg").read_text()
    for text in (
        *("quick (4 runs)", "slow (2 runs)", "core-seconds", "current fitness"),
        "line: iqm; band: lowest and highest run; trailing mean over 20 generations",
    ):
        assert f"<!-- {text} -->" in drawn
    lines = ElementTree.fromstring(drawn).findall(".//{*}g[@id]")
    names = [line.get("id", "") for line in lines]
    assert {"run 1", "run 6", "quick", "slow", "band of quick", "band of slow"} <= set(names)


def test_the_axis_of_steps_is_what_the_run_counted(runs: list[RunReader]) -> None:
    """The last theta is judged after the last generation: no steps of training belong to it."""
    curve = read_curve(runs[0], "current fitness", "steps", 1)
    assert np.array_equal(curve.x, runs[0].metric("total sim steps").values)
    assert np.array_equal(curve.values, current(runs[0])[:-1])
    assert curve.final == current(runs[0])[-1]


def test_a_single_run_has_a_curve_but_no_band(compare: Script) -> None:
    output = compare("1", "6", "--estimate", "mean", "--out", "one.png")
    assert "a single run has no interval: 1, 6" in output
    assert imread("one.png").any()


def test_groups() -> None:
    assert parse_groups(["es=12-14,20", "17", "a=b=3"]) == [
        Group("es", (12, 13, 14, 20)),
        Group("17", (17,)),
        Group("a=b", (3,)),
    ]


def test_a110_configs_side_by_side(compare: Script) -> None:
    lines = [line.split() for line in compare("1", "2", "5", "--config-diff").splitlines()]
    assert ["env_name", "=", "'Sphere-v0'"] in lines
    assert ["different", "run", "1", "run", "2", "run", "5"] in lines
    assert ["lr", "0.2", "0.2", "0.001"] in lines
    assert ["num_generations", "6", "7", "6"] in lines
    assert ["seed", "0", "1", "0"] in lines
    assert not [line for line in lines if line[0].startswith("__")]
    assert "no difference" in compare("1", "--config-diff")


def test_a110_common_and_different() -> None:
    configs = [{"a": 1, "b": {"x": [2], "y": 3}}, {"a": 1, "b": {"x": [2], "y": 4}, "c": None}]
    common, different = common_and_different(configs)
    assert common == {"a": "1", "b.x": "[2]"}
    assert different == {"b.y": ["3", "4"], "c": ["–", "None"]}


def test_a110_the_list_of_runs(compare: Script, runs: list[RunReader], store: Database) -> None:
    store["runs"].update_one({"_id": 6}, {"$set": {"status": "RUNNING", "result": None}})
    lines = compare("--list").splitlines()
    some = compare("5-6", "--list").splitlines()
    store["runs"].replace_one({"_id": 6}, runs[5].document)
    assert lines[0].split() == ["id", "name", "status", "result", "config"]
    assert len(lines) == 7 and len(some) == 3
    number, name, status, result, *config = lines[1].split()
    assert (number, name, status, result) == ("1", "ES", "COMPLETED", f"{runs[0].result:.2f}")
    assert config == ["lr=0.2", "num_generations=6", "seed=0"]
    assert lines[6].split()[:6] == ["6", "ES", "RUNNING", f"{current(runs[5])[-1]:.2f}", "at", "6"]
    assert some[1].split()[4:] == ["seed=0"]


def test_the_list_of_an_empty_store(make_store) -> None:  # type: ignore[no-untyped-def]
    assert Script(cli, make_store())("--list") == "no runs in the store\n"


def test_a008_the_commands_of_the_readme(compare: Script) -> None:
    ours = {"12": "1", "17": "5", "small=12-16": "small=1-4", "large=17,18,20": "large=5,6"}
    commands = commands_of_readme("store/compare.py")
    assert len(commands) >= 4
    for words in commands:
        assert compare(*(ours.get(word, word) for word in words))


REFUSED = [
    ((), "--list shows them"),
    (("es=",), "'es=' names no runs"),
    (("es=a",), "'es=a' names no runs"),
    (("es=5-2",), "'es=5-2' names no runs"),
    (("es=1,1",), "names a run twice"),
    (("es=1", "es=2"), "'es' stands for two groups"),
    (("es=1-8",), "no run 7 in the store; there are runs 1-6"),
    (("es=1", "--metric", "mean fitnes"), "Did you mean 'mean fitness'"),
    (("es=1", "--x", "hours"), "'hours' is not one of"),
    (("es=1", "--estimate", "max"), "'max' is not one of"),
    (("es=1", "--band", "sd"), "'sd' is not one of"),
    (("es=1", "--smooth", 0), "0 is not in the range"),
    (("es=1", "--threshold", "high"), "'high' is not a valid float"),
    (("es=1", "--out", "curves.pdf"), "ends in .png, .svg, .csv"),
    (("es=1", "--out", "nowhere/curves.png"), "there is no folder nowhere"),
    (("es=1", "--list", "--config-diff"), "choose one"),
]


@pytest.mark.parametrize(("words", "line"), REFUSED)
def test_a107_what_cannot_be_is_refused(words: tuple, line: str, compare: Script) -> None:
    assert line in compare.refuses(*words)
