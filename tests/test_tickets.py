"""What a worker takes to know what it is to do."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from cluster.clients import WorkerClient
from cluster.keys import Keys
from cluster.redis_server import Server, connect
from cluster.tickets import Ticket, cut, parse_ticket
from evolution.evaluation import Part
from evolution.exchange.messages import Rows
from evolution.noise import NoiseTable
from evolution.problem import choose_problem
from evolution.redis_evaluator import RedisEvaluator


@pytest.mark.parametrize(
    "ticket",
    [
        Ticket("run-1.x_y", 12, 345),
        Ticket("r", 0, 0, 1 << 20),
        Ticket("r", 10**14, 10**14, 7, "host.of-mine_1:2-77"),
    ],
)
def test_a_ticket_survives(ticket: Ticket) -> None:
    assert parse_ticket(ticket.encode().encode()) == ticket


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"run/0#0",
        b"run/0#0+0",
        b"run/0#0+1048577",
        b"run/0#0+1\n",
        b"run/-1#0+1",
        b"run/1#+1",
        b"/1#1+1",
        b"a/b/1#1+1",
        b"run/1#1#1+1",
        b"run/1#1+1!",
        b"run/1#1+1!a b",
        b"run/1#" + b"9" * 16 + b"+1",
        b"\xff/1#1+1",
        b"x" * 101 + b"/1#1+1",
    ],
)
def test_what_is_no_ticket(data: bytes) -> None:
    assert parse_ticket(data) is None


@pytest.mark.parametrize(
    ("pieces", "size", "expected"),
    [
        ([], 3, []),
        (range(7), 3, [(0, 3), (3, 3), (6, 1)]),
        (range(2), 3, [(0, 2)]),
        ([0, 1, 4, 5, 6, 7, 9], 3, [(0, 2), (4, 3), (7, 1), (9, 1)]),
        ([5, 6], 1, [(5, 1), (6, 1)]),
    ],
)
def test_neighbours_share_a_ticket(pieces: list, size: int, expected: list) -> None:
    tickets = cut("run", 8, pieces, size, "somebody")
    assert tickets == [Ticket("run", 8, *each, "somebody") for each in expected]
    assert [piece for ticket in tickets for piece in ticket.pieces] == list(pieces)


def test_what_took_long_is_handed_out_first(
    server: Server, noise: NoiseTable, make_task: Callable[..., list[Part]]
) -> None:
    """Parts of 5, 3 and 4 pieces, of 2, 1 and 1 candidates; the second took the most steps."""
    parts = zip(make_task(20, 0, noise), ("child", "elite", "theta"), strict=True)
    task, db = [replace(part, role=role) for part, role in parts], connect(server.url)
    problem = choose_problem(env_name="Sphere-v0", policy_kwargs={"hidden_sizes": []})
    steps = np.array([3] * 10 + [90] * 3 + [5] * 4, np.int32)
    pieces, fitness = np.arange(12, dtype=np.int32), np.zeros(17, np.float32)

    def posted() -> list[int]:
        tickets = [parse_ticket(each) for each in db.lrange(Keys().tickets, 0, -1)]  # type: ignore
        return [t.first + i for t in tickets if t is not None for i in range(t.count)]

    with RedisEvaluator(db, problem, noise, run_id="run") as evaluator:
        client = WorkerClient(db, "w", Keys())
        client.run_spec("run")
        evaluator.submit(task)
        assert posted() == list(range(12))
        client.push("run", {"task": 0, **Rows(pieces, fitness, steps, 1.0, 0.0, 1.0).to_fields()})
        evaluator.gather()
        db.delete(Keys().tickets)
        evaluator.submit(task)
        assert posted() == [5, 6, 7, 0, 1, 2, 3, 4, 8, 9, 10, 11]
