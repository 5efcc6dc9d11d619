"""What heads and workers say to each other through a real server."""

import json
import os
import socket
from typing import Any

import numpy as np
import pytest
import redis
from conftest import FORK

from cluster.clients import (
    AnotherHeadError,
    HeadClient,
    Keys,
    WorkerClient,
    flush,
    head_status,
    parse_ticket,
    workers_alive,
)
from cluster.redis_server import Server, connect
from cluster.wire import MessageError, pack

KEYS = Keys()


@pytest.fixture
def db(server: Server) -> redis.Redis:
    return connect(server.url)


@pytest.fixture
def head(db: redis.Redis) -> HeadClient:
    made = HeadClient(db, "run-1", KEYS)
    made.lead()
    made.post_run({"what": "to set up"})
    return made


@pytest.fixture
def worker(db: redis.Redis) -> WorkerClient:
    return WorkerClient(db, "w", KEYS)


# --- who leads


def test_a_second_head_is_refused_as_long_as_the_first_lives(db: redis.Redis) -> None:
    HeadClient(db, "first", KEYS).lead()
    with pytest.raises(AnotherHeadError, match=rf"run first .* \(process {os.getpid()} on"):
        HeadClient(db, "second", KEYS).lead()
    assert (head_status(db, KEYS) or {})["run"] == "first"


def test_the_place_of_a_dead_head_is_taken_and_tidied(db: redis.Redis, server: Server) -> None:
    def lead_and_die() -> None:
        client = HeadClient(connect(server.url), "dead", KEYS)
        client.lead()
        client.post_run({})
        client.post_task(0, {}, 5)
        WorkerClient(connect(server.url), "w", KEYS).push("dead", {})
        os._exit(9)

    process = FORK.Process(target=lead_and_die)
    process.start()
    process.join()
    assert db.llen(KEYS.tickets) == 5
    HeadClient(db, "next", KEYS).lead()
    assert (head_status(db, KEYS) or {})["run"] == "next"
    left = {KEYS.tickets, KEYS.task("dead"), KEYS.results("dead")}
    assert not any(db.exists(key) for key in left)


def test_a_silent_head_on_another_machine_is_waited_out(db: redis.Redis) -> None:
    """One cannot ask another machine whether a process lives; its word expires."""
    other = b'{"host": "elsewhere", "pid": 1, "run": "theirs", "generation": 3, "rate": 0.5}'
    db.set(KEYS.head, other, px=300)
    HeadClient(db, "mine", KEYS).lead()
    assert (head_status(db, KEYS) or {})["run"] == "mine"


@pytest.mark.parametrize(
    "nonsense",
    [b"", b"\xff\xfe", b"{", b"[1]", b"null", b'{"host": "h"}', b"[" * 100_000],
)
def test_nonsense_in_the_place_of_a_statement_is_passed_over(
    nonsense: bytes, db: redis.Redis, worker: WorkerClient
) -> None:
    worker.beat("run-1")
    db.set(KEYS.worker("x"), nonsense)
    assert [said["name"] for said in workers_alive(db, KEYS)] == ["w"]
    db.set(KEYS.head, nonsense)
    assert head_status(db, KEYS) is None
    HeadClient(db, "mine", KEYS).lead()
    assert (head_status(db, KEYS) or {})["run"] == "mine"


def test_a_head_with_an_impossible_process_number_is_gone(db: redis.Redis) -> None:
    said = {"host": socket.gethostname(), "pid": 1 << 70, "run": "x", "generation": 0, "rate": 0.0}
    db.set(KEYS.head, json.dumps(said))
    HeadClient(db, "mine", KEYS).lead()
    assert (head_status(db, KEYS) or {})["run"] == "mine"


def test_a_heads_word_expires_unless_it_beats(db: redis.Redis, head: HeadClient) -> None:
    assert 0 < db.ttl(KEYS.head) <= 6
    db.pexpire(KEYS.head, 100)
    head.beat(17, 250.0)
    assert db.pttl(KEYS.head) > 5000
    status = head_status(db, KEYS)
    assert status is not None
    assert (status["generation"], status["rate"], status["run"]) == (17, 250.0, "run-1")
    assert (status["host"], status["pid"]) == (socket.gethostname(), os.getpid())


