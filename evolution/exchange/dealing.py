"""Deals the pieces of tasks out to hands that each hold a few: how many, to whom, and again.

A *hand* is whoever evaluates: here it is only told apart from others. What a hand held when it was
lost, or failed at, is dealt again; what takes too long is dealt to an idle hand as well.
"""

import logging
import time
from collections import deque
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from evolution.exchange.gathering import Gathering
from evolution.exchange.lookout import (
    COPY_FACTOR,
    COPY_SECONDS,
    MOST_LOSSES,
    PATIENCE,
    WorkerFailure,
)

log = logging.getLogger(__name__)

SHARES = 2  # a hand is dealt 1/(SHARES·hands) of what is left: large first, small at the end
IN_FLIGHT = 2  # lots that a hand holds at most: the next is there when one is done
ATTEMPTS = 3  # at a piece that fails, by several hands if there are


@dataclass(eq=False)
class Lot:
    """Pieces of a task that are dealt together."""

    task: Gathering
    pieces: np.ndarray  # int32[n], ascending
    not_for: Hashable = None  # the hand that has failed at them
    dealt: float = 0.0  # on time.monotonic()
    copies: int = 0  # that others have been dealt meanwhile


@dataclass(eq=False)
class Hand:
    """What a hand is known to hold, oldest first, and how fast it is."""

    key: Hashable
    lots: list[Lot] = field(default_factory=list)
    seconds_per_piece: float | None = None  # of its last lot


@dataclass(eq=False)
class _Stack:
    """The pieces of a task that nobody has been dealt yet."""

    task: Gathering
    pieces: deque[int]


