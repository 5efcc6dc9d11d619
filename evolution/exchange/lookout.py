"""Looks after the pieces of a task: which were lost, which linger, and whether anybody works."""

import logging
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import redis

from cluster.clients import HeadClient
from cluster.keys import workers_alive
from cluster.tickets import cut
from evolution.exchange.gathering import Gathering

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.5  # between looks around, or 20 times as long as a look takes, …
MOST_LOOK_SECONDS = 4.0  # … but no longer than this
PATIENCE = 10.0  # seconds of silence at least, before all that is missing is posted again
COPY_SECONDS = 0.5  # that an idle worker waits at least before it gets a copy of another's work
COPY_FACTOR = 3.0  # … and so many times as long as workers commonly take
MOST_LOSSES = 10  # of one piece, and it is no accident
SPEAK_SECONDS = 3.0


class WorkerFailure(RuntimeError):
    """A worker could not evaluate a candidate; says what the worker said."""


class Lookout:
    """Posts again what nobody does any more; idle workers get copies of what takes too long.

    Workers say every second what they hold. A piece that is missing, whose ticket has been taken,
    and which nobody claims at two looks in a row, is lost.
    """

    def __init__(
        self,
        server: redis.Redis,
        client: HeadClient,
        run_id: str,
        watch: Callable[[], None],
        expect_others: bool,
    ) -> None:
        self._server, self._client, self._run_id = server, client, run_id
        self._watch, self._expect_others = watch, expect_others
        self.refusals: dict[str, str] = {}  # worker: reason
        self.workers = self.machines = 0  # alive, and able to serve this run
        self.smallest = 0  # workers that share a relay: the fewest
        self._next_look = self._heard = self._spoke = time.monotonic()
        self._usual = self._slowest = 0.0  # seconds of a batch of work
        self._task = -1
        self._forget(-1)

    def _forget(self, task: int) -> None:
        self._task = task
        self._unclaimed = np.empty(0, np.int64)
        self._taken_since: float | None = None  # when the last ticket had gone
        self._copies: dict[int, tuple[int, float]] = {}  # piece: how many, when the last

    def heard(self, task: Gathering) -> None:
        """Something new has come."""
        self._heard = self._spoke = time.monotonic()
        self._slowest = max(self._slowest, task.slowest)

    def ended(self, task: Gathering) -> None:
        """Remember how long its batches took."""
        if task.batches:
            self._usual = float(np.quantile(task.batches, 0.9))

    def look(self, task: Gathering) -> None:
        """Look around, unless that was done a moment ago.

        Raises:
            WorkerFailure: nobody will ever do it.
        """
        now = time.monotonic()
        if now < self._next_look:
            return
        if task.number != self._task:
            self._forget(task.number)
        self._watch()
        said, able = self.count()
        self._check_hope(said)
        if not able and now - self._spoke >= SPEAK_SECONDS:
            self._speak(bool(said))
        if self._all_taken(task, now):
            self._repost_lost(task, able)
            self._copy_lingering(task, able, now)
        self._repost_after_silence(task, now)
        spent = time.monotonic() - now  # long if there are many workers, or if we were suspended
        self._next_look = now + spent + min(max(LOOK_SECONDS, 20 * spent), MOST_LOOK_SECONDS)

    def count(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """What all workers and machines say, and those of them that can serve this run."""
        said = workers_alive(self._server, self._client.keys)
        able = [each for each in said if each["workers"] and each["name"] not in self.refusals]
        self.workers = sum(each["workers"] for each in able)
        self.machines = len({each["host"] for each in able})
        self.smallest = min((each["workers"] for each in able), default=0)
        return said, able

    def _check_hope(self, said: list[dict[str, Any]]) -> None:
        names = {each["name"] for each in said}
        if names and names <= set(self.refusals) and not self._expect_others:
            reasons = sorted({self.refusals[name] for name in names})
            raise WorkerFailure(f"all workers refuse the run: {'; '.join(reasons)}")

    def _speak(self, somebody: bool) -> None:
        self._spoke = time.monotonic()
        log.warning(
            "waiting for %d s: no worker %s; start some with"
            " 'python es/worker.py start-workers --num_workers=N'",
            self._spoke - self._heard,
            "that can serve this run is here" if somebody else "is here",
        )

    def _all_taken(self, task: Gathering, now: float) -> bool:
        first = self._client.next_ticket()
        if first is not None and first.run == self._run_id and first.task <= task.number:
            self._taken_since = None
            self._unclaimed = np.empty(0, np.int64)
            return False
        if self._taken_since is None:
            self._taken_since = now
        return True

    def _repost_lost(self, task: Gathering, able: list[dict[str, Any]]) -> None:
        held = [
            each for worker in able if worker["doing"] == self._run_id for each in worker["holds"]
        ]
        claimed = np.zeros(len(task.layout.group_of), np.bool_)
        for number, first, count in held:
            if number == task.number:
                claimed[first : first + count] = True
        missing = task.awaited_pieces()
        unclaimed = missing[~claimed[missing]]
        lost = np.intersect1d(unclaimed, self._unclaimed)
        self._unclaimed = np.setdiff1d(unclaimed, lost)
        if not len(lost):
            return
        for piece in lost.tolist():
            task.attempts[piece] = task.attempts.get(piece, 0) + 1
            if task.attempts[piece] > MOST_LOSSES:
                raise WorkerFailure(
                    f"piece {piece} of task {task.number} was lost {MOST_LOSSES} times: it may end"
                    " the workers that evaluate it"
                )
        log.warning("asking again for %d pieces that were lost", len(lost))
        self._repost(task, lost)

    def _copy_lingering(self, task: Gathering, able: list[dict[str, Any]], now: float) -> None:
        if not any(each["idle"] for each in able):
            return
        usual = self._usual or (float(np.median(task.batches)) if task.batches else PATIENCE)
        grace = max(COPY_SECONDS, COPY_FACTOR * usual)
        assert self._taken_since is not None
        chosen = []
        for piece in task.awaited_pieces().tolist():
            count, last = self._copies.get(piece, (0, self._taken_since))
            if now - last >= grace * 2**count:
                self._copies[piece] = count + 1, now
                chosen.append(piece)
        if chosen:
            log.info("asking idle workers too for %d pieces that linger", len(chosen))
            self._client.copy(cut(self._run_id, task.number, chosen, 1))

    def _repost_after_silence(self, task: Gathering, now: float) -> None:
        patience = max(PATIENCE, 5 * self._slowest)
        if now - self._heard < patience or self._client.next_ticket() is not None:
            return
        missing = task.awaited_pieces()
        log.warning("silent for %.0f s: asking again for %d pieces", patience, len(missing))
        self._heard = now
        self._repost(task, missing)

    def _repost(self, task: Gathering, pieces: Iterable[int]) -> None:
        self._client.repost(cut(self._run_id, task.number, pieces, task.ticket_size))
