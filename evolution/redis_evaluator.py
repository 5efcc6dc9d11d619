"""An evaluator whose workers are anywhere: it posts tickets and gathers rows."""

import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import redis

from cluster.clients import AnotherHeadError, HeadClient
from cluster.keys import Keys
from cluster.merging import split
from cluster.tickets import cut
from cluster.wire import MessageError
from evolution.anchors import Anchors
from evolution.answers import Answer, Layout
from evolution.evaluation import Evaluations, Part, PieceRunner
from evolution.exchange.audit import Audit, said_of_each
from evolution.exchange.batches import MAX_SECONDS, Batch, of_one_task, read_sound
from evolution.exchange.gathering import Counts, Gathering
from evolution.exchange.lookout import Lookout, WorkerFailure
from evolution.exchange.messages import (
    FAILURE,
    REFUSAL,
    RESULT,
    Failure,
    run_spec,
    task_fields,
)
from evolution.noise import NoiseTable
from evolution.problem import Problem

log = logging.getLogger(__name__)

TICK = 0.25  # seconds that the head waits for results before it looks around
AWAY_SECONDS = 0.25  # between attempts to reach a server that is away
SHARES = 2  # a worker takes 1/(SHARES·workers) of what is left: large first, small at the end
TICKETS_PER_WORKER = 32  # of a task, at most: what is left at its end is small
ATTEMPTS = 3  # at a piece that fails, by several workers if there are
BEAT_SECONDS = 1.5
REMEMBERED = 100  # tasks whose late answers are known for what they are