def test_a_head_leaves_nothing_behind(
    db: redis.Redis, head: HeadClient, worker: WorkerClient
) -> None:
    head.post_task(0, {}, 3)
    worker.push("run-1", {})
    head.close()
    assert db.keys() == []
    assert head_status(db, KEYS) is None


# --- runs, tasks and tickets


def test_every_piece_has_one_ticket(head: HeadClient, worker: WorkerClient) -> None:
    head.post_task(4, {"a": 1}, 3)
    assert [worker.take(1) for _ in range(3)] == [("run-1", 4, piece) for piece in range(3)]
    assert worker.take(0.01) is None
    assert head.tickets_left() == 0


def test_a_new_task_replaces_the_old_one_and_its_tickets(
    head: HeadClient, worker: WorkerClient
) -> None:
    head.post_task(0, {"a": np.arange(3)}, 3)
    head.post_task(1, {"a": np.arange(4)}, 2)
    assert head.tickets_left() == 2
    assert worker.take(1) == ("run-1", 1, 0)
    assert worker.task("run-1", 0) is None
    task = worker.task("run-1", 1)
    assert task is not None
    assert task["a"].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("left", "asked", "taken"),
    [
        (10, (4, 0), 2),
        (10, (4, 5), 5),
        (10, (1, 0), 10),
        (10, (11, 0), 0),
        (3, (2, 100), 3),
        (0, (1, 4), 0),
    ],
)
def test_a_worker_takes_its_share_or_at_least_so_many(
    left: int, asked: tuple[int, int], taken: int, head: HeadClient, worker: WorkerClient
) -> None:
    head.post_task(0, {}, left + 1)
    worker.take(1)
    assert worker.take_more("run-1", 0, *asked) == list(range(1, taken + 1))
    assert head.tickets_left() == left - taken


def test_a071_a_worker_that_is_behind_leaves_newer_tickets_to_others(
    db: redis.Redis, head: HeadClient, worker: WorkerClient
) -> None:
    head.post_task(0, {}, 1)
    worker.take(1)
    head.post_task(1, {}, 3)
    assert worker.take_more("run-1", 0, 1, 0) == []
    assert worker.take_more("run-0", 1, 1, 2) == []
    assert [worker.take(1) for _ in range(3)] == [("run-1", 1, piece) for piece in range(3)]


def test_garbage_among_the_tickets_is_dropped(
    db: redis.Redis, head: HeadClient, worker: WorkerClient
) -> None:
    head.post_task(0, {}, 1)
    db.rpush(KEYS.tickets, b"\xff\x00garbage", "run-1/0#7", b"no ticket")
    worker.take(1)
    assert worker.take_more("run-1", 0, 1, 0) == [7]
    db.rpush(KEYS.tickets, b"no ticket")
    assert worker.take(1) is None
    assert head.tickets_left() == 0


def test_a_ticket_that_is_given_back_is_the_next_to_be_taken(
    head: HeadClient, worker: WorkerClient
) -> None:
    head.post_task(0, {}, 3)
    ticket = worker.take(1)
    assert ticket == ("run-1", 0, 0)
    worker.give_back(*ticket)
    assert head.tickets_left() == 3
    assert worker.take(1) == ticket


def test_a_repost_restores_what_was_flushed(
    db: redis.Redis, head: HeadClient, worker: WorkerClient
) -> None:
    head.post_task(2, {"a": 1}, 9)
    flush(db, KEYS)
    assert worker.take(0.01) is None
    assert worker.run_spec("run-1") is None
    head.repost(2, [3, 8])
    assert [worker.take(1), worker.take(1)] == [("run-1", 2, 3), ("run-1", 2, 8)]
    assert worker.run_spec("run-1") == {"run": "run-1", "what": "to set up"}
    assert worker.task("run-1", 2) == {"run": "run-1", "task": 2, "a": 1}


def test_of_another_run_or_task_there_is_nothing(head: HeadClient, worker: WorkerClient) -> None:
    head.post_task(0, {}, 1)
    assert worker.run_spec("run-2") is None
    assert worker.task("run-1", 1) is None
    assert worker.task("run-2", 0) is None


def test_garbage_in_place_of_a_run_or_task_is_nothing(
    db: redis.Redis, head: HeadClient, worker: WorkerClient
) -> None:
    head.post_task(0, {}, 1)
    for garbage in (b"", b"garbage", pack({"run": "run-1", "task": 0})[:-1]):
        db.set(KEYS.run, garbage)
        db.set(KEYS.task("run-1"), garbage)
        assert worker.run_spec("run-1") is None
        assert worker.task("run-1", 0) is None


