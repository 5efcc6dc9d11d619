"""A worker: evaluates pieces of whatever population is posted. It knows no algorithm."""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import redis

from cluster.clients import WorkerClient
from cluster.keys import BEAT_SECONDS
from cluster.tickets import Ticket
from cluster.wire import MessageError, VersionError
from evolution.evaluation import Part, PieceRunner
from evolution.exchange.messages import REFUSAL, task_parts
from evolution.noise import NoiseTable
from evolution.serving import SupplyError, answer, in_words, open_run

log = logging.getLogger(__name__)

POLL_SECONDS = 0.5
NO_TURNS = contextlib.nullcontext()
TASKS_HELD = 4  # of a run whose generations overlap, workers meet several tasks by turns


def serve(
    client: WorkerClient,
    goes_on: Callable[[], bool],
    turn: AbstractContextManager[object] = NO_TURNS,
) -> None:
    """Work until told to stop; a new run, of any algorithm, is picked up by itself.

    Args:
        goes_on: asked at least every second, and between batches of work.
        turn: held while work is done: several groups of one process take turns.
    Raises:
        redis.ConnectionError: the server is gone; calling again is safe.
    """
    session: _Run | None = None
    idle_since = time.perf_counter()
    with _Voice(client) as voice:
        try:
            while goes_on():
                voice.check()
                if session and session.run_id == voice.banned_from and not session.refused:
                    session.refuse("the head has caught this worker giving a wrong result")
                    voice.say(session.run_id, able=False)
                if session and session.refused and _is_posted(client, session.run_id):
                    time.sleep(POLL_SECONDS)  # tickets of this run are for others
                    continue
                ticket = client.take(POLL_SECONDS)
                if ticket is None:
                    voice.rest()
                    if session and not _is_posted(client, session.run_id):  # over, or flushed
                        session.close()
                        session = None
                        voice.say("")
                    continue
                if session is None or session.run_id != ticket.run:
                    voice.say(ticket.run, [ticket])  # setting up may take seconds
                    session = _change_run(session, client, ticket.run)
                    if session and session.refused:
                        client.give_back(ticket)
                        voice.say(session.run_id, able=False)
                if session and session.run_id == ticket.run and session.fetch(ticket.task):
                    with voice.wait_for(turn, ticket):
                        session.work(ticket, idle_since, voice)
                    idle_since = time.perf_counter()
        finally:
            if session:
                session.close()


class _Voice:
    """Says again and again that this worker lives and what it holds, whatever it is busy with."""

    def __init__(self, client: WorkerClient) -> None:
        self._client = client
        self._doing, self._able = "", True
        self._holds: Sequence[Ticket] = ()
        self._lock, self._over = threading.Lock(), threading.Event()
        self._error: redis.RedisError | None = None
        self.banned_from = ""  # a run whose head gives this worker nothing more
        self._thread = threading.Thread(target=self._repeat, name="worker heartbeat", daemon=True)

    def say(self, doing: str, holds: Sequence[Ticket] = (), able: bool = True) -> None:
        """From now on, and at once."""
        with self._lock:
            self._doing, self._holds, self._able = doing, holds, able
            self._client.say(doing, holds, able)

    def rest(self) -> None:
        """Nothing is held any more; what was, is answered."""
        if self._holds:
            self.say(self._doing)

    def wait_for(
        self, turn: AbstractContextManager[object], ticket: Ticket
    ) -> AbstractContextManager[object]:
        """Hold a ticket until it is this group's turn, which may last."""
        if turn is not NO_TURNS:
            self.say(ticket.run, [ticket])
        return turn

    def check(self) -> None:
        """Raise what stopped it."""
        if self._error is not None:
            raise self._error

    def __enter__(self) -> "_Voice":
        self.say("")
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._over.set()
        self._thread.join()
        with contextlib.suppress(redis.RedisError):
            self._client.leave()

    def _repeat(self) -> None:
        while not self._over.wait(BEAT_SECONDS):
            try:
                with self._lock:
                    self._client.say(self._doing, self._holds, self._able)
                    if self._doing and self._client.is_banned(self._doing):
                        self.banned_from = self._doing
            except redis.RedisError as error:
                self._error = error
                return


