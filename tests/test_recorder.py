"""What a run leaves behind: which policies, under which names, and how good they were."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from sacred import Experiment
from sacred.observers import FileStorageObserver
from sacred.run import Run

from policy.feedforward import FeedForward
from store import recorder as recorder_module
from store.reader import load_policy, read_policy
from store.recorder import SacredRecorder, theta_sha256
from store.results import RESULTS, Result

POLICY = FeedForward(
    gym.spaces.Box(-1, 1, (3,), np.float32),
    gym.spaces.Box(-1, 1, (2,), np.float32),
    hidden_sizes=[4],
)
BEST = "Policy_best.model"


@dataclass(frozen=True)
class Judged:
    """A generation, as far as the recorder looks at it."""

    number: int
    fitness: float

    @property
    def theta(self) -> np.ndarray:
        return theta_of(self.number)

    @property
    def metrics(self) -> dict[str, float]:
        return {"current fitness": self.fitness, "gen": float(self.number)}

    def results(self) -> list[Result]:
        fitness = self.fitness, self.fitness + 1
        return [
            Result(self.number, n, "theta", f, 1, 1, "w", 1, 1, True) for n, f in enumerate(fitness)
        ]


def theta_of(number: int) -> np.ndarray:
    """The parameters from which generation ``number`` was asked."""
    return np.random.default_rng(number).normal(size=POLICY.num_params).astype(np.float32)


class Record:
    """What the store has after a run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.info = json.loads((folder / "info.json").read_text())
        self.status = json.loads((folder / "run.json").read_text())["status"]
        self.policies = {path.name: path for path in folder.glob("*.model")}
        path = folder / "metrics.json"
        self.metrics = json.loads(path.read_text()) if path.exists() else {}

    def theta(self, name: str) -> np.ndarray:
        return POLICY.theta_from_state_dict(read_policy(self.policies[name]))


@pytest.fixture
def record_run(tmp_path: Path) -> Callable[..., Record]:
    """Record generations of the given fitness, in a real run; then finish it, or not."""

    def record(
        fitness: list[float],
        period: int = 3,
        final: float | None = None,
        error: type[BaseException] | None = None,
        log_evaluations: bool = False,
    ) -> Record:
        ex = Experiment("test", save_git_info=False)
        ex.observers.append(FileStorageObserver(tmp_path))

        @ex.main
        def main(_run: Run) -> None:
            with SacredRecorder(_run, POLICY, period, log_evaluations) as recorder:
                for number, each in enumerate(fitness):
                    recorder.record(Judged(number, each), theta_of(number + 1))
                if error is not None:
                    raise error
                if final is not None:
                    assert recorder.finish(Judged(len(fitness), final)) == theta_sha256(
                        theta_of(len(fitness))
                    )

        try:
            run_id = ex.run()._id
        except BaseException as raised:
            if error is None or not isinstance(raised, error):
                raise
            assert ex.current_run is not None
            run_id = ex.current_run._id
        return Record(tmp_path / str(run_id))

    return record


def names(*numbers: int) -> set[str]:
    return {f"Policy_ep_{number}.model" for number in numbers}


@pytest.mark.parametrize(
    ("generations", "period", "saved"),
    [
        (7, 3, (0, 3, 6, 7)),
        (6, 3, (0, 3, 6)),
        (1, 1, (0, 1)),
        (4, 1, (0, 1, 2, 3, 4)),
        (3, 100, (0, 3)),
    ],
)
def test_a101_first_periodic_last_and_best_are_kept(
    generations: int, period: int, saved: tuple[int, ...], record_run: Callable[..., Record]
) -> None:
    record = record_run([float(n) for n in range(generations)], period, final=0.5)
    assert set(record.policies) == names(*saved) | {BEST}
    assert record.status == "COMPLETED"


def test_a101_the_policy_at_an_index_has_the_fitness_at_that_index(
    record_run: Callable[..., Record],
) -> None:
    fitness = [1.0, -2.0, 5.0, 4.0, 3.0]
    record = record_run(fitness, period=2, final=2.5)
    logged = record.metrics["current fitness"]
    assert logged["steps"] == [0, 1, 2, 3, 4, 5]
    assert logged["values"] == [*fitness, 2.5]
    for number in (0, 2, 4, 5):
        name = f"Policy_ep_{number}.model"
        assert np.array_equal(record.theta(name), theta_of(number))
        assert record.info["policies"][name] == {
            "generation": number,
            "theta sha256": theta_sha256(theta_of(number)),
            "current fitness": logged["values"][number],
        }
    assert record.info["theta sha256"] == theta_sha256(theta_of(5))


@pytest.mark.parametrize(
    ("fitness", "final", "best"),
    [
        ([1.0, 7.0, 7.0, 3.0], 2.0, 1),  # between two periods, and the first of equals
        ([9.0, 7.0, 3.0], 2.0, 0),
        ([-9.0, -7.0, -3.0], -2.0, 3),  # the final one
        ([-9.0, -1.0, -3.0], -2.0, 1),
    ],
)
def test_a101_the_best_is_the_best_of_all(
    fitness: list[float], final: float, best: int, record_run: Callable[..., Record]
) -> None:
    record = record_run(fitness, period=100, final=final)
    assert np.array_equal(record.theta(BEST), theta_of(best))
    said = record.info["policies"][BEST]
    assert said["generation"] == best
    assert said["current fitness"] == [*fitness, final][best]


