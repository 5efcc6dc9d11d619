"""What makes messages cheap, as far as it can be counted: many in one, read at once."""

from typing import Any

import numpy as np
import pytest
import redis
from conftest import Crew

from cluster.merging import merge, merged, split
from cluster.redis_server import connect
from cluster.wire import MessageError, pack, unpack
from evolution.evaluation import Part
from evolution.exchange.batches import read_sound
from evolution.exchange.messages import Rows
from evolution.noise import NoiseTable
from evolution.population import Mirrored
from evolution.problem import choose_problem
from evolution.redis_evaluator import RedisEvaluator

KEY = b"key"
PIECES = 400
GROUP_OF = np.repeat([2, 1], PIECES // 2)


def answer(*pieces: int, worker: str = "host-1234-5", **changed: Any) -> dict[str, Any]:
    rows = int(GROUP_OF[list(pieces)].sum())
    fitness = np.arange(rows, dtype=np.float32) + pieces[0]
    steps = np.full(rows, 1 + pieces[0], np.int32)
    sound = Rows(np.array(pieces, np.int32), fitness, steps, 0.5, 0.25, 0.125).to_fields()
    return {"task": 7, "run": "run", "worker": worker, **sound, **changed}


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[k], other[k]) for k in one)


ANSWERS = [answer(2 * i, 2 * i + 1, worker=f"host-1234-{i % 20}") for i in range(PIECES // 2)]


def test_merged_messages_are_the_same_messages() -> None:
    data = [pack(each, KEY) for each in ANSWERS]
    (one,) = merged(data, KEY)
    back = split(unpack(one, KEY))
    assert len(back) == len(ANSWERS)
    assert all(same(each, right) for each, right in zip(back, ANSWERS, strict=True))
    assert len(one) < sum(map(len, data)) / 3


def test_what_is_unlike_or_no_message_stays_as_it_is() -> None:
    alone = pack({"kind": "refusal", "reason": "no", "run": "run"}, KEY)
    other = pack(ANSWERS[2], b"another key")
    table = pack({"array": np.zeros((2, 2))}, KEY)
    large = pack(answer(*range(2)) | {"more": np.zeros(10_000)}, KEY)
    data = [alone, b"garbage", pack(ANSWERS[0], KEY), other, table, large, pack(ANSWERS[1], KEY)]
    *rest, one = merged(data, KEY)
    assert rest == [alone, b"garbage", other, table, large]
    assert [each["pieces"].tolist() for each in split(unpack(one, KEY))] == [[0, 1], [2, 3]]
    (two,) = merged([one, pack(ANSWERS[2], KEY)], KEY)  # by a relay of relays
    assert [e["pieces"].tolist() for e in split(unpack(two, KEY))] == [[0, 1], [2, 3], [4, 5]]
    assert merged([], KEY) == []


@pytest.mark.parametrize(
    "change",
    [
        {"lengths": np.zeros((3, 4), np.int32)},
        {"lengths": np.zeros((2, 3), np.int32)},
        {"lengths": np.array([[2, 2, 2], [9, -3, 3], [3, 3, 3]], np.int32)},
        {"lengths": np.array(3)},
        {"lengths": None},
        {"merged": ["pieces", "fitness", "speed"]},
        {"merged": 5},
        {"merged": [["pieces"], 2, 3]},
        {"common": 5},
        {"common": {"a": 1}, "listed": {"worker": ["a"]}},
        {"listed": {"worker": "abc"}},
        {"listed": []},
        {".pieces": np.zeros(5, np.int32)},
        {".pieces": np.zeros((6, 1), np.int32)},
        {".pieces": "none"},
    ],
)
def test_what_is_badly_merged_is_refused(change: dict[str, Any]) -> None:
    good = merge([answer(0, 1), answer(2, 3), answer(4, 5)])
    assert len(split(good)) == 3
    with pytest.raises(MessageError, match="badly merged"):
        split(good | change)


@pytest.mark.parametrize("bad", [0, 1, 57, PIECES // 2 - 1])
@pytest.mark.parametrize(
    "change",
    [
        {"pieces": np.array([3, 2], np.int32)},
        {"pieces": np.array([0, PIECES], np.int32)},
        {"pieces": np.array([], np.int32)},
        {"pieces": np.array([0, 1])},
        {"fitness": np.zeros(1, np.float32)},
        {"fitness": np.array([np.nan] * 4, np.float32)},
        {"steps": np.array([1, 1, 0, 1], np.int32)},
        {"seconds": "long"},
        {"waited": -1.0},
        {"cpu_seconds": True},
    ],
)
def test_a_bad_answer_does_not_spoil_its_neighbours(bad: int, change: dict[str, Any]) -> None:
    answers = list(ANSWERS)
    answers[bad] = answers[bad] | change
    batches, errors = read_sound(answers, GROUP_OF)
    assert len(errors) == 1
    sound = [each for number, each in enumerate(ANSWERS) if number != bad]
    for name in ("pieces", "fitness", "steps"):
        got = np.concatenate([getattr(batch, name) for batch in batches])
        assert np.array_equal(got, np.concatenate([each[name] for each in sound]))
    assert [w for batch in batches for w in batch.workers] == [each["worker"] for each in sound]
    assert len(batches) <= 2 * np.ceil(np.log2(len(answers)))


def test_answers_are_told_apart_again() -> None:
    (batch,), _ = read_sound(ANSWERS, GROUP_OF)
    parts = np.split(batch.fitness, np.cumsum(batch.lengths)[:-1])
    for part, right in zip(parts, ANSWERS, strict=True):
        assert np.array_equal(part, right["fitness"])
    assert batch.counts.sum() == PIECES


def test_an_evaluation_moves_few_bytes(noise: NoiseTable, crew: Crew) -> None:
    """In and out of the head's server, at 10,000 candidates.

    Each of the two workers fetches the task, which has 8 bytes for a pair; so would two machines.
    """
    problem = choose_problem(env_name="Sphere-v0", policy_kwargs={"hidden_sizes": []})
    pairs, rng, db = 5000, np.random.default_rng(0), connect(crew.url)
    candidates = Mirrored(np.zeros(20, np.float32), 0.1, rng.integers(0, 199_000, pairs))
    task = [Part(candidates, rng.integers(0, 2**31, (pairs, 1)))]
    crew.start(2)
    with RedisEvaluator(db, problem, noise, run_id="1-12345678") as evaluator:
        evaluator.evaluate(task)  # fetches the run
        before = _moved(db)
        evaluator.evaluate(task)
        moved = _moved(db) - before
        assert moved < 40 * 2 * pairs, moved
        assert evaluator.metrics()["results skipped"] == 0


def _moved(db: redis.Redis) -> int:
    told: Any = db.info("stats")
    return int(told["total_net_input_bytes"] + told["total_net_output_bytes"])
