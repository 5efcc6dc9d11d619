"""What heads and workers say to each other through a real server."""

import json
import os
import socket

import numpy as np
import pytest
import redis
from conftest import FORK

from cluster.clients import AnotherHeadError, HeadClient, WorkerClient
from cluster.keys import Keys, flush, head_status, worker_statement, workers_alive
from cluster.redis_server import Server, connect
from cluster.tickets import Ticket, cut
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
def worker(db: redis.Redis, head: HeadClient) -> WorkerClient:
    made = WorkerClient(db, "w", KEYS)
    assert made.run_spec("run-1") is not None
    return made


def post(head: HeadClient, number: int, pieces: int, payload: dict | None = None) -> None:
    """A task with one ticket for each of its pieces."""
    head.add_task(number, payload or {})
    head.post(number, cut("run-1", number, range(pieces), 1))


def ticket(task: int, first: int, count: int = 1) -> Ticket:
    return Ticket("run-1", task, first, count)


# --- who leads


def test_a_second_head_is_refused_as_long_as_the_first_lives(db: redis.Redis) -> None:
    HeadClient(db, "first", KEYS).lead()
    with pytest.raises(AnotherHeadError, match=rf"run first .* \(process {os.getpid()} on"):
        HeadClient(db, "second", KEYS).lead()
    assert (head_status(db, KEYS) or {})["run"] == "first"


@pytest.mark.parametrize("forgotten", [False, True])
def test_the_place_of_a_dead_head_is_taken_and_tidied(
    forgotten: bool, db: redis.Redis, server: Server
) -> None:
    def lead_and_die() -> None:
        client = HeadClient(connect(server.url), "dead", KEYS)
        client.lead()
        client.post_run({})
        client.add_task(0, {})
        client.post(0, cut("dead", 0, range(5), 1))
        worker = WorkerClient(connect(server.url), "w", KEYS)
        worker.run_spec("dead")
        worker.push("dead", {})
        os._exit(9)

    process = FORK.Process(target=lead_and_die)
    process.start()
    process.join()
    assert db.llen(KEYS.tickets) == 5
    if forgotten:  # it died long ago
        db.delete(KEYS.head)
    HeadClient(db, "next", KEYS).lead()
    assert (head_status(db, KEYS) or {})["run"] == "next"
    assert db.keys() == [KEYS.head.encode()]


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
    nonsense: bytes, db: redis.Redis
) -> None:
    WorkerClient(db, "w", KEYS).say("run-1")
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


def test_a_head_that_was_silent_too_long_yields(db: redis.Redis, head: HeadClient) -> None:
    db.delete(KEYS.head)
    HeadClient(db, "next", KEYS).lead()
    with pytest.raises(AnotherHeadError, match="run next"):
        head.beat(3, 1.0)
    assert (head_status(db, KEYS) or {})["run"] == "next"


def test_a_head_leaves_nothing_behind(
    db: redis.Redis, head: HeadClient, worker: WorkerClient
) -> None:
    post(head, 0, 3)
    post(head, 1, 3)
    worker.push("run-1", {})
    head.close()
    assert db.keys() == []
    assert head_status(db, KEYS) is None


# --- runs, tasks and tickets


def test_every_piece_has_one_ticket(head: HeadClient, worker: WorkerClient) -> None:
    post(head, 4, 3)
    assert head.next_ticket() == ticket(4, 0)
    assert [worker.take(1) for _ in range(3)] == [ticket(4, piece) for piece in range(3)]
    assert worker.take(0.01) is None
    assert head.next_ticket() is None


def test_several_tasks_are_there_until_each_ends(head: HeadClient, worker: WorkerClient) -> None:
    post(head, 0, 3, {"a": np.arange(3)})
    post(head, 1, 2, {"a": np.arange(4)})
    tasks = [worker.task("run-1", number) for number in (0, 1)]
    assert [task and task["a"].tolist() for task in tasks] == [[0, 1, 2], [0, 1, 2, 3]]
    head.end_task(0)
    assert worker.task("run-1", 0) is None
    assert worker.task("run-1", 1) is not None
    assert worker.take(1) == ticket(0, 0)
    head.forget_tickets()
    assert worker.take(0.01) is None


