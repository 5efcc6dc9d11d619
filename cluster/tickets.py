"""Tickets: what a worker takes to know which pieces of which task it is to evaluate."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

MOST_PIECES = 1 << 20  # of a ticket

_FORM = re.compile(rb"([\w.-]{1,100})/(\d{1,15})#(\d{1,15})\+(\d{1,7})(?:!([\w.:-]{1,200}))?")


@dataclass(frozen=True)
class Ticket:
    """Pieces ``first`` to ``first + count - 1`` of a task of a run."""

    run: str
    task: int
    first: int
    count: int = 1
    not_for: str = ""  # the name of a worker who is to leave it to others

    @property
    def pieces(self) -> range:
        return range(self.first, self.first + self.count)

    def encode(self) -> str:
        """As it lies in the list."""
        others = f"!{self.not_for}" if self.not_for else ""
        return f"{self.run}/{self.task}#{self.first}+{self.count}{others}"


def parse_ticket(data: bytes) -> Ticket | None:
    """What ``encode`` wrote; None for anything that is no ticket."""
    match = _FORM.fullmatch(data)
    if match is None or not 1 <= int(match[4]) <= MOST_PIECES:
        return None
    run, other = match[1].decode(), (match[5] or b"").decode()
    return Ticket(run, int(match[2]), int(match[3]), int(match[4]), other)


def cut(run: str, task: int, pieces: Iterable[int], size: int, not_for: str = "") -> list[Ticket]:
    """Tickets for these pieces, at most ``size`` neighbours on each.

    Args:
        pieces: ascending numbers.
    """
    tickets: list[Ticket] = []
    first = count = 0
    for piece in pieces:
        if count and (piece != first + count or count == size):
            tickets.append(Ticket(run, task, first, count, not_for))
            count = 0
        if not count:
            first = piece
        count += 1
    return [*tickets, Ticket(run, task, first, count, not_for)] if count else tickets


def encoded(tickets: Sequence[Ticket]) -> list[str]:
    """As they lie in the list."""
    return [ticket.encode() for ticket in tickets]
