"""What can be read back of a run, finished and still going."""

import datetime
from collections.abc import Callable

import numpy as np
import pytest
import torch
from bson import ObjectId
from commands import wait_until
from pymongo.database import Database
from stored import SPHERE, observed, run_stored

import evolution.session
from es.experiment import ex
from evolution.loop import evolve
from evolution.problem import problem_of
from store.reader import ReadError, RunReader
from store.recorder import theta_sha256

GENERATIONS = SPHERE["num_generations"]


@pytest.fixture(scope="module")
def run(store: Database) -> RunReader:
    return RunReader(store, run_stored(store, "sphere", seed=1, **SPHERE))


def test_a_run_is_read_back(run: RunReader) -> None:
    assert (run.name, run.status) == ("ES", "COMPLETED")
    assert run.config["env_name"] == "Sphere-v0"
    assert run.config["num_generations"] == GENERATIONS
    assert run.info["engine"] == "batched"
    assert run.result == run.metric("current fitness").values[-1]


def test_metrics_are_read_back(run: RunReader) -> None:
    metrics = run.metrics()
    assert list(metrics) == run.metric_names()
    assert metrics["gen"].values.tolist() == list(range(GENERATIONS))
    current = metrics["current fitness"]
    assert current.steps.tolist() == list(range(GENERATIONS + 1))
    assert current.steps.dtype == np.int64 and current.values.dtype == np.float64
    now = np.datetime64(datetime.datetime.now(datetime.UTC).replace(tzinfo=None))
    assert (np.abs(current.times - now) < np.timedelta64(10, "m")).all()
    assert np.array_equal(run.metric("norm").values, metrics["norm"].values)


def test_metrics_make_a_data_frame(run: RunReader) -> None:
    frame = run.frame()
    assert frame.index.name == "generation"
    assert frame.index.tolist() == list(range(GENERATIONS + 1))
    assert set(frame.columns) == set(run.metrics())
    assert np.isnan(frame["mean fitness"].iloc[-1])  # nobody was asked from the last theta
    assert frame["current fitness"].iloc[-1] == run.result


def test_an_unknown_metric_is_refused(run: RunReader) -> None:
    with pytest.raises(ReadError, match=r"no metric 'curent fitness'. Did you mean 'current fit"):
        run.metric("curent fitness")


def test_of_a_value_logged_twice_the_later_one_counts(store: Database, run: RunReader) -> None:
    """A run that goes on after a crash repeats generations; parts may lie in two documents."""
    times = [datetime.datetime(2026, 1, 1)] * 3
    for steps, values in (([0, 1, 2], [0.0, 1.0, 2.0]), ([2, 1, 3], [20.0, 10.0, 30.0])):
        metric = {"run_id": run.id, "name": "again", "steps": steps, "values": values}
        store["metrics"].insert_one({**metric, "timestamps": times})
    again = run.metric("again")
    assert again.steps.tolist() == [0, 1, 2, 3]
    assert again.values.tolist() == [0, 10, 20, 30]
    store["metrics"].delete_many({"name": "again"})


def test_a_run_that_is_not_there_is_refused(store: Database, run: RunReader) -> None:
    with pytest.raises(ReadError, match=r"no run 7 in the store; there is run 1$"):
        RunReader(store, 7)
    store["runs"].insert_many([{"_id": number} for number in (2, 3, 5)])
    with pytest.raises(ReadError, match=r"there are runs 1-3, 5$"):
        RunReader(store, 4)
    store["runs"].insert_many([{"_id": number} for number in range(10, 60, 2)])
    with pytest.raises(ReadError, match=r"there are runs 1-3, 5, 10, 12, …, 52, 54, 56, 58$"):
        RunReader(store, 4)
    store["runs"].delete_many({"_id": {"$ne": 1}})
    with pytest.raises(ReadError, match="there is no run at all"):
        RunReader(store.client["empty"], 1)


def test_policies_are_read_back(run: RunReader) -> None:
    """Generation 0 is one as good as any."""
    assert list(run.policies()) == [0, 2, 4, 6]
    policy = problem_of(run.config).make_policy()
    newest, best = run.policy(), run.policy(best=True)
    assert (newest.name, newest.generation) == ("Policy_ep_6.model", 6)
    current = run.metric("current fitness").values
    assert (best.name, best.generation) == ("Policy_best.model", current.argmax())
    for each in (newest, best, run.policy(0), run.policy(4)):
        digest = theta_sha256(policy.theta_from_state_dict(each.state_dict))
        assert digest == each.digest == run.info["policies"][each.name]["theta sha256"]
    assert run.info["theta sha256"] == newest.digest


def test_a_policy_that_was_not_saved_is_refused(store: Database, run: RunReader) -> None:
    with pytest.raises(ReadError, match="no policy of generation 1; there are generations 0, 2, "):
        run.policy(1)
    empty = {"_id": 9, "experiment": {"name": "ES"}, "status": "INTERRUPTED", "artifacts": []}
    store["runs"].insert_one(empty)
    with pytest.raises(ReadError, match=r"run 9 has saved no policy$"):
        RunReader(store, 9).policy()
    store["runs"].update_one({"_id": 9}, {"$set": {"status": "RUNNING"}})
    with pytest.raises(ReadError, match="no policy: it is RUNNING, try again later"):
        RunReader(store, 9).policy(best=True)
    lost = [{"name": "Policy_ep_0.model", "file_id": ObjectId()}]
    store["runs"].update_one({"_id": 9}, {"$set": {"artifacts": lost}})
    with pytest.raises(ReadError, match="run 9: the store has no content for Policy_ep_0"):
        RunReader(store, 9).policy()
    store["runs"].delete_one({"_id": 9})


def test_a102_the_newest_policy_of_a_run_that_is_still_going(
    store: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def watched(*args, **kwargs):  # type: ignore[no-untyped-def]
        for generation in evolve(*args, **kwargs):
            yield generation
            wait_until(lambda: observer.spool.is_shipped, "the policy in the store")
            reader = RunReader(store, observer.run_entry["_id"])
            seen.append((reader.status, list(reader.policies()), reader.policy().generation))

    monkeypatch.setattr(evolution.session, "evolve", watched)
    with observed(store) as observer:
        ex.run(named_configs=["sphere"], config_updates={**SPHERE, "seed": 2})
    assert seen[0] == ("RUNNING", [0], 0)
    assert seen[-1] == ("RUNNING", [0, 2, 4], 4)


def test_a104_a_store_made_anew_gives_the_new_policy(
    make_store: Callable[[], Database],
) -> None:
    """Its ids begin at 1 again."""
    digests = []
    for seed in (1, 2):
        store = make_store()
        assert run_stored(store, "sphere", seed=seed, **SPHERE) == 1
        reader = RunReader(store, 1)
        state_dict = reader.policy(0).state_dict
        theta = problem_of(reader.config).make_policy().theta_from_state_dict(state_dict)
        assert theta_sha256(theta) == reader.info["policies"]["Policy_ep_0.model"]["theta sha256"]
        digests.append(theta_sha256(theta))
    assert digests[0] != digests[1]


def test_a077_reading_a_policy_executes_nothing(store: Database, run: RunReader) -> None:
    assert all(type(each) is torch.Tensor for each in run.policy().state_dict.values())
