"""An evaluator whose workers are anywhere: it posts tickets and gathers rows."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import redis

from cluster.clients import HeadClient, Keys, workers_alive
from cluster.wire import MessageError
from evolution.answers import Answer, Layout
from evolution.evaluation import Evaluations, Part, split
from evolution.messages import FAILURE, REFUSAL, RESULT, Rows, run_spec, task_fields
from evolution.noise import NoiseTable
from evolution.problem import Problem

log = logging.getLogger(__name__)

TICK = 1.0  # seconds between looks around while no results come
PATIENCE = 10.0  # seconds of silence at least, before lost tickets are posted again
SHARES = 2  # a worker takes 1/(SHARES·workers) of what is left: large first, small at the end
BEAT_SECONDS = 1.5
REMEMBERED = 100  # tasks whose late answers are known for what they are


class WorkerFailure(RuntimeError):
    """A worker could not evaluate a candidate; says what the worker said."""


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
    ) -> None:
        """Become the head of the server's workers and declare the run.

        Args:
            run_id: letters, digits, '_', '.' and '-'; no other run of this server has had it.
            min_seconds: a worker takes so much work at a time, if there is.
            watch: called while nothing comes; raises if waiting has become pointless.
            expect_others: go on waiting although all workers that are here refuse the run.
        Raises:
            AnotherHeadError: somebody else is the head here.
        """
        self._server, self._watch, self._min_seconds = server, watch, min_seconds
        self._keys = keys or Keys()
        self._client = HeadClient(server, run_id, self._keys)
        self._client.lead()
        self._client.post_run(run_spec(problem, noise))
        self._incoming = self._client.results(TICK)  # the next task gets what one has left
        self._run_id, self._number = run_id, -1
        self._workers: dict[str, int] = {}  # name: number
        self._refusals: dict[str, str] = {}  # name: reason
        self._expect_others = expect_others
        self._active = 1
        self._counts = _Counts()
        self._answers = list[Answer]()
        self._layouts = deque[Layout](maxlen=REMEMBERED)  # of the last tasks
        self._slowest = self._rate = 0.0
        self._closed = threading.Event()
        self._beats = threading.Thread(target=self._beat, name="head heartbeat", daemon=True)
        self._beats.start()

    def evaluate(self, parts: Sequence[Part]) -> list[Evaluations]:
        """See ``Evaluator``.

        Raises:
            WorkerFailure: a worker reported an error of the environment or the policy.
        """
        self._number += 1
        started = time.monotonic()
        self._counts, self._answers = _Counts(), []
        gathered = _Gathered(self._layout(parts))
        share = max(1, round(SHARES * self._active))
        fields = task_fields(parts, share, self._min_seconds)
        self._client.post_task(self._number, fields, len(gathered.layout.group_of))
        silence = _Silence()
        for message in self._incoming:
            if message is None:
                self._look_around(gathered, silence)
                continue
            if self._accept(message, gathered):
                silence = _Silence()
            if not gathered.missing:
                break
        assert not gathered.missing, "after an error of the server there are no more results"
        self._active = len(np.unique(gathered.worker))
        self._counts.waited = gathered.waited
        self._rate = float(gathered.steps.sum()) / (time.monotonic() - started)
        return split(parts, gathered.fitness, gathered.steps, gathered.worker, gathered.seconds)

    def metrics(self) -> dict[str, float]:
        counts = self._counts
        return {
            "results skipped": float(counts.skipped),
            "frac. results skipped": counts.skipped / max(1, counts.skipped + counts.used),
            "messages rejected": float(counts.rejected),
            "time_to_obtain": counts.waited,
        }

    def answers(self) -> list[Answer]:
        return self._answers

    def _layout(self, parts: Sequence[Part]) -> Layout:
        """Remember how this task is numbered; mostly as the one before."""
        shapes = tuple(part.shape for part in parts)
        same = self._layouts and self._layouts[-1].shapes == shapes
        self._layouts.append(self._layouts[-1] if same else Layout(shapes))
        return self._layouts[-1]

    def _accept(self, message: dict[str, Any] | MessageError, gathered: "_Gathered") -> bool:
        """Take in one answer; true if it brought something new."""
        try:
            if isinstance(message, MessageError):
                raise message
            kind, worker = message.get("kind"), str(message.get("worker"))
            if kind == REFUSAL:
                self._refusals[worker] = str(message.get("reason"))
                log.warning("worker %s refuses this run: %s", worker, self._refusals[worker])
                return False
            if message.get("run") != self._run_id or message.get("task") != self._number:
                self._note_stranger(message, worker)
                return False
            if kind == FAILURE:
                raise WorkerFailure(f"worker {worker}: {message.get('reason')}")
            rows = Rows.from_fields(message, gathered.layout.group_of)
        except MessageError as error:
            self._counts.rejected += 1
            log.warning("dropped a message: %s", error)
            return False
        number = self._workers.setdefault(worker, len(self._workers) + 1)
        used = gathered.fill(rows, number)
        new = int(used.sum())
        self._note(rows, worker, 0, used)
        self._counts.used += new
        self._counts.skipped += len(rows.fitness) - new
        self._slowest = max(self._slowest, rows.seconds)
        return new > 0

    def _note_stranger(self, message: dict[str, Any], worker: str) -> None:
        """Count the rows of another run or task; those that are merely late are noted."""
        task = message.get("task")
        age = self._number - task if isinstance(task, int) else 0
        ours = message.get("run") == self._run_id and message.get("kind") == RESULT
        if ours and 0 < age < len(self._layouts):
            rows = Rows.from_fields(message, self._layouts[-1 - age].group_of)
            self._note(rows, worker, age, np.zeros(len(rows.fitness), np.bool_))
        fitness = message.get("fitness")
        self._counts.skipped += fitness.size if isinstance(fitness, np.ndarray) else 0

    def _note(self, rows: Rows, worker: str, age: int, used: np.ndarray) -> None:
        layout = self._layouts[-1 - age]
        answer = Answer(
            worker=worker,
            age=age,
            arrived=time.monotonic(),
            seconds=rows.seconds,
            cpu_seconds=rows.cpu_seconds,
            layout=layout,
            rows=layout.rows(rows.pieces),
            fitness=rows.fitness,
            steps=rows.steps,
            used=used,
        )
        self._answers.append(answer)

    def _look_around(self, gathered: "_Gathered", silence: "_Silence") -> None:
        """Nothing came for a tick: say why, and post again what seems lost."""
        self._watch()
        alive = {worker["name"] for worker in workers_alive(self._server, self._keys)}
        able = alive - set(self._refusals)
        if alive and not able and not self._expect_others:
            reasons = sorted({self._refusals[name] for name in alive})
            raise WorkerFailure(f"all workers refuse the run: {'; '.join(reasons)}")
        if not able and silence.should_speak():
            log.warning(
                "waiting for %d s: no worker %s; start some with"
                " 'python es/worker.py start-workers --num_workers=N'",
                silence.seconds(),
                "that can serve this run is here" if alive else "is here",
            )
        patience = max(PATIENCE, 5 * self._slowest)
        if silence.seconds_since_post() < patience or self._client.tickets_left():
            return
        log.warning(
            "silent for %.0f s: asking again for %d pieces", patience, len(gathered.missing)
        )
        self._client.repost(self._number, sorted(gathered.missing))
        silence.posted()

    def _beat(self) -> None:
        while not self._closed.wait(BEAT_SECONDS):
            try:
                self._client.beat(max(self._number, 0), self._rate)
            except redis.RedisError as error:
                log.warning("the redis server does not answer: %s", error)

    def __enter__(self) -> "RedisEvaluator":
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._beats.join()
        try:
            self._client.close()
        except redis.RedisError as error:
            log.warning("could not tidy up at the redis server: %s", error)


class _Gathered:
    """Rows of a task, filled in as they arrive."""

    def __init__(self, layout: Layout) -> None:
        self.layout, rows = layout, len(layout)
        self.fitness, self.steps = np.empty(rows, np.float32), np.empty(rows, np.int64)
        self.worker, self.seconds = np.empty(rows, np.int64), np.empty(rows, np.float32)
        self.missing = set(range(len(layout.group_of)))
        self._waits: list[float] = []

    @property
    def waited(self) -> float:
        """Mean seconds that workers waited for their tickets."""
        return float(np.mean(self._waits)) if self._waits else 0.0

    def fill(self, rows: Rows, worker: int) -> np.ndarray:
        """Write down what is new; bool[rows], False for what was answered before."""
        pieces = rows.pieces.tolist()
        new = np.array([piece in self.missing for piece in pieces])
        used = np.repeat(new, self.layout.group_of[rows.pieces])
        self.missing.difference_update(pieces)
        target = self.layout.rows(rows.pieces)[used]
        self.fitness[target], self.steps[target] = rows.fitness[used], rows.steps[used]
        self.worker[target], self.seconds[target] = worker, rows.seconds / len(used)
        if new.any():
            self._waits.append(rows.waited)
        return used


class _Counts:
    def __init__(self) -> None:
        self.used, self.skipped, self.rejected, self.waited = 0, 0, 0, 0.0


class _Silence:
    """How long nothing has come, and what was done about it."""

    def __init__(self) -> None:
        self._since = self._post = self._spoke = time.monotonic()

    def seconds(self) -> float:
        return time.monotonic() - self._since

    def seconds_since_post(self) -> float:
        return time.monotonic() - self._post

    def posted(self) -> None:
        self._post = time.monotonic()

    def should_speak(self) -> bool:
        """True every few seconds."""
        if time.monotonic() - self._spoke < 3:
            return False
        self._spoke = time.monotonic()
        return True
