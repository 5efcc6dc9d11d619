"""The experiment as a user sees it: what it accepts, prints, records and repeats."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from commands import EXPERIMENT, HAS_PROC, ROOT, Place, noise_file, record, run_here, setting

from evolution.problem import problem_of
from store.reader import read_policy
from store.recorder import theta_sha256

NAMED = {  # and how many parameters their policies have
    "lander": 18,
    "lander_original": 18,
    "ant": 6536 + 77 * 64,  # of today's ant, whose observation has 105 entries instead of 28
    "ant_original": 11_464,
    "pendulum": 4481,
    "pendulum_lstm": 1361,
    "pendulum_lstm_original": 1361,
    "pendulum_partial": 1361,
    "pendulum_partial_original": 1361,
    "cartpole": 62,
    "sphere": 20,
}
TINY = {
    "num_generations": 2,
    "pop_size": 4,
    "max_ep_length": 20,
    "num_episodes": 1,
    "eval_episodes": 1,
    "final_episodes": 2,
    "noise_size": 100_000,
    "evaluator": "local",
}
SPHERE = {
    **{"num_generations": 7, "num_serializations": 3, "seed": 1},
    **{"noise_size": 100_000, "noise_seed": os.getpid()},  # a table that nobody else holds
}
# The seed project's names, which scripts and eyes are used to.
METRICS = {
    *("gen", "total time elapsed", "time per gen", "total sim steps", "total fitness evals"),
    *("mean episode length", "mean steps per eval", "current fitness", "mean fitness"),
    *("best fitness", "overall best fitness", "fitness st.dev", "norm", "genome length"),
    *("success rate", "grad norm", "update ratio", "frac. results skipped", "results skipped"),
    *("num unique workers", "worker used times", "time_to_eval", "time_to_obtain", "steps/s"),
    "total core-seconds",
}
BEST = "Policy_best.model"
WIDE = """
import torch

class Wide(torch.nn.Sequential):
    def __init__(self, observation_space, action_space, width):
        inputs, outputs = observation_space.shape[0], int(action_space.n)
        super().__init__(torch.nn.Linear(inputs, width), torch.nn.Linear(width, outputs))
