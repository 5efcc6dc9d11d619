"""Bytes that nobody of ours has sent: never a crash, and nothing accepted that should not be."""

import functools
import itertools
import json
import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import redis
from conftest import Crew
from fuzzing import (
    GROUP_OF,
    KEY,
    PIECES,
    STEPS,
    answer,
    changed,
    damaged,
    deep,
    fitness_of,
    fuzz,
    json_values,
    junk,
    sound_pieces,
    unsound,
    words,
)
from hypothesis import given
from hypothesis import strategies as some
from test_wire import framed

from cluster.keys import Keys, head_statement, worker_statement
from cluster.merging import merge, split
from cluster.redis_server import connect
from cluster.tickets import MOST_PIECES, Ticket, parse_ticket
from cluster.wire import MessageError, pack, unpack
from evolution import worker as worker_module
from evolution.evaluation import LocalEvaluator, Part
from evolution.exchange.batches import read_sound
from evolution.exchange.gathering import Gathering
from evolution.exchange.messages import Failure, run_spec, task_fields, task_parts
from evolution.noise import NoiseTable
from evolution.problem import Problem, choose_problem
from evolution.redis_evaluator import RedisEvaluator

pytestmark = pytest.mark.slow
KEYS = Keys()


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Nobody wants to read that many warnings."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


# --- the wire


@fuzz(0.2)
@given(damaged(pack(answer([0, 3, 7]), KEY)))
def test_damaged_messages_are_none(data: bytes) -> None:
    with pytest.raises(MessageError):
        unpack(data, KEY)


@fuzz(0.1)
@given(json_values, some.dictionaries(words, json_values, max_size=3), some.binary(max_size=40))
def test_any_header_that_is_well_signed(header: Any, described: Any, tail: bytes) -> None:
    for head in (header, [{"a": 1}, described], [header, described]):
        try:
            message = unpack(framed(head, tail))
        except MessageError:
            continue
        assert isinstance(message, dict)
        held = [each for each in message.values() if isinstance(each, np.ndarray)]
        assert sum(each.nbytes for each in held) == len(tail)
        try:
            parts = split(message)
        except MessageError:
            continue
        assert all(isinstance(part, dict) for part in parts)


@fuzz(0.02)
@given(deep, some.binary(max_size=8))
def test_deep_headers_do_no_harm(head: bytes, tail: bytes) -> None:
    with pytest.raises(MessageError):
        unpack(framed(head, tail))


MERGED = merge([answer([0, 3]), answer([1], "v"), answer([5, 6, 7])])


@fuzz(0.1)
@given(changed(MERGED))
def test_badly_merged_messages_stay_apart(changes: dict[str, Any]) -> None:
    try:
        parts = split({**MERGED, **changes})
    except MessageError:
        return
    assert all(isinstance(part, dict) for part in parts)
    sound, wrong = read_sound(parts, GROUP_OF)
    assert sum(len(batch) for batch in sound) + len(wrong) == len(parts)
    for batch in sound:
        _check_sound(batch.pieces, batch.counts, batch.lengths, batch.fitness, batch.steps)


def _check_sound(pieces: Any, counts: Any, lengths: Any, fitness: Any, steps: Any) -> None:
    """As said in other words than the code's."""
    numbers, rows = pieces.tolist(), 0
    for count, length in zip(counts.tolist(), lengths.tolist(), strict=True):
        own, numbers = numbers[:count], numbers[count:]
        assert own
        assert own == sorted(set(own) & set(PIECES))
        assert length == sum(GROUP_OF[own])
        rows += length
    assert not numbers
    assert fitness.dtype == np.float32
    assert steps.dtype == np.int32
    assert len(fitness) == len(steps) == rows
    assert all(np.isfinite(value) for value in fitness)
    assert all(step >= 1 for step in steps)


# --- small words


