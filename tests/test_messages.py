"""What evolution reads off the wire: rows and tasks, or a word that they are none."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from cluster.wire import MessageError
from evolution.exchange.messages import Rows, task_fields, task_parts
from evolution.noise import NoiseTable

ROWS: dict[str, Any] = {
    "pieces": np.array([0, 2], np.int32),
    "fitness": np.array([1, 2, 3], np.float32),
    "steps": np.array([4, 5, 6], np.int32),
    "seconds": 0.5,
    "waited": 0.25,
    "cpu_seconds": 0.125,
}
GROUP_OF = np.array([2, 1, 1])


def test_rows_survive_the_wire() -> None:
    rows = Rows.from_fields(Rows(**ROWS).to_fields(), GROUP_OF)
    assert {name: np.array_equal(value, getattr(rows, name)) for name, value in ROWS.items()} == {
        name: True for name in ROWS
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("pieces", np.array([0, 3], np.int32)),
        ("pieces", np.array([-1, 2], np.int32)),
        ("pieces", np.array([2, 0], np.int32)),
        ("pieces", np.array([0, 0], np.int32)),
        ("pieces", np.array([1, 2, 2], np.int32)),
        ("pieces", np.array([], np.int32)),
        ("pieces", np.array([0, 2])),
        ("pieces", np.array([[0, 2]], np.int32)),
        ("pieces", [0, 2]),
        ("pieces", np.array([1, 2], np.int32)),
        ("fitness", np.array([1, 2], np.float32)),
        ("fitness", np.array([1, 2, 3, 4], np.float32)),
        ("fitness", np.array([1, 2, 3], np.float64)),
        ("fitness", np.array([1, np.nan, 3], np.float32)),
        ("fitness", np.array([1, 2, np.inf], np.float32)),
        ("fitness", 5),
        ("steps", np.array([4, 5], np.int32)),
        ("steps", np.array([4, 0, 6], np.int32)),
        ("steps", np.array([4, -5, 6], np.int32)),
        ("steps", np.array([4.0, 5.0, 6.0])),
        ("steps", np.array([4, 5, 6])),
        ("seconds", "long"),
        ("seconds", None),
        ("seconds", -1.0),
        ("seconds", float("nan")),
        ("seconds", float("inf")),
        ("waited", 10**400),
        ("waited", ROWS["pieces"]),
    ],
)
def test_rows_that_cannot_be_are_refused(name: str, value: Any) -> None:
    with pytest.raises(MessageError):
        Rows.from_fields(ROWS | {name: value}, GROUP_OF)


@pytest.mark.parametrize("name", ROWS)
def test_rows_without_a_field_are_refused(name: str) -> None:
    with pytest.raises(MessageError, match=f"without '{name}'"):
        Rows.from_fields({k: v for k, v in ROWS.items() if k != name}, GROUP_OF)


def test_a_task_that_is_none_is_refused(make_task: Callable, noise: NoiseTable) -> None:
    fields = task_fields(make_task(10, 0, noise), share=2, min_seconds=0.1, max_seconds=1.0)
    assert len(task_parts(fields)) == 3
    wrong: list[dict[str, Any]] = [{name: None} for name in fields]
    wrong += [{"parts": 4}, {"parts": float("inf")}, {"share": 0}, {"min_seconds": float("nan")}]
    wrong += [{"max_seconds": -1.0}, {"max_seconds": np.ones(2)}, {"share": np.array(2)}]
    wrong += [{"1.copies": 4}, {"2.values": np.zeros(3)}, {"0.env_seeds": np.zeros(5, np.int64)}]
    for change in wrong:
        if change not in ({"0.centre": None}, {"0.sigma": None}, {"1.theta": None}):
            with pytest.raises(MessageError, match="no task"):
                task_parts(fields | change)
    for name in fields:
        with pytest.raises(MessageError, match="no task"):
            task_parts({key: value for key, value in fields.items() if key != name})
