"""What a worker takes to know what it is to do."""

import pytest

from cluster.tickets import Ticket, cut, parse_ticket


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