@fuzz(0.1)
@given(junk | some.from_regex(rb"[\w.]{1,4}/\d{1,17}#\d{1,17}\+\d{1,8}(!\w*)?", fullmatch=True))
def test_what_is_taken_for_a_ticket_is_one(data: bytes) -> None:
    ticket = parse_ticket(data)
    if ticket is not None:
        assert 1 <= ticket.count <= MOST_PIECES
        assert 0 <= ticket.first < 10**15 > ticket.task >= 0
        assert parse_ticket(ticket.encode().encode()) == ticket


SAID = {
    **{"host": "h", "pid": 1, "name": "w", "doing": "run", "workers": 2, "idle": 1},
    **{"holds": [[0, 0, 1]], "run": "r", "generation": 1, "rate": 0.5},
}


@fuzz(0.1)
@given(some.dictionaries(some.sampled_from(list(SAID)), json_values, max_size=2), junk)
def test_statements_are_what_they_should_be_or_nothing(changes: dict, data: bytes) -> None:
    for each in (data, json.dumps({**SAID, **changes}).encode(), json.dumps(changes).encode()):
        said = worker_statement(each)
        if said is not None:
            assert 0 <= said["idle"] <= said["workers"]
            assert all(len(held) == 3 and min(held) >= 0 for held in said["holds"])
            assert all(isinstance(said[name], str) for name in ("host", "name", "doing"))
        head = head_statement(each)
        if head is not None:
            assert isinstance(head["run"], str)
            assert type(head["pid"]) is type(head["generation"]) is int


# --- the head and its answers


@fuzz(0.05)
@given(unsound(), sound_pieces)
def test_unsound_answers_are_none(message: dict[str, Any], pieces: list[int]) -> None:
    said = {name: repr(message[name]) for name in ("run", "worker", "task", "kind")}
    if said.items() <= {name: repr(value) for name, value in answer([0]).items()}.items():
        sound, wrong = read_sound([answer(pieces), message, answer(pieces)], GROUP_OF)
        assert sum(len(batch) for batch in sound) == 2
        assert len(wrong) == 1
    elif message["kind"] == "failure":
        with pytest.raises(MessageError):
            Failure.from_fields(message, GROUP_OF)


@pytest.fixture
def problem() -> Problem:
    return choose_problem(env_name="Sphere-v0", policy_kwargs={"hidden_sizes": []})


class Head:
    """A real one at a real server, waiting for the answers to a task of 12 pieces."""

    def __init__(self, db: redis.Redis, problem: Problem, noise: NoiseTable, task: list[Part]):
        self.evaluator = RedisEvaluator(db, problem, noise, run_id="run")
        self._task, spec = task, unpack(db.get(KEYS.run) or b"")  # type: ignore[arg-type]
        self.key = bytes.fromhex(spec["key"])

    def hear(self, data: list[bytes]) -> tuple[Gathering, int]:
        """A new task, and what has become of it; how many messages were rejected."""
        head = self.evaluator
        head._number = 0
        head.submit(self._task)
        before = head._counts.rejected
        head._accept(data)
        (gathering,) = head._tasks
        head.discard()
        head._ended.clear()
        return gathering, head._counts.rejected - before


@pytest.fixture
def head(
    crew: Crew, problem: Problem, noise: NoiseTable, make_task: Callable[..., list[Part]]
) -> Iterator[Head]:
    task = make_task(problem.make_policy().num_params, 0, noise)
    made = Head(connect(crew.url), problem, noise, task)
    with made.evaluator:
        yield made


def test_a077_the_head_believes_sound_answers_alone(head: Head) -> None:
    sign = functools.partial(pack, key=head.key)
    sound = sound_pieces.map(answer)
    message = some.one_of(
        sound.map(lambda m: (m["pieces"].tolist(), 0, sign(m))),
        some.lists(sound, min_size=2, max_size=3).map(
            lambda ms: ([p for m in ms for p in m["pieces"].tolist()], 0, sign(merge(ms)))
        ),
        unsound().map(lambda m: ([], 1, sign(m))),
        damaged(sign(answer([1, 8]))).map(lambda data: ([], 1, data)),
        sound_pieces.map(lambda p: ([], 1, pack(answer(p), KEY))),
    )

    @fuzz(0.1)
    @given(some.lists(message, min_size=1, max_size=4))
    def hear(messages: list[tuple[list[int], int, bytes]]) -> None:
        gathering, rejected = head.hear([data for _, _, data in messages])
        believed = sorted({piece for pieces, _, _ in messages for piece in pieces})
        assert sorted(set(PIECES) - set(gathering.awaited_pieces().tolist())) == believed
        assert rejected == sum(bad for _, bad, _ in messages)
        rows = gathering.layout.rows(np.array(believed, np.int64))
        assert gathering._fitness[rows].tobytes() == fitness_of(believed).tobytes()
        assert (gathering._steps[rows] == STEPS).all()

    hear()