class RedisEvaluator:
    """Evaluates on every worker that listens at a server.

    Which worker does what, and when workers come and go, changes nothing in the result: all
    randomness is in the populations and the seeds, and a piece that is answered twice counts once.
    """

    def __init__(
        self,
        server: redis.Redis,
        problem: Problem,
        noise: NoiseTable,
        *,
        run_id: str,
        keys: Keys | None = None,
        min_seconds: float = 0.05,
        watch: Callable[[], None] = lambda: None,
        expect_others: bool = True,
        audit: float = 0.0,
    ) -> None:
        """Become the head of the server's workers and declare the run.

        Args:
            run_id: letters, digits, '_', '.' and '-'; no other run of this server has had it.
            min_seconds: a worker takes so much work at a time, if there is.
            watch: called while nothing comes; raises if waiting has become pointless.
            expect_others: go on waiting although all workers that are here refuse the run.
            audit: a share of the pieces that are evaluated by two workers and compared.
        Raises:
            AnotherHeadError: somebody else is the head here.
        """
        self._anchors = Anchors(noise)
        self._audit = Audit(audit, PieceRunner(problem, noise)) if audit else None
        self._min_seconds, self._watch, self._run_id = min_seconds, watch, run_id
        self._client = HeadClient(server, run_id, keys or Keys())
        self._client.lead()
        self._client.post_run(run_spec(problem, noise))
        self._lookout = Lookout(server, self._client, run_id, watch, expect_others)
        self._tasks = deque[Gathering]()  # those on their way
        self._ended = dict[int, Gathering]()  # the last ones
        self._number, self._rate, self._longest = 0, 0.0, MAX_SECONDS
        self._steps: dict[str, float] = {}  # of a piece of each role, in the last task
        self._names: dict[str, int] = {}  # of workers: their numbers
        self._counts, self._last_counts = Counts(), Counts()
        self._away = False
        self._displaced: AnotherHeadError | None = None
        self._closed = threading.Event()
        self._beats = threading.Thread(target=self._beat, name="head heartbeat", daemon=True)
        self._beats.start()

    # --- what an evaluator does

    def evaluate(self, parts: Sequence[Part]) -> list[Evaluations]:
        """See ``Evaluator``."""
        self.submit(parts)
        return self.gather()

    def submit(self, parts: Sequence[Part]) -> None:
        """See ``Evaluator``."""
        workers, smallest = self._present()
        layout = self._layout(parts)
        pieces = len(layout.group_of)
        size = max(1, pieces * smallest // (TICKETS_PER_WORKER * workers))
        task = Gathering(self._number, parts, layout, size)
        longest = max(self._min_seconds, self._longest / SHARES)
        short, supplies = self._anchors.abridged(parts)
        fields = task_fields(short, SHARES * workers, self._min_seconds, longest)
        self._client.add_task(task.number, fields, supplies)
        self._tasks.append(task)
        self._number += 1
        try:
            order = layout.longest_first(self._steps)
            self._client.post(task.number, cut(self._run_id, task.number, order, size))
        except redis.RedisError as error:
            self._note_away(error)

    def gather(self) -> list[Evaluations]:
        """See ``Evaluator``.

        Raises:
            WorkerFailure: an error of the environment or the policy, as workers reported it.
            AnotherHeadError: this head was away for so long that another took its place.
        """
        return self._gather(1)[1]

    def gather_any(self) -> tuple[int, list[Evaluations]]:
        """See ``Evaluator``; raises as ``gather`` does."""
        return self._gather(len(self._tasks))

    def _gather(self, choice: int) -> tuple[int, list[Evaluations]]:
        """Wait for one of the first ``choice`` tasks."""
        task = self._tasks[0]
        while (place := self._complete(choice)) is None:
            if self._displaced is not None:
                raise self._displaced
            try:
                if self._away:
                    self._come_back()
                if self._accept(self._client.results(TICK)):
                    self._lookout.heard(task)
                if self._complete(choice) is None:
                    self._lookout.look(task)
                    self._give_up_checks(task)
            except redis.RedisError as error:
                self._note_away(error)
        task = self._tasks[place]
        del self._tasks[place]
        self._end(task)
        return place, task.end()

    def _complete(self, choice: int) -> int | None:
        tasks = itertools.islice(self._tasks, choice)
        return next((place for place, task in enumerate(tasks) if task.is_complete), None)

    def discard(self) -> None:
        """See ``Evaluator``."""
        if not self._tasks:
            return
        try:
            self._client.forget_tickets()
            while self._tasks:
                task = self._tasks.popleft()
                self._ended[task.number] = task  # some answers may still come
                self._client.end_task(task.number)
        except redis.RedisError as error:
            self._note_away(error)

    def metrics(self) -> dict[str, float]:
        counts = self._last_counts
        return {
            "results skipped": float(counts.skipped),
            "frac. results skipped": counts.skipped / max(1, counts.skipped + counts.used),
            "results audited": float(counts.audited),
            "messages rejected": float(counts.rejected),
            "time_to_obtain": counts.waited,
            "workers alive": float(self._lookout.workers),
            "machines alive": float(self._lookout.machines),
        }

    def answers(self) -> list[Answer]:
        return self._last_counts.answers

    # --- tasks

    def _present(self) -> tuple[int, int]:
        """How many workers there are, and how many speak with one voice at least."""
        if not self._lookout.workers:
            try:
                self._lookout.count()
            except redis.RedisError as error:
                self._note_away(error)
        return max(1, self._lookout.workers), max(1, self._lookout.smallest)

    def _layout(self, parts: Sequence[Part]) -> Layout:
        """How this task is numbered; mostly as the one before."""
        shapes = tuple(part.shape for part in parts)
        known = [*self._ended.values(), *self._tasks]
        same = known and known[-1].layout.shapes == shapes
        return known[-1].layout if same else Layout(shapes)

    def _end(self, task: Gathering) -> None:
        self._lookout.ended(task)
        self._longest, self._steps = task.elapsed, task.mean_steps()
        self._rate = task.total_steps / task.elapsed
        self._counts.waited = float(np.mean(task.waits)) if task.waits else 0.0
        self._counts.answers[:0] = task.early
        self._last_counts, self._counts = self._counts, Counts()
        self._ended[task.number] = task
        self._ended.pop(task.number - REMEMBERED, None)
        try:
            self._client.end_task(task.number)
        except redis.RedisError as error:
            self._note_away(error)

    # --- answers

    def _accept(self, received: Sequence[bytes]) -> bool:
        """Take in what came; true if it brought something new to the oldest task."""
        results: dict[int, list[dict[str, Any]]] = {}
        for message in self._messages(received):
            try:
                task = self._task_of_result(message)
            except MessageError as error:
                self._reject(error)
            else:
                if task is not None:
                    results.setdefault(task.number, []).append(message)
        new = False
        for number, messages in results.items():
            task = self._task(number)
            lots = [messages] if self._audit is None else [[each] for each in messages]
            for lot in lots:
                batches, errors = read_sound(lot, task.layout.group_of)
                for reason in errors:
                    self._reject(reason)
                for batch in batches:
                    new |= self._count(task, batch)
        return new

    def _messages(self, received: Sequence[bytes]) -> Iterator[dict[str, Any]]:
        for data in received:
            try:
                message = self._client.read(data)
                whole = self._audit is None and of_one_task(message, RESULT)
                yield from [message] if whole else split(message)
            except MessageError as error:
                self._reject(error)

    def _reject(self, error: MessageError) -> None:
        self._counts.rejected += 1
        log.warning("dropped a message: %s", error)

    def _task_of_result(self, message: dict[str, Any]) -> Gathering | None:
        """The task of a message that brings results; others are dealt with."""
        said = message.get("common", message)  # many answers in one are of one kind
        kind, worker = said.get("kind"), "" if said is not message else message.get("worker")
        if said.get("run") != self._run_id or not isinstance(worker, str):
            raise MessageError("an answer of nobody, or to another run")
        if kind == REFUSAL:
            self._lookout.refusals[worker] = str(message.get("reason"))
            log.warning("worker %s refuses this run: %s", worker, message.get("reason"))
            return None
        task = self._task(said.get("task"))
        if kind == FAILURE:
            self._retry(task, worker, Failure.from_fields(message, task.layout.group_of))
            return None
        if kind != RESULT:
            raise MessageError(f"an answer of kind {kind!r:.50}")
        return task

    def _task(self, number: Any) -> Gathering:
        if type(number) is int:
            for task in self._tasks:
                if task.number == number:
                    return task
            if number in self._ended:
                return self._ended[number]
        raise MessageError(f"an answer to task {number!r:.50}, which is not known")

    def _count(self, task: Gathering, batch: Batch) -> bool:
        audit, worker = self._audit, batch.workers[0]  # the only one if there is an audit
        if audit is not None and worker in audit.liars:
            self._counts.rejected += 1
            return False
        numbers = [self._names.setdefault(each, len(self._names) + 1) for each in batch.workers]
        used = task.fill(batch, np.array(numbers))
        if audit is not None and task in self._tasks:
            self._check(audit, task, worker, batch, used)
            if worker in audit.liars:  # found out by this very answer, and forgotten
                used[:] = False
            else:
                used |= task.fill(batch, np.array(numbers))  # what a liar had said before
        age = (self._tasks[0].number if self._tasks else self._number) - task.number
        self._counts.add(task, batch, used, age)
        return bool(used.any()) and age == 0

    def _check(
        self, audit: Audit, task: Gathering, worker: str, rows: Batch, used: np.ndarray
    ) -> None:
        """Compare what was to be checked; have some of what is new checked by somebody else."""
        said = said_of_each(worker, rows, task.layout.group_of)
        for piece in [each for each in said if each in task.rechecks]:
            if task.rechecks[piece].worker == worker:
                continue
            first = task.rechecks.pop(piece)
            group = int(task.layout.group_of[piece])
            self._counts.skipped, self._counts.audited = (
                self._counts.skipped - group,
                self._counts.audited + group,
            )
            for liar in audit.judge(task.parts, piece, first, said[piece]):
                self._disown(liar)
        if worker not in audit.liars:
            new = rows.pieces[used[np.cumsum(task.layout.group_of[rows.pieces]) - 1]].tolist()
            chosen = audit.choose(worker, new)
            task.rechecks |= {piece: said[piece] for piece in chosen}
            if chosen:
                self._client.copy(cut(self._run_id, task.number, chosen, 1, worker))

    def _disown(self, liar: str) -> None:
        """Have all that a worker has answered evaluated by others, and give it nothing more."""
        self._lookout.refusals[liar] = "it gave a wrong result"
        self._client.ban(liar)
        for task in self._tasks:
            pieces = task.disown(self._names.get(liar, 0))
            if len(pieces):
                self._client.copy(cut(self._run_id, task.number, pieces.tolist(), 1, liar))

    def _give_up_checks(self, task: Gathering) -> None:
        """A worker alone cannot be checked."""
        if task.rechecks and not task.missing and self._lookout.workers < 2:
            log.warning("%d pieces stay unchecked: only one worker is left", len(task.rechecks))
            task.rechecks.clear()

    def _retry(self, task: Gathering, worker: str, failure: Failure) -> None:
        """Have others try; after several attempts it is the candidate's fault."""
        for piece in failure.pieces.tolist():
            task.attempts[piece] = task.attempts.get(piece, 0) + 1
            if task.attempts[piece] >= ATTEMPTS:
                raise WorkerFailure(f"worker {worker}: {failure.reason}")
        log.warning("worker %s failed, asking again: %s", worker, failure.reason)
        not_for = worker if self._lookout.workers > 1 else ""
        missing = np.intersect1d(failure.pieces, task.awaited_pieces()).tolist()
        if missing:
            self._client.copy(cut(self._run_id, task.number, missing, 1, not_for))

    # --- the server

    def _note_away(self, error: redis.RedisError) -> None:
        """The server does not answer: say so once, and wait a little."""
        if isinstance(error, redis.AuthenticationError):
            raise error
        if not self._away:
            log.warning("the redis server does not answer: %s", str(error).partition("\n")[0])
        self._away = True
        self._watch()
        time.sleep(AWAY_SECONDS)

    def _come_back(self) -> None:
        """The server may have lost everything: post again all that is missing."""
        self._client.forget_tickets()
        for task in reversed(self._tasks):
            missing = task.awaited_pieces()
            self._client.repost(cut(self._run_id, task.number, missing, task.ticket_size))
        log.warning("the redis server answers: asking again for what is missing")
        self._away = False

    def _beat(self) -> None:
        while not self._closed.wait(BEAT_SECONDS):
            try:
                self._client.beat(self._number, self._rate)
            except AnotherHeadError as error:
                self._displaced = error
                return
            except redis.RedisError as error:
                log.debug("the redis server does not answer: %s", error)

    def __enter__(self) -> "RedisEvaluator":
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._beats.join()
        if self._audit is not None:
            self._audit.close()
        if self._displaced is not None:
            return  # what is there is another's
        try:
            self._client.close()
        except redis.RedisError as error:
            log.warning("could not tidy up at the redis server: %s", error)