@pytest.mark.parametrize(
    ("error", "status"), [(KeyboardInterrupt, "INTERRUPTED"), (RuntimeError, "FAILED")]
)
def test_a101_an_interrupted_run_keeps_its_newest_and_best(
    error: type[BaseException], status: str, record_run: Callable[..., Record]
) -> None:
    fitness = [1.0, 3.0, 2.0, 4.0, 8.0]
    record = record_run(fitness, period=3, error=error)
    assert record.status == status
    assert set(record.policies) == names(0, 3, 5) | {BEST}
    assert np.array_equal(record.theta("Policy_ep_5.model"), theta_of(5))
    assert "current fitness" not in record.info["policies"]["Policy_ep_5.model"]
    assert np.array_equal(record.theta(BEST), theta_of(4))
    assert "theta sha256" not in record.info
    assert record.metrics["current fitness"]["values"] == fitness


def test_a101_a_run_that_ends_before_its_first_generation_leaves_no_policy(
    record_run: Callable[..., Record],
) -> None:
    record = record_run([], error=KeyboardInterrupt)
    assert record.policies == {}
    assert record.info["policies"] == {}


@pytest.mark.parametrize("error", [None, KeyboardInterrupt, RuntimeError])
def test_evaluations_are_kept_however_a_run_ends(
    error: type[BaseException] | None, record_run: Callable[..., Record]
) -> None:
    record = record_run([5.0, 0.1], final=7.0, error=error, log_evaluations=True)
    header, *rows = (record.folder / RESULTS).read_text().splitlines()
    assert header == ",".join(Result._fields)
    assert rows[:4] == [
        "0,0,theta,5.0,1,1,w,1.000000,1.000000,True",
        "0,1,theta,6.0,1,1,w,1.000000,1.000000,True",
        "1,0,theta,0.1,1,1,w,1.000000,1.000000,True",
        "1,1,theta,1.1,1,1,w,1.000000,1.000000,True",
    ]
    assert [row.split(",")[3] for row in rows[4:]] == ([] if error else ["7.0", "8.0"])


def test_evaluations_of_a_run_that_had_none(record_run: Callable[..., Record]) -> None:
    record = record_run([], error=KeyboardInterrupt, log_evaluations=True)
    assert not (record.folder / RESULTS).exists()


def test_a018_equal_runs_leave_equal_bytes(record_run: Callable[..., Record]) -> None:
    first, second = (record_run([1.0, 2.0], final=3.0) for _ in range(2))
    assert first.folder != second.folder
    assert first.policies.keys() == second.policies.keys()
    for name, path in first.policies.items():
        assert path.read_bytes() == second.policies[name].read_bytes()
    assert first.info == second.info


def test_policies_are_plain_state_dicts(record_run: Callable[..., Record]) -> None:
    record = record_run([1.0], final=2.0)
    for path in record.policies.values():
        state = torch.load(path, weights_only=True)
        module = POLICY.module()
        module.load_state_dict(state)
        assert all(tensor.dtype == torch.float32 for tensor in state.values())


def test_a_policy_that_cannot_be_written_does_not_end_the_run(
    record_run: Callable[..., Record], monkeypatch: pytest.MonkeyPatch, caplog: Any, tmp_path: Path
) -> None:
    monkeypatch.setattr(recorder_module, "_memory", lambda: str(tmp_path / "nowhere"))
    record = record_run([1.0, 2.0], period=1, final=3.0)
    assert record.status == "COMPLETED"
    assert record.policies == record.info["policies"] == {}
    assert "Policy_ep_1.model is lost, it could not be written" in caplog.text
    assert record.metrics["current fitness"]["values"] == [1.0, 2.0, 3.0]


def test_a_hash_tells_thetas_apart() -> None:
    theta = theta_of(0)
    assert theta_sha256(theta) == theta_sha256(theta.astype(">f4")) == theta_sha256(theta[::1])
    assert len(theta_sha256(theta)) == 64
    other = theta.copy()
    other[3] = np.nextafter(other[3], np.float32(9))
    assert theta_sha256(other) != theta_sha256(theta)


# --- reading back


def test_a_policy_is_loaded_from_its_file(record_run: Callable[..., Record]) -> None:
    record = record_run([1.0, 2.0], period=1, final=0.0)
    loaded = POLICY.theta_from_state_dict(load_policy(str(record.policies["Policy_ep_1.model"])))
    assert np.array_equal(loaded, theta_of(1))


def test_what_is_no_policy_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVO_RUNS", str(tmp_path))
    with pytest.raises(ValueError, match="load_from=7: no run 7, for there is no store yet"):
        load_policy(7)
    with pytest.raises(ValueError, match="no such file"):
        load_policy("lost.model")
    bad: dict[str, Any] = {"garbage": b"garbage", "empty": b""}
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match="is no saved policy"):
            read_policy(tmp_path / name)
    torch.save([1, 2], tmp_path / "list")
    with pytest.raises(ValueError, match="holds a list"):
        read_policy(tmp_path / "list")


class Song:
    """Would sing if it were unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self._path,)


def test_reading_a_policy_executes_nothing(tmp_path: Path) -> None:
    torch.save({"weight": Song(tmp_path / "song")}, tmp_path / "bad.model")
    with pytest.raises(ValueError, match="is no saved policy"):
        read_policy(tmp_path / "bad.model")
    assert not (tmp_path / "song").exists()