# --- the worker and its tasks


def test_tasks_are_sound_or_none(noise: NoiseTable, make_task: Callable[..., list[Part]]) -> None:
    fields = task_fields(make_task(20, 0, noise), share=2, min_seconds=0.1, max_seconds=1.0)

    @fuzz(0.1)
    @given(changed(fields))
    def read(changes: dict[str, Any]) -> None:
        try:
            parts = task_parts({**fields, **changes})
        except MessageError:
            return
        for part in parts:
            assert part.env_seeds.ndim == 2
            assert len(part.env_seeds) * part.population.group == len(part.population)

    read()


NOT_HERE: list[dict[str, Any]] = [
    {"env": "nosuch:X-v0"},
    {"env": "json:X-v0"},
    {"env": "Nosuch-v0", "engine": "envpool"},
    {"env": "CartPole-v77"},
    {"network": "nosuch:Net"},
    {"network": "policy.base:Nosuch"},
    {"network": "json:loads"},
    {"network": "policy.torch_module:"},
    {"engine": "nosuch"},
    {"policy_kwargs": {"nosuch": 1}},
    {"policy_kwargs": {"hidden_sizes": [-1]}},
]


def test_a_worker_outlives_junk(
    crew: Crew,
    problem: Problem,
    noise: NoiseTable,
    make_task: Callable[..., list[Part]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker_module, "POLL_SECONDS", 0.001)
    crew.start(1)
    db = connect(crew.url)
    task = make_task(problem.make_policy().num_params, 0, noise)
    spec = {"key": KEY.hex(), **run_spec(problem, noise)}
    fields = task_fields(task, 2, 0.0, 1.0)
    count = itertools.count()
    inner = changed(spec["problem"], json_values) | some.sampled_from(NOT_HERE)
    one_changed = some.one_of(
        changed(spec).map(lambda changes: (changes, {}, {})),
        inner.map(lambda changes: ({}, changes, {})),
        changed(fields).map(lambda changes: ({}, {}, changes)),
    )

    @fuzz(0.1)
    @given(one_changed, junk, some.booleans())
    def annoy(changes: tuple[dict, dict, dict], garbage: bytes, raw: bool) -> None:
        outer, inner, wrong = changes
        run = f"junk-{next(count)}"
        posted = {**spec, "problem": {**spec["problem"], **inner}, **outer, "run": run}
        db.set(KEYS.run, garbage if raw else pack(posted))
        db.set(KEYS.task(run, 0), pack({"run": run, "task": 0, **fields, **wrong}, KEY), ex=60)
        db.rpush(KEYS.tickets, garbage, Ticket(run, 0, 11, 2).encode(), "the last")
        deadline = time.monotonic() + 20
        while db.llen(KEYS.tickets) and not db.llen(KEYS.results(run)):
            assert crew.processes[0].is_alive(), "a worker has died"
            assert time.monotonic() < deadline, "a worker takes no tickets any more"
        db.unlink(KEYS.run, KEYS.tickets, KEYS.results(run))

    annoy()
    with LocalEvaluator(problem, noise) as local:
        right = local.evaluate(task)
    with RedisEvaluator(db, problem, noise, run_id="run") as evaluator:
        got = evaluator.evaluate(task)
    assert [e.fitness.tobytes() for e in got] == [e.fitness.tobytes() for e in right]
    assert crew.processes[0].is_alive()
