"""Checkpoints: everything comes back, and a damaged one is noticed."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from store.checkpoint import CheckpointError, Checkpoints, read_checkpoint

STATE: dict[str, Any] = {
    "theta": np.arange(5, dtype=np.float32),
    "optimizer": {
        "state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.ones(2, 3)}},
        "param_groups": [{"lr": 0.1, "betas": (0.9, 0.999), "foreach": None, "params": [0]}],
    },
    "best": (1.5, 7, np.array([[1, 2]], np.int64)),
    "none": None,
    "big": 2**62,
    "infinite": float("-inf"),
    "empty": [{}, [], ()],
    "scalar": np.float32(0.1),
}


def same(one: Any, other: Any) -> bool:
    """Equal in value, kind and type of the numbers."""
    if isinstance(one, np.ndarray | torch.Tensor):
        alike = type(one) is type(other) and one.dtype == other.dtype and one.shape == other.shape
        return alike and bool((one == other).all())
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        alike = type(one) is type(other) and len(one) == len(other)
        return alike and all(map(same, one, other))
    return bool(one == other)


def test_a106_everything_comes_back(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "new" / "folder")
    checkpoints.save(12, STATE)
    number, state = checkpoints.newest()
    assert number == 12
    assert same(STATE, state)


def test_what_comes_back_may_be_changed(tmp_path: Path) -> None:
    Checkpoints(tmp_path).save(0, STATE)
    _, state = Checkpoints(tmp_path).newest()
    state["theta"] += 1
    state["optimizer"]["state"][0]["exp_avg"] += 1


def test_the_newest_two_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for number in (3, 20, 100):
        checkpoints.save(number, {"number": number})
    assert checkpoints.newest() == (100, {"number": 100})
    assert sorted(int(path.stem) for path in tmp_path.iterdir()) == [20, 100]


@pytest.mark.parametrize("where", [0, 50, 0.3, 0.6, -60, -1])
@pytest.mark.parametrize("damage", ["cut", "flip", "zero"])
def test_a_damaged_one_is_passed_over(
    where: float, damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Wherever a byte is wrong, the state is either whole or refused."""
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, {**STATE, "number": 1})
    path = checkpoints.save(2, {**STATE, "number": 2})
    data = bytearray(path.read_bytes())
    at = int(where * len(data)) if isinstance(where, float) else where % len(data)
    if damage == "cut":
        del data[at:]
    else:
        data[at] = data[at] ^ 0xFF if damage == "flip" else 0
    path.write_bytes(data)
    with caplog.at_level(logging.WARNING):
        number, state = checkpoints.newest()
    assert state["number"] == number
    assert same(STATE, {name: state[name] for name in STATE})
    if number == 1:
        assert str(path) in caplog.text
        assert "is damaged" in caplog.text


def test_of_none_it_is_said(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint"):
        Checkpoints(tmp_path / "nowhere").newest()


def test_nothing_is_executed(tmp_path: Path) -> None:
    """An array of objects would be read by pickle."""
    path = tmp_path / "1.npz"
    np.savez(path, text=np.array([{"a": 1}], dtype=object))
    with pytest.raises(CheckpointError, match="damaged"):
        read_checkpoint(path)


def test_half_a_file_of_a_killed_process_is_not_seen(tmp_path: Path) -> None:
    Checkpoints(tmp_path).save(1, {"a": 1})
    (tmp_path / "000000002.new").write_bytes(b"half")
    assert Checkpoints(tmp_path).newest() == (1, {"a": 1})
