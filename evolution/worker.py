"""A worker: evaluates pieces of whatever population is posted. It knows no algorithm."""

import logging
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from cluster.clients import WorkerClient
from cluster.wire import MessageError
from evolution.evaluation import Part, PieceRunner
from evolution.messages import FAILURE, REFUSAL, Rows, task_parts
from evolution.noise import NoiseTable
from evolution.problem import Problem

log = logging.getLogger(__name__)

POLL_SECONDS = 1.0
BEAT_SECONDS = 1.5


def serve(client: WorkerClient, goes_on: Callable[[], bool]) -> None:
    """Work until told to stop; a new run, of any algorithm, is picked up by itself.

    Args:
        goes_on: asked at least every second, and between batches of work.
    Raises:
        redis.ConnectionError: the server is gone; calling again is safe.
    """
    session: _Run | None = None
    idle_since = time.perf_counter()
    last_beat = -BEAT_SECONDS
    try:
        while goes_on():
            if time.monotonic() - last_beat > BEAT_SECONDS:
                client.beat(session.run_id if session else "")
                last_beat = time.monotonic()
            if session and session.refused and client.run_spec(session.run_id):
                time.sleep(POLL_SECONDS)  # tickets of this run are for others
                continue
            ticket = client.take(POLL_SECONDS)
            if ticket is None:
                if session and client.run_spec(session.run_id) is None:  # over, or flushed
                    session.close()
                    session, last_beat = None, -BEAT_SECONDS
                continue
            run_id, number, piece = ticket
            if session is None or session.run_id != run_id:
                session = _change_run(session, client, run_id)
                if session and session.refused:
                    client.give_back(run_id, number, piece)
            if session and session.run_id == run_id and session.fetch(number):
                session.work(number, piece, idle_since)
                idle_since = time.perf_counter()
        client.leave()
    finally:
        if session:
            session.close()


def _change_run(old: "_Run | None", client: WorkerClient, run_id: str) -> "_Run | None":
    """Set up for a new run; go on with the old one if that is gone already."""
    spec = client.run_spec(run_id)
    if spec is None:
        return old
    if old:
        old.close()
    log.info("worker %s serves run %s", client.name, run_id)
    return _Run(client, run_id, spec)


class _Run:
    """What a worker holds for a run: problem, noise, the current task."""

    def __init__(self, client: WorkerClient, run_id: str, spec: dict[str, Any]) -> None:
        self.run_id, self._client = run_id, client
        self._number, self._parts, self._task = -1, list[Part](), dict[str, Any]()
        self._noise: NoiseTable | None = None
        self._runner: PieceRunner | None = None
        self._seconds_per_piece = 1.0
        try:
            problem = Problem.from_json(spec["problem"])
            self._noise = NoiseTable(int(spec["noise_size"]), int(spec["noise_seed"]))
            if self._noise.fingerprint != spec["noise_fingerprint"]:
                raise ValueError(
                    f"noise table {self._noise.fingerprint} here, {spec['noise_fingerprint']} at"
                    " the head: another NumPy?"
                )
            self._runner = PieceRunner(problem, self._noise)
        except (ValueError, KeyError, TypeError, RuntimeError) as error:
            self._refuse(str(error))

    def _refuse(self, reason: str) -> None:
        log.error("worker %s refuses run %s: %s", self._client.name, self.run_id, reason)
        self._client.push(self.run_id, {"kind": REFUSAL, "reason": reason})

    @property
    def refused(self) -> bool:
        """This worker cannot serve the run."""
        return self._runner is None

    def fetch(self, number: int) -> bool:
        """Hold task ``number``; false if the head has moved on, or this run is refused."""
        if self._runner is None:
            return False
        if number == self._number:
            return True
        task = self._client.task(self.run_id, number)
        if task is None:
            return False
        try:
            self._parts = task_parts(task)
        except MessageError as error:
            self._refuse(str(error))
            return False
        self._task, self._number = task, number
        return True

    def work(self, number: int, piece: int, idle_since: float) -> None:
        """Take a share of the task's tickets, evaluate, answer."""
        assert self._runner is not None
        at_least = round(float(self._task["min_seconds"]) / self._seconds_per_piece)
        more = self._client.take_more(self.run_id, number, int(self._task["share"]), at_least)
        started = time.perf_counter()
        pieces = sorted({piece, *more})
        answer = self._evaluate(pieces, started - idle_since)
        self._seconds_per_piece = max((time.perf_counter() - started) / len(pieces), 1e-6)
        self._client.push(self.run_id, {"task": number, **answer})

    def _evaluate(self, pieces: Sequence[int], waited: float) -> dict[str, Any]:
        assert self._runner is not None
        started, cpu_started = time.perf_counter(), time.process_time()
        try:
            fitness, steps = self._runner.evaluate(self._parts, pieces)
        except Exception as error:  # whatever an environment or a user's policy may raise
            log.error("worker %s failed: %s", self._client.name, traceback.format_exc())
            return {"kind": FAILURE, "reason": f"{type(error).__name__}: {error}"}
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu_started
        rows = Rows(np.array(pieces, np.int64), fitness, steps, seconds, waited, cpu)
        return rows.to_fields(self._number)

    def close(self) -> None:
        if self._runner:
            self._runner.close()
        if self._noise:
            self._noise.close()