@pytest.mark.parametrize(
    ("left", "size", "asked", "taken"),  # how many tickets, of how many pieces
    [
        (10, 1, (4, 0, 99), 2),
        (10, 1, (4, 5, 99), 5),
        (10, 1, (1, 0, 99), 10),
        (10, 1, (11, 0, 99), 0),
        (3, 1, (2, 99, 99), 3),
        (0, 1, (1, 4, 99), 0),
        (10, 1, (1, 0, 4), 3),
        (10, 1, (1, 0, 1), 0),
        (10, 5, (4, 15, 99), 3),
        (10, 5, (1, 0, 14), 1),
    ],
)
def test_a_worker_takes_its_share_within_bounds(
    left: int, size: int, asked: tuple[int, int, int], taken: int, db: redis.Redis
) -> None:
    head, worker = HeadClient(db, "run-1", KEYS), WorkerClient(db, "w", KEYS)
    head.add_task(0, {})
    tickets = cut("run-1", 0, range(size * (left + 1)), size)
    head.post(0, tickets)
    assert worker.take(1) == tickets[0]
    assert worker.take_more(tickets[0], *asked) == tickets[1 : taken + 1]
    assert head.next_ticket() == (tickets[taken + 1] if taken < left else None)


def test_a071_a_worker_that_is_behind_leaves_newer_tickets_to_others(
    head: HeadClient, worker: WorkerClient
) -> None:
    post(head, 0, 1)
    first = worker.take(1)
    assert first is not None
    post(head, 1, 3)
    assert worker.take_more(first, 1, 0, 99) == []
    assert worker.take_more(Ticket("run-0", 1, 0), 1, 2, 99) == []
    assert [worker.take(1) for _ in range(3)] == [ticket(1, piece) for piece in range(3)]


def test_garbage_among_the_tickets_is_dropped(
    db: redis.Redis, head: HeadClient, worker: WorkerClient
) -> None:
    post(head, 0, 1)
    db.rpush(KEYS.tickets, b"\xff\x00garbage", "run-1/0#7+1", b"no ticket")
    first = worker.take(1)
    assert first is not None
    assert worker.take_more(first, 1, 0, 99) == [ticket(0, 7)]
    db.rpush(KEYS.tickets, b"no ticket")
    assert worker.take(1) is None
    db.rpush(KEYS.tickets, b"", b"no ticket", "run-9/0#0+1", "run-1/0#3+1")
    assert head.next_ticket() == ticket(0, 3)


def test_a_ticket_that_is_given_back_is_the_next_to_be_taken(
    head: HeadClient, worker: WorkerClient
) -> None:
    post(head, 0, 3)
    assert worker.take(1) == ticket(0, 0)
    worker.give_back(ticket(0, 0), ticket(0, 9))
    assert [worker.take(1) for _ in range(3)] == [ticket(0, 0), ticket(0, 9), ticket(0, 1)]


def test_a_ticket_for_others_is_left_to_them(
    db: redis.Redis, head: HeadClient, worker: WorkerClient
) -> None:
    post(head, 0, 1)
    first = worker.take(1)
    assert first is not None
    head.copy([Ticket("run-1", 0, 5, not_for="w"), Ticket("run-1", 0, 6)])
    assert worker.take(1) is None
    assert worker.take_more(first, 1, 0, 99) == [ticket(0, 6)]
    post(head, 1, 1)
    assert worker.take(1) is None
    assert worker.take(1) == ticket(1, 0)  # it is not the one for others that comes first again
    assert WorkerClient(db, "other", KEYS).take(1) == Ticket("run-1", 0, 5, not_for="w")


def test_what_was_flushed_is_posted_again_before_what_is_there(
    db: redis.Redis, head: HeadClient, worker: WorkerClient
) -> None:
    post(head, 2, 9, {"a": 1})
    post(head, 3, 9, {"a": 2})
    flush(db, KEYS)
    assert worker.take(0.01) is None
    assert worker.run_spec("run-1") is None
    db.rpush(KEYS.tickets, "run-1/3#0+1")
    head.repost([ticket(2, 3), ticket(2, 8, 2)])
    taken = [worker.take(1) for _ in range(3)]
    assert taken == [ticket(2, 3), ticket(2, 8, 2), ticket(3, 0)]
    spec = worker.run_spec("run-1")
    assert spec is not None
    assert spec["what"] == "to set up"
    assert worker.task("run-1", 2) == {"run": "run-1", "task": 2, "a": 1}
    assert worker.task("run-1", 3) == {"run": "run-1", "task": 3, "a": 2}


def test_of_another_run_or_task_there_is_nothing(
    db: redis.Redis, head: HeadClient, worker: WorkerClient
) -> None:
    post(head, 0, 1)
    assert worker.run_spec("run-2") is None
    assert worker.task("run-1", 1) is None
    assert worker.task("run-2", 0) is None
    assert WorkerClient(db, "new", KEYS).task("run-1", 0) is None  # it has not read the run


def test_garbage_in_place_of_a_run_or_task_is_nothing(
    db: redis.Redis, head: HeadClient, worker: WorkerClient
) -> None:
    post(head, 0, 1)
    sound = pack({"run": "run-1", "task": 0})
    for garbage in (b"", b"garbage", sound[:-1], sound, pack({"run": "run-1", "key": "short"})):
        db.set(KEYS.run, garbage)
        db.set(KEYS.task("run-1", 0), garbage)
        assert worker.run_spec("run-1") is None
        assert worker.task("run-1", 0) is None


