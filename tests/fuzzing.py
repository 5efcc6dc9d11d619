"""What to send to those who should not believe it: strategies of hypothesis."""

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as some

from evolution.exchange.messages import Rows

Strategy = some.SearchStrategy[Any]
KEY = bytes(range(32))
MESSAGES = int(os.environ.get("EVO_FUZZ", "4000"))  # in all; `make nemesis` takes 100,000
GROUP_OF = np.array([2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1])  # candidates in each piece of a task
PIECES = range(len(GROUP_OF))
STEPS = 7  # of each


def fuzz(share: float) -> Callable[[Callable], Callable]:
    """Settings of a test that takes a share of all messages; short runs repeat themselves."""
    return settings(
        max_examples=max(20, round(MESSAGES * share)),
        derandomize="EVO_FUZZ" not in os.environ,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


numbers = some.one_of(
    some.integers(-3, 20),
    some.sampled_from([2**31, -(2**31), 2**63, 2**64, 10**400, True]),
    some.floats(),
)
words = some.one_of(some.text(max_size=8), some.sampled_from(["run", "result", "mirrored", "<f4"]))
leaves = some.one_of(some.none(), some.booleans(), numbers, words)
json_values = some.recursive(
    leaves,
    lambda inner: some.lists(inner, max_size=4) | some.dictionaries(words, inner, max_size=4),
    max_leaves=8,
)
arrays = some.builds(
    lambda dtype, shape, fill: np.full(shape, fill).astype(dtype),
    some.sampled_from(["<f4", "<f8", "<i8", "<i4", "|b1"]),
    some.lists(some.integers(0, 4), max_size=3).map(tuple),
    some.sampled_from([0, 1, -1, 7]),
)
values = some.one_of(json_values, arrays)
deep = some.sampled_from([b"[" * 100_000, b'{"a":' * 50_000, b"[" * 500 + b"]" * 500])
junk = some.one_of(some.binary(max_size=80), deep)


@some.composite
def damaged(draw: Any, data: bytes) -> bytes:
    """Some bytes, no longer as they were."""
    how = draw(some.sampled_from(["flip", "cut", "insert", "overwrite", "twice", "junk"]))
    at = draw(some.integers(0, len(data) - 1))
    if how == "flip":
        spoiled = bytes([data[at] ^ (1 << draw(some.integers(0, 7)))])
        return data[:at] + spoiled + data[at + 1 :]
    if how == "cut":
        return data[:at]
    if how == "twice":
        return data + data
    if how == "junk":
        return draw(junk)
    other = draw(some.binary(min_size=1, max_size=20).filter(bool))
    rest = data[at:] if how == "insert" else data[at + len(other) :]
    changed = data[:at] + other + rest
    return changed if changed != data else data[:-1]


def changed(fields: Iterable[str], to: Strategy = values) -> Strategy:
    """Other values for one or two of the fields; sizes of noise tables would be honoured."""
    names = [name for name in fields if not name.startswith("noise_s")]
    return some.dictionaries(some.sampled_from(names), to, min_size=1, max_size=2)


def answer(pieces: Sequence[int], worker: str = "w") -> dict[str, Any]:
    """A sound one; which piece a row is of can be seen from its fitness."""
    fitness = fitness_of(pieces)
    steps = np.full(len(fitness), STEPS, np.int32)
    sound = Rows(np.array(pieces, np.int32), fitness, steps, 0.5, 0.25, 0.125)
    return {"task": 0, "run": "run", "worker": worker, **sound.to_fields()}


def fitness_of(pieces: Sequence[int]) -> np.ndarray:
    numbers = np.array(pieces, np.int64)
    return np.repeat(numbers, GROUP_OF[numbers]).astype(np.float32) + np.float32(0.5)


sound_pieces = some.sets(some.sampled_from(PIECES), min_size=1).map(sorted)


@some.composite
def unsound(draw: Any) -> dict[str, Any]:
    """An answer that a worker might sign, and nobody should believe."""
    pieces = draw(sound_pieces)
    rows = int(GROUP_OF[pieces].sum())
    bad = draw(some.sampled_from([np.nan, np.inf, -np.inf]))
    i4, f4 = np.int32, np.float32
    changes: list[dict[str, Any]] = [
        *({"pieces": np.array(p, i4)} for p in ([12], [-1, 2], [2**31 - 1], [3, 3], [4, 2], [])),
        {"pieces": np.array(pieces)},
        {"pieces": np.array([pieces], i4)},
        {"pieces": pieces},
        {"fitness": np.full(rows, bad, f4)},
        {"fitness": np.zeros(rows + 1, f4)},
        {"fitness": np.zeros(0, f4)},
        {"fitness": np.zeros(rows)},
        {"fitness": np.zeros((rows, 1), f4)},
        {"fitness": np.zeros(1 << 20, f4)},
        {"steps": np.zeros(rows, i4)},
        {"steps": np.full(rows, -5, i4)},
        {"steps": np.ones(rows - 1, i4)},
        {"steps": np.ones(rows, np.float32)},
        *({name: draw(values.filter(_is_no_array))} for name in ("pieces", "fitness", "steps")),
        *({name: each} for name in ("seconds", "waited") for each in (-1.0, bad, "1", None, 1e10)),
        {"cpu_seconds": draw(some.sampled_from([10**400, True, [], np.zeros(1, f4)]))},
        {"run": draw(some.sampled_from(["run-2", "", None, 5]))},
        {"worker": draw(some.sampled_from([None, 5, ["w"], {}]))},
        {"task": draw(some.sampled_from([1, -1, None, "0", 0.0, False, [0], 2**70]))},
        {"kind": draw(some.sampled_from(["results", "", None, 3, ["result"]]))},
        {"kind": "failure"},
        {"kind": "failure", "reason": "r", "pieces": np.array([12], i4)},
        {"kind": "failure", "reason": 5},
    ]
    change = draw(some.sampled_from(changes))
    return {**answer(pieces), **change}


def _is_no_array(value: Any) -> bool:
    return not isinstance(value, np.ndarray)
