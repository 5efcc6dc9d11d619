"""The workers that a head starts for itself alone."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from commands import wait_until
from test_evaluators import PROBLEMS

from cluster.keys import Keys, workers_alive
from cluster.redis_server import ServerError
from evolution import workplace
from evolution.evaluation import LocalEvaluator
from evolution.noise import NoiseTable
from evolution.workplace import open_private_workplace

pytestmark = pytest.mark.slow  # workers that are programs, which take seconds to start


def test_a_killed_keeper_costs_time_alone(
    noise: NoiseTable,
    make_task: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    problem, task = PROBLEMS["sphere"](), make_task(20, 0, noise)
    with LocalEvaluator(problem, noise) as alone:
        right = alone.evaluate(task)
    with open_private_workplace(2, "gymnasium") as place:
        assert place.crew is not None
        assert place.server is not None
        server = place.server
        first = {each["pid"] for each in wait_until(lambda: workers_alive(server, Keys()), place)}
        monkeypatch.setattr(workplace, "SHORT_LIFE_SECONDS", 0.0)
        os.kill(place.crew.keeper.pid, signal.SIGKILL)
        place.crew.keeper.wait()
        wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in first), "their end")
        with place.evaluator(problem, noise, "1-run", 0.05) as evaluator:
            found = evaluator.evaluate(task)
        second = {each["pid"] for each in workers_alive(server, Keys())}
        assert second - first
    assert [f.fitness.tobytes() for f in found] == [r.fitness.tobytes() for r in right]
    assert "killed (signal 9): starting workers again" in caplog.text


def test_a_keeper_that_does_not_live_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workplace, "SHORT_LIFE_SECONDS", float("inf"))
    with open_private_workplace(1, "gymnasium") as place:
        assert place.crew is not None
        place.crew.watch()
        os.kill(place.crew.keeper.pid, signal.SIGKILL)
        place.crew.keeper.wait()
        with pytest.raises(ServerError, match=r"the workers have ended \(exit code -9\)"):
            place.crew.watch()