# --- results


def test_results_come_in_order_and_only_those_of_the_run_are_read(
    db: redis.Redis, head: HeadClient, worker: WorkerClient
) -> None:
    worker.push("run-1", {"n": 1})
    db.rpush(KEYS.results("run-1"), b"garbage", b"", pack({"n": 9}))
    worker.push("run-1", {"n": 2, "a": np.arange(2)})
    first, *bad, last = head.results(0.01)
    assert head.read(first) == {"n": 1, "run": "run-1", "worker": "w"}
    assert len(bad) == 3
    for data in bad:
        with pytest.raises(MessageError):
            head.read(data)
    assert head.read(last)["n"] == 2
    assert head.results(0.01) == []
    worker.push("run-1", {"n": 4})
    assert [head.read(data)["n"] for data in head.results(1)] == [4]


def test_results_that_nobody_reads_expire(db: redis.Redis, worker: WorkerClient) -> None:
    worker.push("run-1", {})
    assert 0 < db.ttl(KEYS.results("run-1")) <= 3600


# --- workers, groups and other people's keys


def test_workers_are_known_while_they_speak(db: redis.Redis) -> None:
    assert workers_alive(db, KEYS) == []
    one, other = (WorkerClient(db, name, KEYS) for name in "wa")
    other.say("")
    one.say("run-1", [Ticket("run-1", 3, 4, 5)])
    who = {"host": socket.gethostname(), "pid": os.getpid(), "workers": 1}
    assert workers_alive(db, KEYS) == [
        {"name": "a", "doing": "", **who, "holds": [], "idle": 1},
        {"name": "w", "doing": "run-1", **who, "holds": [[3, 4, 5]], "idle": 0},
    ]
    assert 0 < db.ttl(KEYS.worker("w")) <= 3
    one.say("run-1", able=False)
    said = worker_statement(db.get(KEYS.worker("w")))
    assert said is not None
    assert (said["workers"], said["idle"]) == (0, 0)
    one.leave()
    assert [each["name"] for each in workers_alive(db, KEYS)] == ["a"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"workers": -1},
        {"idle": 2},
        {"idle": True},
        {"workers": 1 << 40, "idle": 1 << 40},
        {"holds": [[1, 2]]},
        {"holds": [[1, 2, -3]]},
        {"holds": [[1, 2, 1 << 70]]},
        {"holds": [[1, 2, 3.0]]},
        {"holds": {"a": 1}},
        {"name": None},
    ],
)
def test_an_impossible_statement_is_nonsense(wrong: dict, db: redis.Redis) -> None:
    WorkerClient(db, "w", KEYS).say("run-1", [ticket(1, 2)])
    said = json.loads(db.get(KEYS.worker("w")) or b"")
    assert worker_statement(json.dumps(said)) == said
    assert worker_statement(json.dumps(said | wrong)) is None


def test_a072_flush_deletes_our_keys_and_no_others(
    db: redis.Redis, head: HeadClient, worker: WorkerClient
) -> None:
    post(head, 0, 2)
    worker.push("run-1", {})
    worker.say("")
    others = {b"es:exp", b"evolution", b"evo:other:tickets", b"evo:default", b"evo:default2:run"}
    db.mset(dict.fromkeys(others, "theirs"))
    ours = {KEYS.head, KEYS.run, KEYS.tickets, KEYS.task("run-1", 0), KEYS.results("run-1")}
    assert flush(db, KEYS) == sorted(ours | {KEYS.worker("w")})
    assert set(db.keys()) == others
    assert flush(db, KEYS) == []


def test_a075_groups_on_one_server_do_not_meet(db: redis.Redis, head: HeadClient) -> None:
    other = HeadClient(db, "run-2", Keys("other"))
    other.lead()
    other.post_run({})
    other.add_task(0, {})
    other.post(0, cut("run-2", 0, range(4), 1))
    post(head, 0, 1)
    one, two = WorkerClient(db, "a", KEYS), WorkerClient(db, "a", Keys("other"))
    two.say("")
    assert workers_alive(db, KEYS) == []
    assert one.take(1) == ticket(0, 0)
    assert one.take(0.01) is None
    assert one.run_spec("run-2") is None
    assert two.take(1) == Ticket("run-2", 0, 0)
    head.close()
    assert other.next_ticket() == Ticket("run-2", 0, 1)
    assert (head_status(db, Keys("other")) or {})["run"] == "run-2"


@pytest.mark.parametrize("group", ["", "a b", "a:b", "*", "x" * 65, None])
def test_group_names_are_plain(group: str) -> None:
    with pytest.raises(ValueError, match="group="):
        Keys(group)
