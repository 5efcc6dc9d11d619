"""Several runs at once on the same workers, which come to the same results as alone."""

import io
import signal
from collections.abc import Iterator

import pandas as pd
import pytest
from commands import HAS_PROC, WORKER, Place, complaint, record, run_here, setting, wait_until
from machines import Site

from ga.experiment import ex

SCRIPT = "ga/experiment.py"
TINY = {
    **{"pop_size": 12, "n_parents": 4, "champions": 2, "n_elite_candidates": 3, "n_evals": 2},
    **{"eval_episodes": 2, "final_episodes": 3, "max_ep_length": 20, "noise_size": 100_000},
    **{"engine": "gymnasium", "num_generations": 6, "seed": 7, "log_evaluations": True},
}
SHARED = {**TINY, "count": 2, "num_workers": 2, "min_task_runtime": 0.0}


@pytest.fixture
def place() -> Iterator[Place]:
    with Place() as made:
        yield made


@pytest.mark.slow
def test_a041_two_runs_share_workers_and_nothing_else(place: Place) -> None:
    command = place.start(SCRIPT, "with", "cartpole", *setting(**SHARED), "-F", str(place.runs))
    said = command.succeed()
    first, second = sorted(
        (place.runs / number for number in "12"), key=lambda run: record(run, "config")["seed"]
    )
    workers = []
    for run, seed in ((first, 7), (second, 8)):
        assert record(run, "run")["status"] == "COMPLETED"
        config = TINY | {"seed": seed, "evaluator": "local"}
        alone = run_here("cartpole", experiment=ex, **config)
        assert record(run, "info")["theta sha256"] == alone.info["theta sha256"]
        assert record(run, "info")["EliteGenome"] == alone.info["EliteGenome"]
        text = (run / "results.csv").read_bytes()
        rows = pd.read_csv(io.BytesIO(text), keep_default_na=False)
        assert rows["is_valid"].sum() == 6 * (12 + 2) + 5 * 6 + 3
        workers.append(set(rows["worker_id"]))
        assert len(list(run.glob("Generation_*.npz"))) == 6
    assert record(first, "info")["theta sha256"] != record(second, "info")["theta sha256"]
    assert len(workers[0] | workers[1]) <= 2  # both runs' together
    assert "[seed 8] final fitness" in said
    assert "[seed 7]" not in said
    assert record(second, "config")["count"] == 1  # so that it can be resumed alone
    if HAS_PROC:
        assert place.leftovers() == []


@pytest.mark.slow
def test_a041_two_runs_share_another_machine() -> None:
    config = TINY | {"count": 2, "local": False, "log_evaluations": False}
    with Site() as site:
        words = "--num_workers=2", "--preload=", "--group=default,default-1"
        socket_path = f"--relay_socket_path={site.folder}/relay.sock"
        site.start(WORKER, "workers", *site.master, socket_path, *words)
        head = site.start(SCRIPT, "with", "cartpole", *setting(**config), "-F", str(site.runs))
        head.succeed()
        found = {
            record(site.runs / number, "config")["seed"]: record(site.runs / number, "info")
            for number in "12"
        }
    for seed in (7, 8):
        alone = run_here("cartpole", experiment=ex, **TINY | {"seed": seed, "evaluator": "local"})
        assert found[seed]["theta sha256"] == alone.info["theta sha256"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_others_end_with_the_first(number: signal.Signals, place: Place) -> None:
    config = SHARED | {"num_generations": 100_000}
    command = place.start(SCRIPT, "with", "cartpole", *setting(**config), "-F", str(place.runs))
    command.says("[seed 8] generation 1/")
    command.send(number)
    assert command.end() in (128 + signal.SIGTERM, -signal.SIGKILL)
    if HAS_PROC:
        wait_until(lambda: not place.processes(), "the others")


def test_a_group_of_workers_is_named_well(place: Place) -> None:
    refused = place.start(WORKER, "start-workers", "--group=one,two words")
    assert refused.end() == 1
    assert "--group='two words'" in complaint(refused.err)


@pytest.mark.parametrize("count", [0, 1.5, True])
def test_count_is_checked(count: object) -> None:
    with pytest.raises(Exception, match=r"count=.*must be a whole number, 1 or more"):
        run_here("sphere", experiment=ex, **TINY, count=count)
