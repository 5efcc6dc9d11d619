"""Who is dealt which pieces: by time, fairly at the end, and again when they are lost."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest

from evolution.answers import Layout, PartShape
from evolution.exchange import dealing
from evolution.exchange.batches import Batch
from evolution.exchange.dealing import Dealer, Lot
from evolution.exchange.gathering import Gathering
from evolution.exchange.lookout import MOST_LOSSES, WorkerFailure


def a_task(pieces: int, number: int = 0) -> Gathering:
    return Gathering(number, [], Layout((PartShape("candidate", pieces, 2, 1),)), 1)


def a_dealer(task: Gathering, hands: int, min_seconds: float = 0.0) -> Dealer:
    dealer = Dealer(min_seconds)
    for hand in range(hands):
        dealer.join(hand)
    dealer.add(task, range(len(task.layout.group_of)))
    return dealer


def answer(dealer: Dealer, hand: int, lot: Lot, seconds: float = 1.0) -> None:
    """The hand has evaluated all of it."""
    rows, none = np.zeros(2 * len(lot.pieces), np.float32), np.zeros(1)
    counts, lengths = np.array([len(lot.pieces)]), np.array([len(rows)])
    times = np.array([seconds]), none, none
    steps = np.ones(len(rows), np.int32)
    lot.task.fill(Batch(["w"], counts, lengths, lot.pieces, rows, steps, *times), np.array([1]))
    dealer.done(hand, lot, seconds)


def test_all_pieces_are_dealt_once_in_lots_that_shrink() -> None:
    task = a_task(100)
    dealer, seen, sizes = a_dealer(task, 2), list[int](), list[int]()
    for hand in itertools.cycle([0, 1]):
        lot = dealer.next_lot(hand)
        if lot is None:
            break
        seen += lot.pieces.tolist()
        sizes.append(len(lot.pieces))
        answer(dealer, hand, lot, seconds=0.01 * len(lot.pieces))
    assert seen == list(range(100))
    assert sizes[0] == 25
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] == 1
    assert task.is_complete


@pytest.mark.parametrize(("seconds_per_piece", "size"), [(0.001, 50), (0.5, 5)])
def test_a_lot_lasts_as_long_as_was_asked(seconds_per_piece: float, size: int) -> None:
    """Or as long as its share, here 5 of 10,000 pieces, if that is longer."""
    dealer = a_dealer(a_task(10_000), 1000, min_seconds=0.05)
    first = dealer.next_lot(0)
    assert first is not None
    answer(dealer, 0, first, seconds=len(first.pieces) * seconds_per_piece)
    second = dealer.next_lot(0)
    assert second is not None
    assert len(second.pieces) == size


def test_no_lot_is_longer_than_a_part_of_the_task_before() -> None:
    first, second = a_task(8), a_task(1000, number=1)
    dealer = a_dealer(first, 1)
    while lot := dealer.next_lot(0):
        answer(dealer, 0, lot, seconds=len(lot.pieces))
    first._started -= 20  # it took so long
    dealer.ended(first)
    dealer.add(second, range(1000))
    lot = dealer.next_lot(0)
    assert lot is not None
    assert len(lot.pieces) == 10


def test_a_hand_holds_one_lot_in_reserve_but_not_near_the_end() -> None:
    dealer = a_dealer(a_task(100), 2)
    lots = [dealer.next_lot(0) for _ in range(3)]
    assert [lot is not None for lot in lots] == [True, True, False]
    small = a_dealer(a_task(2), 2)
    assert small.next_lot(0) is not None
    assert small.next_lot(0) is None
    assert small.next_lot(1) is not None


def test_an_older_task_is_dealt_first_whoever_asks() -> None:
    dealer = a_dealer(a_task(4), 2)
    dealer.add(a_task(4, number=1), range(4))
    dealt = [dealer.next_lot(hand) for hand in (0, 1, 0, 1)]
    assert [lot.task.number for lot in dealt if lot] == [0, 0, 0, 0]


def test_what_a_lost_hand_held_is_dealt_to_others() -> None:
    task = a_task(20)
    dealer = a_dealer(task, 2)
    lost = [dealer.next_lot(0), dealer.next_lot(0)]
    held = {piece for lot in lost if lot for piece in lot.pieces.tolist()}
    assert dealer.leave(0) == len(held) > 1
    seen = set[int]()
    while lot := dealer.next_lot(1):
        seen |= set(lot.pieces.tolist())
        answer(dealer, 1, lot)
    assert seen == set(range(20))
    assert task.is_complete


def test_a_piece_that_ends_every_worker_is_given_up() -> None:
    task = a_task(1)
    dealer = a_dealer(task, 1)
    for hand in range(MOST_LOSSES):
        assert dealer.next_lot(hand) is not None
        dealer.leave(hand)
        dealer.join(hand + 1)
    assert dealer.next_lot(MOST_LOSSES) is not None
    with pytest.raises(WorkerFailure, match="piece 0 of task 0 was lost 10 times: it may end"):
        dealer.leave(MOST_LOSSES)


def test_others_try_what_fails_and_then_it_is_told_in_the_workers_words() -> None:
    dealer = a_dealer(a_task(1), 2)
    lot = dealer.next_lot(0)
    assert lot is not None
    dealer.failed(0, lot, "worker a: broken")
    assert dealer.next_lot(0) is None
    lot = dealer.next_lot(1)
    assert lot is not None
    dealer.failed(1, lot, "worker b: broken")
    lot = dealer.next_lot(0)
    assert lot is not None
    with pytest.raises(WorkerFailure, match=r"^worker a: broken$"):
        dealer.failed(0, lot, "worker a: broken")


def test_an_answer_that_lacks_something_is_asked_again() -> None:
    dealer = a_dealer(a_task(4), 1)
    lot = dealer.next_lot(0)
    assert lot is not None
    dealer.done(0, lot, 1.0)
    again = dealer.next_lot(0)
    assert again is not None
    assert again.pieces.tolist() == lot.pieces.tolist()


def test_nothing_of_a_task_that_was_discarded_is_dealt_again() -> None:
    dealer = a_dealer(a_task(4), 2)
    lot = dealer.next_lot(0)
    assert lot is not None
    dealer.discard()
    dealer.leave(0)
    assert dealer.next_lot(1) is None


def test_an_idle_hand_gets_a_copy_of_what_lingers(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(dealing, "time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(dealing, "PATIENCE", 10.0)
    task = a_task(2)
    dealer = a_dealer(task, 2)
    lingers, done = dealer.next_lot(0), dealer.next_lot(1)
    assert lingers is not None
    assert done is not None
    now += 29
    assert dealer.copy_lingering() == 0  # nobody is idle
    answer(dealer, 1, done)
    assert dealer.copy_lingering() == 0  # it is not late yet
    now += 2
    assert dealer.copy_lingering() == 1
    assert dealer.next_lot(0) is None  # the slow one gets nothing of its own again
    copy = dealer.next_lot(1)
    assert copy is not None
    assert copy.pieces.tolist() == lingers.pieces.tolist()
    answer(dealer, 1, copy)
    assert task.is_complete
    assert dealer.copy_lingering() == 0