@pytest.mark.parametrize(
    ("data", "ticket"),
    [
        (b"run-1.x_y/12#345", ("run-1.x_y", 12, 345)),
        (b"run/0#0", ("run", 0, 0)),
        (b"run/0#0\n", None),
        (b"run/-1#0", None),
        (b"run/1#", None),
        (b"/1#1", None),
        (b"a/b/1#1", None),
        (b"run/1#1#1", None),
        (b"run/1#" + b"9" * 16, None),
        (b"", None),
        (b"\xff/1#1", None),
    ],
)
def test_what_is_a_ticket(data: bytes, ticket: Any) -> None:
    assert parse_ticket(data) == ticket


# --- results


def test_results_come_in_order_bad_ones_as_errors(
    db: redis.Redis, head: HeadClient, worker: WorkerClient
) -> None:
    worker.push("run-1", {"n": 1})
    db.rpush(KEYS.results("run-1"), b"garbage", b"")
    worker.push("run-1", {"n": 2, "a": np.arange(2)})
    worker.push("run-2", {"n": 3})
    got = head.results(0.01)
    first, bad, empty, second = (next(got) for _ in range(4))
    assert first == {"n": 1, "run": "run-1", "worker": "w"}
    assert isinstance(bad, MessageError)
    assert isinstance(empty, MessageError)
    assert isinstance(second, dict)
    assert second["n"] == 2
    assert next(got) is None
    worker.push("run-1", {"n": 4})
    assert (next(got) or {})["n"] == 4  # type: ignore[index]


def test_results_that_nobody_reads_expire(db: redis.Redis, worker: WorkerClient) -> None:
    worker.push("lost", {})
    assert 0 < db.ttl(KEYS.results("lost")) <= 3600


# --- workers, groups and other people's keys


def test_workers_are_known_while_they_beat(db: redis.Redis, worker: WorkerClient) -> None:
    assert workers_alive(db, KEYS) == []
    WorkerClient(db, "a", KEYS).beat("")
    worker.beat("run-1")
    who = {"host": socket.gethostname(), "pid": os.getpid()}
    assert workers_alive(db, KEYS) == [
        {"name": "a", "doing": "", **who},
        {"name": "w", "doing": "run-1", **who},
    ]
    assert 0 < db.ttl(KEYS.worker("w")) <= 6
    worker.leave()
    assert [each["name"] for each in workers_alive(db, KEYS)] == ["a"]


def test_a072_flush_deletes_our_keys_and_no_others(
    db: redis.Redis, head: HeadClient, worker: WorkerClient
) -> None:
    head.post_task(0, {}, 2)
    worker.push("run-1", {})
    worker.beat("")
    others = {b"es:exp", b"evolution", b"evo:other:tickets", b"evo:default", b"evo:default2:run"}
    db.mset(dict.fromkeys(others, "theirs"))
    ours = {KEYS.head, KEYS.run, KEYS.tickets, KEYS.task("run-1"), KEYS.results("run-1")}
    assert flush(db, KEYS) == sorted(ours | {KEYS.worker("w")})
    assert set(db.keys()) == others
    assert flush(db, KEYS) == []


def test_a075_groups_on_one_server_do_not_meet(db: redis.Redis, head: HeadClient) -> None:
    other = HeadClient(db, "run-2", Keys("other"))
    other.lead()
    other.post_run({})
    other.post_task(0, {}, 4)
    head.post_task(0, {}, 1)
    one, two = WorkerClient(db, "a", KEYS), WorkerClient(db, "a", Keys("other"))
    two.beat("")
    assert workers_alive(db, KEYS) == []
    assert one.take(1) == ("run-1", 0, 0)
    assert one.take(0.01) is None
    assert one.run_spec("run-2") is None
    assert two.take(1) == ("run-2", 0, 0)
    head.close()
    assert other.tickets_left() == 3
    assert (head_status(db, Keys("other")) or {})["run"] == "run-2"


@pytest.mark.parametrize("group", ["", "a b", "a:b", "*", "x" * 65])
def test_group_names_are_plain(group: str) -> None:
    with pytest.raises(ValueError, match="group="):
        Keys(group)