class Dealer:
    """Who holds which pieces. It looks at the clock, and at nothing else outside."""

    def __init__(self, min_seconds: float) -> None:
        """Nothing to deal yet.

        Args:
            min_seconds: a hand is dealt so much work at a time, if there is.
        """
        self._min_seconds, self._longest = min_seconds, float("inf")
        self._stacks = deque[_Stack]()  # oldest task first
        self._live: list[Gathering] = []  # tasks of which pieces are missing still
        self._again = deque[Lot]()
        self._usual = 0.0  # seconds of a lot, in the last task
        self.hands: dict[Hashable, Hand] = {}

    # --- tasks

    def add(self, task: Gathering, order: Iterable[int]) -> None:
        """A task whose pieces are to be dealt in an order."""
        self._live.append(task)
        self._stacks.append(_Stack(task, deque(order)))

    def ended(self, task: Gathering) -> None:
        """A task is complete; remember how long its lots took."""
        self._live.remove(task)
        self._longest = task.elapsed
        if task.batches:
            self._usual = float(np.quantile(task.batches, 0.9))

    def discard(self) -> None:
        """Nothing has to be dealt any more; what hands hold is theirs to end."""
        self._live.clear()
        self._stacks.clear()

    # --- hands

    def join(self, key: Hashable) -> None:
        """A hand that can be dealt to."""
        self.hands[key] = Hand(key)

    def leave(self, key: Hashable) -> int:
        """A hand is lost with all that it held; returns how many pieces are dealt again.

        Raises:
            WorkerFailure: a piece has been lost so often that it is no accident.
        """
        lots = self.hands.pop(key).lots
        for number, lot in enumerate(lots):
            if number == 0:  # at which it was
                self._count_attempts(lot, MOST_LOSSES, "it may end the workers that evaluate it")
            self._deal_again(lot)
        return sum(len(lot.pieces) for lot in lots)

    def done(self, key: Hashable, lot: Lot, seconds: float) -> None:
        """A hand has answered; what is missing nevertheless is dealt again.

        Args:
            seconds: that it took.
        """
        self._drop(key, lot)
        hand = self.hands.get(key)
        if hand is not None:
            hand.seconds_per_piece = max(seconds / len(lot.pieces), 1e-6)
        if self._missing(lot):
            self._count_attempts(lot, MOST_LOSSES, "its answer was unsound")
            self._deal_again(lot)

    def failed(self, key: Hashable, lot: Lot, reason: str) -> None:
        """A hand could not evaluate a lot: others are to try.

        Raises:
            WorkerFailure: so did several; with the reason.
        """
        self._drop(key, lot)
        self._count_attempts(lot, ATTEMPTS - 1, reason, say=reason)
        self._deal_again(lot, not_for=key)

    def _drop(self, key: Hashable, lot: Lot) -> None:
        hand = self.hands.get(key)
        if hand is not None:
            hand.lots.remove(lot)

    def _count_attempts(self, lot: Lot, most: int, why: str, say: str = "") -> None:
        task = lot.task
        for piece in self._missing(lot):
            task.attempts[piece] = task.attempts.get(piece, 0) + 1
            if task.attempts[piece] > most:
                raise WorkerFailure(
                    say or f"piece {piece} of task {task.number} was lost {most} times: {why}"
                )

    def _deal_again(self, lot: Lot, not_for: Hashable = None) -> None:
        if missing := self._missing(lot):
            self._again.append(Lot(lot.task, np.array(missing, np.int32), not_for))

    # --- dealing

    def next_lot(self, key: Hashable) -> Lot | None:
        """What a hand is to evaluate now; None: it holds enough, or there is nothing.

        The lot is the hand's from now on.
        """
        hand = self.hands[key]
        if len(hand.lots) >= IN_FLIGHT:
            return None
        lot = self._repeated(key) or self._fresh(hand)
        if lot is not None:
            lot.dealt = time.monotonic()
            hand.lots.append(lot)
        return lot

    def _repeated(self, key: Hashable) -> Lot | None:
        """What was lost or failed, if that is for this hand."""
        for _ in range(len(self._again)):
            lot = self._again.popleft()
            missing = self._missing(lot)  # a copy may have been answered meanwhile
            if missing and (lot.not_for != key or len(self.hands) == 1):
                lot.pieces = np.array(missing, np.int32)
                return lot
            if missing:
                self._again.append(lot)
        return None

    def _fresh(self, hand: Hand) -> Lot | None:
        while self._stacks and not self._stacks[0].pieces:
            self._stacks.popleft()
        if not self._stacks:
            return None
        stack, left = self._stacks[0], sum(len(each.pieces) for each in self._stacks)
        size = self._size(hand, len(stack.pieces))
        if hand.lots and left < size * len(self.hands):
            return None  # near the end, what one hand holds in reserve another would wait for
        chosen = sorted(stack.pieces.popleft() for _ in range(min(size, len(stack.pieces))))
        return Lot(stack.task, np.array(chosen, np.int32))

    def _size(self, hand: Hand, left: int) -> int:
        """How many of the pieces that are left a hand is dealt at a time."""
        share = -(-left // (SHARES * len(self.hands)))
        if hand.seconds_per_piece is None:  # the first time nobody knows how long it takes
            return share
        least = round(self._min_seconds / hand.seconds_per_piece)
        longest = max(self._longest / SHARES, self._min_seconds)
        most = max(min(longest / hand.seconds_per_piece, left), 1)
        return max(1, min(max(share, least), round(most)))

    def copy_lingering(self) -> int:
        """Have idle hands do what takes others too long as well; returns how many pieces."""
        idle = [hand for hand in self.hands.values() if not hand.lots]
        if not idle or self._again or any(stack.pieces for stack in self._stacks):
            return 0
        now, copied = time.monotonic(), 0
        lingering = sorted(self._lingering(now), key=lambda each: each[1].dealt)
        for (owner, lot), _ in zip(lingering, idle, strict=False):
            lot.copies += 1
            self._deal_again(lot, not_for=owner)
            copied += len(lot.pieces)
        return copied

    def _lingering(self, now: float) -> Sequence[tuple[Hashable, Lot]]:
        grace = max(COPY_SECONDS, COPY_FACTOR * (self._usual or PATIENCE))
        return [
            (hand.key, lot)
            for hand in self.hands.values()
            for lot in hand.lots[:1]
            if now - lot.dealt >= grace * 2**lot.copies and self._missing(lot)
        ]

    def _missing(self, lot: Lot) -> list[int]:
        """The pieces of a lot that nobody has answered yet, if anybody waits for them."""
        if lot.task not in self._live:
            return []
        return np.intersect1d(lot.pieces, lot.task.awaited_pieces()).tolist()