def _change_run(old: "_Run | None", client: WorkerClient, run_id: str) -> "_Run | None":
    """Set up for a new run; go on with the old one if that is gone already."""
    spec: dict[str, Any] | VersionError | None
    try:
        spec = client.run_spec(run_id)
    except VersionError as error:
        spec = error
    if spec is None:
        return old
    if old:
        old.close()
    return _Run(client, run_id, spec)


def _is_posted(client: WorkerClient, run_id: str) -> bool:
    """True while the head has not moved on to another run, as far as this program can read it."""
    try:
        return client.run_spec(run_id) is not None
    except VersionError:
        return True


@dataclass(frozen=True)
class _Task:
    parts: list[Part]
    share: int
    min_seconds: float
    max_seconds: float
    pieces: int


class _Run:
    """What a worker holds for a run: problem, noise, the last tasks."""

    def __init__(
        self, client: WorkerClient, run_id: str, spec: dict[str, Any] | VersionError
    ) -> None:
        """Set up, or refuse.

        Args:
            spec: of the run; or why it cannot be read, so that the head cannot be told either.
        """
        self.run_id, self._client = run_id, client
        self._tasks: dict[int, _Task] = {}
        self._noise: NoiseTable | None = None
        self._runner: PieceRunner | None = None
        self._seconds_per_piece: float | None = None
        if isinstance(spec, VersionError):
            self._say_refusal(str(spec))
            return
        try:
            self._noise, self._runner = open_run(spec, self._supply)
            log.info("worker %s serves run %s", client.name, run_id)
        except Exception as error:  # whatever an engine or a user's module may raise
            self.refuse(in_words(error))

    def refuse(self, reason: str) -> None:
        """Take no part in this run."""
        if self._runner is not None:
            self._runner.close()
            self._runner = None
        self._say_refusal(reason)
        self._client.push(self.run_id, {"kind": REFUSAL, "reason": reason})

    def _say_refusal(self, reason: str) -> None:
        log.error("worker %s refuses run %s: %s", self._client.name, self.run_id, reason)

    @property
    def refused(self) -> bool:
        """This worker cannot serve the run."""
        return self._runner is None

    def fetch(self, number: int) -> bool:
        """Hold task ``number``; false if it is over, or this run is refused."""
        if self._runner is None:
            return False
        if number in self._tasks:
            return True
        message = self._client.task(self.run_id, number)
        if message is None:
            return False
        try:
            parts = task_parts(message)
        except MessageError as error:
            self.refuse(str(error))
            return False
        limits = int(message["share"]), float(message["min_seconds"]), float(message["max_seconds"])
        self._tasks[number] = _Task(parts, *limits, sum(part.pieces for part in parts))
        while len(self._tasks) > TASKS_HELD:
            del self._tasks[min(self._tasks)]
        return True

    def work(self, ticket: Ticket, idle_since: float, voice: _Voice) -> None:
        """Take a share of the task's tickets, evaluate, answer."""
        tickets = [ticket, *self._more(ticket)]
        task = self._tasks[ticket.task]
        numbers = {piece for each in tickets for piece in each.pieces if piece < task.pieces}
        pieces = sorted(numbers)
        if not pieces:
            return  # a ticket that was mangled
        voice.say(self.run_id, tickets)
        assert self._runner is not None
        started, name = time.perf_counter(), self._client.name
        try:
            answered = answer(self._runner, task.parts, pieces, started - idle_since, name)
        except SupplyError as error:
            log.info("worker %s leaves task %d: %s", name, ticket.task, error)
            voice.say(self.run_id)  # nobody claims them any more: the head posts them again
            return
        self._seconds_per_piece = max((time.perf_counter() - started) / len(pieces), 1e-6)
        self._client.push(self.run_id, {"task": ticket.task, **answered})

    def _more(self, ticket: Ticket) -> list[Ticket]:
        task = self._tasks[ticket.task]
        if self._seconds_per_piece is None:  # the first time nobody knows how long it takes
            at_least, at_most = ticket.count, task.pieces
        else:
            at_least = round(task.min_seconds / self._seconds_per_piece)
            longest = max(task.max_seconds, task.min_seconds)
            at_most = max(round(longest / self._seconds_per_piece), ticket.count)
        return self._client.take_more(ticket, task.share, at_least, at_most)

    def _supply(self, name: str) -> np.ndarray:
        values = self._client.supply(self.run_id, name)
        if values is None:
            raise SupplyError(f"no supply {name}")
        return values

    def close(self) -> None:
        if self._runner:
            self._runner.close()
        if self._noise:
            self._noise.close()