"""
# What differs between two runs with the same seed: time, and who worked.
TIMES = {
    *("total time elapsed", "time per gen", "time_to_eval", "time_to_obtain", "steps/s"),
    *("num unique workers", "worker used times", "total core-seconds"),
}


@pytest.fixture(scope="module")
def finished() -> Iterator[tuple[Path, str]]:
    """The run folder of an experiment with server and workers of its own; what was printed."""
    with Place() as place:
        printed = place.run(EXPERIMENT, "with", "sphere", *setting(**SPHERE, num_workers=2))
        noise = noise_file(SPHERE["noise_size"], SPHERE["noise_seed"])
        assert not noise.exists()
        if HAS_PROC:
            assert place.leftovers() == []
        yield place.runs / "1", printed


def test_a001_print_config_works_anywhere_without_environment(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / EXPERIMENT), "print_config", "with", "lander"]
    done = subprocess.run(command, cwd=tmp_path, env={}, capture_output=True, text=True, check=True)
    assert "hidden_sizes = []" in done.stdout
    assert "Traceback" not in done.stderr
    assert "Warning" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a002_named_configs_are_listed_with_a_sentence_each(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / EXPERIMENT), "print_named_configs"]
    done = subprocess.run(command, cwd=tmp_path, env={}, capture_output=True, text=True, check=True)
    plain = re.sub(r"\x1b\[\d*m", "", done.stdout)
    listed = dict(re.findall(r"^  (\w+) +# (.+)$", plain, re.MULTILINE))
    assert set(listed) == set(NAMED)
    assert all(len(sentence) > 10 for sentence in listed.values())


@pytest.mark.parametrize("name", NAMED)
def test_a002_a060_named_config_finishes_with_its_parameters(name: str) -> None:
    run = run_here(name, **TINY)
    assert run.status == "COMPLETED"
    assert np.isfinite(run.result)
    assert problem_of(run.config).make_policy().num_params == NAMED[name]


def test_a_module_of_ones_own_gets_its_arguments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wide.py").write_text(WIDE)
    monkeypatch.syspath_prepend(tmp_path)
    own = {"network": "wide:Wide", "network_kwargs": {"width": 7}, "evaluator": "local"}
    run = run_here("cartpole", **TINY | own)
    assert run.config["network_kwargs"] == {"width": 7}
    assert problem_of(run.config).make_policy().num_params == 4 * 7 + 7 + 7 * 2 + 2


def test_run_prints_its_result(finished: tuple[Path, str]) -> None:
    run, printed = finished
    (fitness, half) = re.findall(r"^final fitness (-?\d+\.\d+) ± (\d+\.\d+)", printed, re.M)[0]
    (digest,) = re.findall(r"^theta sha256 ([0-9a-f]{64})$", printed, re.M)
    assert record(run, "run")["status"] == "COMPLETED"
    assert record(run, "run")["result"] == pytest.approx(float(fitness), abs=0.006)
    assert float(half) >= 0
    assert record(run, "info")["theta sha256"] == digest


def test_run_records_what_was_used(finished: tuple[Path, str]) -> None:
    run, _ = finished
    info, experiment = record(run, "info"), record(run, "run")["experiment"]
    assert info["engine"] == "batched"
    assert info["versions"] == {"numpy": np.__version__}
    assert record(run, "config")["pop_size"] == 50
    assert experiment["mainfile"] == EXPERIMENT
    sources = {name for name, _ in experiment["sources"]}
    assert {"es/openai_es.py", "evolution/simulator.py", "policy/feedforward.py"} <= sources
    assert not [name for name in sources if name.startswith(("tests", ".venv"))]
    packages = dict(each.split("==") for each in experiment["dependencies"])
    assert packages["numpy"] == np.__version__
    assert packages["torch"] == metadata.version("torch")
    assert "theta sha256" in (run / "cout.txt").read_text()


def test_a100_metrics_have_one_value_per_generation(finished: tuple[Path, str]) -> None:
    metrics = record(finished[0], "metrics")
    assert set(metrics) >= METRICS
    generations = list(range(SPHERE["num_generations"]))
    for name in METRICS:
        expected = [*generations, len(generations)] if "current" in name else generations
        assert metrics[name]["steps"] == expected, name
        assert np.isfinite(metrics[name]["values"]).all(), name
    values = {name: metric["values"] for name, metric in metrics.items()}
    assert values["gen"] == generations
    assert values["total fitness evals"] == [50 * (number + 1) for number in generations]
    assert values["genome length"] == [20] * len(generations)
    assert all(0 <= rate <= 1 for rate in values["success rate"])
    assert all(1 <= number <= 2 for number in values["num unique workers"])
    assert values["current fitness"][-1] > values["current fitness"][0]


def test_a101_first_periodic_last_and_best_policies_are_kept(finished: tuple[Path, str]) -> None:
    run, _ = finished
    names = {path.name for path in run.glob("*.model")}
    assert names == {*(f"Policy_ep_{number}.model" for number in (0, 2, 4, 6, 7)), BEST}
    info, current = record(run, "info"), record(run, "metrics")["current fitness"]
    policy = problem_of(record(run, "config")).make_policy()
    for name in names:
        said = info["policies"][name]
        theta = policy.theta_from_state_dict(read_policy(run / name))
        assert said["theta sha256"] == theta_sha256(theta)
        assert said["current fitness"] == current["values"][said["generation"]]
    assert info["policies"][BEST]["current fitness"] == max(current["values"])
    assert info["policies"]["Policy_ep_7.model"]["theta sha256"] == info["theta sha256"]


def test_a018_same_seed_same_run(finished: tuple[Path, str], tmp_path: Path) -> None:
    """Whoever evaluates: the bytes of all policies and the numbers of all metrics."""
    run, _ = finished
    for _ in range(2):
        run_here("sphere", folder=tmp_path, evaluator="local", **SPHERE)
    expected = record(run, "metrics")
    for again in (tmp_path / "1", tmp_path / "2"):
        for name, metric in record(again, "metrics").items():
            assert name in TIMES or metric["values"] == expected[name]["values"], name
        for path in run.glob("*.model"):
            assert (again / path.name).read_bytes() == path.read_bytes()
    other = run_here("sphere", evaluator="local", **SPHERE | {"seed": 2})
    assert other.info["theta sha256"] != record(run, "info")["theta sha256"]


@pytest.mark.slow
def test_a018_lander_is_the_same_for_any_number_of_workers() -> None:
    """Lanes, tickets and workers change nothing; each twice, on the default engine."""
    config = {
        **{"seed": 3, "num_generations": 3, "pop_size": 20, "noise_size": 100_000},
        **{"eval_episodes": 3, "final_episodes": 4},
    }
    digests = {
        run_here("lander", evaluator=evaluator, num_workers=count, **config).info["theta sha256"]
        for evaluator, count in (("local", 1), *(("redis", n) for n in (1, 2, 3, 1, 2, 3)))
    }
    assert len(digests) == 1
