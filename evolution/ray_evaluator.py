"""An evaluator whose workers are actors of a Ray cluster; nothing else here imports Ray.

Actors evaluate batches of pieces. What a task says is put once into Ray's object store, from which
each node fetches it once; of a genetic algorithm's anchors the same is true.
"""

import contextlib
import itertools
import logging
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import ray
from ray.exceptions import RayActorError, RayError, RaySystemError

from cluster.redis_server import ServerError
from evolution.anchors import Anchors, Supplies
from evolution.answers import Answer, Layout
from evolution.evaluation import Evaluations, Part
from evolution.exchange.batches import MAX_SECONDS, read_sound
from evolution.exchange.dealing import Dealer, Lot
from evolution.exchange.gathering import Counts, Gathering
from evolution.exchange.lookout import SPEAK_SECONDS, WorkerFailure
from evolution.exchange.messages import FAILURE, run_spec, task_fields
from evolution.noise import NoiseTable
from evolution.problem import Problem
from evolution.ray_actor import PieceActor

log = logging.getLogger(__name__)

TICK = 0.25  # seconds that the head waits for answers before it looks around
LOOK_SECONDS = 1.0  # between looks for nodes that have come, and for what lingers
FAREWELL_SECONDS = 3.0  # that actors have to tidy up at the end
STILLBORN = 4  # actors in a row that die before they are ready, and there is no hope


def connect(address: str) -> None:
    """Become a driver of a Ray cluster, for as long as this process lives or until `disconnect`.

    Args:
        address: host:port, ray://host:port, or auto for the one that runs here.
    Raises:
        ServerError: the cluster is not there, or does not let us in.
    """
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
    except (RayError, ConnectionError, RuntimeError, ValueError, OSError, ImportError) as error:
        ray.shutdown()  # of what was half done
        told = f"cannot join the Ray cluster at {address}: {in_short(error)}"
        if isinstance(error, ConnectionError) and "token" not in told.lower():
            told += "; is it up, and is its token that of RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH?"
        raise ServerError(told) from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler or signal.SIG_DFL)  # Ray puts its own there


def disconnect() -> None:
    """Leave the cluster, which goes on without us."""
    ray.shutdown()


def in_short(error: BaseException) -> str:
    """An error of Ray's, which may have many lines, in one."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines)}"[:600]


@contextlib.contextmanager
def _or_gone() -> Iterator[None]:
    """Tell in one line that the cluster is gone."""
    try:
        yield
    except (RaySystemError, ConnectionError) as error:
        raise ServerError(f"the Ray cluster is gone: {in_short(error)}") from error


@dataclass(eq=False)
class _Worker:
    """An actor, and what it has been asked."""

    number: int
    actor: Any
    hello: Any  # reference to what it says when it is ready; None: it has said it
    name: str = ""  # "" as long as it is not ready
    host: str = ""
    asked: dict[Any, Lot] = field(default_factory=dict)  # references to answers: what for

    def references(self) -> list[Any]:
        """All that it owes."""
        return list(self.asked) if self.hello is None else [self.hello]


@dataclass(frozen=True, eq=False)
class _Posted:
    """A task on its way, as it lies in Ray's object store."""

    task: Gathering
    fields: Any  # reference
    names: list[str]  # of the anchors that it needs
    supplies: list[Any]  # references to them


class RayEvaluator:
    """Evaluates on actors, one CPU each; this process must be a driver of the cluster.

    Which actor does what, and which of them are lost, changes nothing in the result.
    """

    def __init__(
        self,
        problem: Problem,
        noise: NoiseTable,
        *,
        num_workers: int | None,
        min_seconds: float = 0.05,
        watch: Callable[[], None] = lambda: None,
    ) -> None:
        """Ask for actors; they come up meanwhile.

        Args:
            num_workers: actors to ask for, which makes an autoscaler start nodes; None: one for
                each CPU that is free, now and later.
            min_seconds: an actor is given so much work at a time, if there is.
            watch: called while nothing comes; raises if waiting has become pointless.
        """
        self._num_workers, self._min_seconds, self._watch = num_workers, min_seconds, watch
        self._anchors, self._dealer = Anchors(noise), Dealer(min_seconds)
        self._tasks, self._number = deque[_Posted](), 0
        self._layout = Layout(())
        self._steps: dict[str, float] = {}  # of a piece of each role, in the last task
        self._supplies: dict[str, Any] = {}  # names of anchors: references to them
        self._counts, self._last_counts = Counts(), Counts()
        self._workers: list[_Worker] = []
        self._refused: list[_Worker] = []  # they keep their CPU: the next one comes elsewhere
        self._refusals: set[str] = set()
        self._names: dict[str, int] = {}  # of workers: their numbers
        self._hired = self._stillborn = 0
        self._next_look, self._heard = 0.0, time.monotonic()
        self._spoke = self._heard
        with _or_gone():
            self._spec = ray.put(run_spec(problem, noise))
            self._class = ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0)(PieceActor)
            self._look()

    # --- what an evaluator does

    def evaluate(self, parts: Sequence[Part]) -> list[Evaluations]:
        """See ``Evaluator``."""
        self.submit(parts)
        return self.gather()

    def submit(self, parts: Sequence[Part]) -> None:
        """See ``Evaluator``."""
        shapes = tuple(part.shape for part in parts)
        if self._layout.shapes != shapes:
            self._layout = Layout(shapes)
        task = Gathering(self._number, parts, self._layout, 1)
        self._number += 1
        short, supplies = self._anchors.abridged(parts)
        fields = task_fields(short, 1, self._min_seconds, MAX_SECONDS)
        with _or_gone():
            references = self._supplied(supplies)
            self._tasks.append(_Posted(task, ray.put(fields), list(supplies), references))
            self._dealer.add(task, task.layout.longest_first(self._steps))
            self._deal()

    def _supplied(self, supplies: Supplies) -> list[Any]:
        """References to the anchors of a task; those that no task needs any more are forgotten."""
        needed = {name for each in self._tasks for name in each.names} | set(supplies)
        known = {name: ref for name, ref in self._supplies.items() if name in needed}
        for name, write in supplies.items():
            if name not in known:
                known[name] = ray.put(write())
        self._supplies = known
        return [known[name] for name in supplies]

    def gather(self) -> list[Evaluations]:
        """See ``Evaluator``.

        Raises:
            WorkerFailure: an error of the environment or the policy, as workers reported it.
            ServerError: the cluster is gone.
        """
        return self._gather(1)[1]

    def gather_any(self) -> tuple[int, list[Evaluations]]:
        """See ``Evaluator``; raises as ``gather`` does."""
        return self._gather(len(self._tasks))

    def _gather(self, choice: int) -> tuple[int, list[Evaluations]]:
        """Wait for one of the first ``choice`` tasks."""
        while (place := self._complete(choice)) is None:
            with _or_gone():
                self._look()
                self._take_in()
                self._deal()
        posted = self._tasks[place]
        del self._tasks[place]
        self._end(posted.task)
        return place, posted.task.end()

    def _complete(self, choice: int) -> int | None:
        tasks = itertools.islice(self._tasks, choice)
        return next((place for place, each in enumerate(tasks) if each.task.is_complete), None)

    def discard(self) -> None:
        """See ``Evaluator``."""
        self._tasks.clear()
        self._dealer.discard()

    def metrics(self) -> dict[str, float]:
        counts, ready = self._last_counts, self._ready()
        return {
            "results skipped": float(counts.skipped),
            "frac. results skipped": counts.skipped / max(1, counts.skipped + counts.used),
            "messages rejected": float(counts.rejected),
            "time_to_obtain": counts.waited,
            "workers alive": float(len(ready)),
            "machines alive": float(len({worker.host for worker in ready})),
        }

    def answers(self) -> list[Answer]:
        return self._last_counts.answers

    def _end(self, task: Gathering) -> None:
        self._dealer.ended(task)
        self._steps = task.mean_steps()
        self._counts.waited = float(np.mean(task.waits)) if task.waits else 0.0
        self._counts.answers[:0] = task.early
        self._last_counts, self._counts = self._counts, Counts()

    # --- work and answers

    def _deal(self) -> None:
        """Give everybody who is ready as much as they should hold."""
        posted = {each.task: each for each in self._tasks}
        hungry = self._ready()
        while hungry:
            fed = []
            for worker in hungry:
                lot = self._dealer.next_lot(worker.number)
                if lot is not None:
                    task = posted[lot.task]
                    said = task.fields, task.names, *task.supplies
                    answer = worker.actor.evaluate.remote(lot.task.number, lot.pieces, *said)
                    worker.asked[answer] = lot
                    fed.append(worker)
            hungry = fed

    def _take_in(self) -> None:
        """Wait a little for whatever comes, and take all of it in."""
        waiting = {ref: worker for worker in self._workers for ref in worker.references()}
        if not waiting:
            time.sleep(TICK)
            return
        if not ray.wait(list(waiting), timeout=TICK)[0]:
            return
        for reference in ray.wait(list(waiting), num_returns=len(waiting), timeout=0)[0]:
            if (worker := waiting[reference]) in self._workers:  # it may have been lost just now
                self._hear(worker, reference)

    def _hear(self, worker: _Worker, reference: Any) -> None:
        """What an actor says, or that it says nothing any more."""
        try:
            said = ray.get(reference)
        except RayActorError as error:
            self._lose(worker, error)
            return
        except RayError as error:
            if reference not in worker.asked:
                self._lose(worker, error)
                return
            said = {"kind": FAILURE, "reason": in_short(error)}
        self._spoke = self._heard = time.monotonic()
        if reference in worker.asked:
            self._accept(worker, worker.asked.pop(reference), said)
        else:
            self._welcome(worker, said)

    def _accept(self, worker: _Worker, lot: Lot, said: dict[str, Any]) -> None:
        if said["kind"] == FAILURE:
            reason = f"worker {worker.name}: {said['reason']}"
            self._dealer.failed(worker.number, lot, reason)
            log.warning("asking again: %s", reason)
            return
        own = {**said, "worker": worker.name}
        batches, errors = read_sound([own], lot.task.layout.group_of)
        for error in errors:
            self._counts.rejected += 1
            log.warning("dropped an answer of worker %s: %s", worker.name, error)
        for batch in batches:
            number = self._names.setdefault(worker.name, len(self._names) + 1)
            used = lot.task.fill(batch, np.array([number]))
            first = self._tasks[0].task.number if self._tasks else self._number
            self._counts.add(lot.task, batch, used, age=first - lot.task.number)
        self._dealer.done(worker.number, lot, sum(float(each.seconds[0]) for each in batches))

    # --- workers

    def _ready(self) -> list[_Worker]:
        return [worker for worker in self._workers if worker.name]

    def _look(self) -> None:
        """Look around, unless that was done a moment ago."""
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + LOOK_SECONDS
        self._watch()
        self._hire()
        if copied := self._dealer.copy_lingering():
            log.info("asking idle workers too for %d pieces that linger", copied)
        if not self._ready() and now - self._spoke >= SPEAK_SECONDS:
            self._spoke = now
            waited = now - self._heard
            log.warning("waiting for %d s: no worker of the Ray cluster is ready", waited)

    def _hire(self) -> None:
        """Ask for as many actors as there should be."""
        here = len(self._workers) + len(self._refused)
        if self._num_workers is None:
            free = int(ray.available_resources().get("CPU", 0))
            coming = len(self._workers) - len(self._ready())
            wanted = max(here + free - coming, 1)
        else:
            wanted = self._num_workers
        for _ in range(wanted - here):
            self._hired += 1
            actor = self._class.remote()
            self._workers.append(_Worker(self._hired, actor, actor.open.remote(self._spec)))

    def _welcome(self, worker: _Worker, said: dict[str, str]) -> None:
        """An actor is ready for work, or refuses it."""
        worker.hello, self._stillborn = None, 0
        if not said["refusal"]:
            worker.name, worker.host = said["worker"], said["host"]
            self._dealer.join(worker.number)
            log.info("worker %s of the Ray cluster is ready", worker.name)
            return
        log.warning("worker %s refuses this run: %s", said["worker"], said["refusal"])
        self._workers.remove(worker)
        self._refused.append(worker)
        self._refusals.add(said["refusal"])
        if not self._workers:
            reasons = "; ".join(sorted(self._refusals))
            raise WorkerFailure(f"all workers refuse the run: {reasons}")

    def _lose(self, worker: _Worker, error: RayError) -> None:
        """An actor has died, or its node: others do its work, and another takes its place."""
        self._workers.remove(worker)
        self._next_look = 0.0
        ray.kill(worker.actor)
        if worker.name:
            lost = self._dealer.leave(worker.number)
            log.warning("worker %s is lost: asking again for %d pieces", worker.name, lost)
            log.debug("worker %s: %s", worker.name, in_short(error))
            return
        self._stillborn += 1
        if self._stillborn >= STILLBORN and not self._ready():
            raise WorkerFailure(f"no worker starts on the Ray cluster: {in_short(error)}")

    # --- the end

    def __enter__(self) -> "RayEvaluator":
        return self

    def __exit__(self, *_: object) -> None:
        """Let actors tidy up; those that are too busy are ended, and waited for."""
        everybody = [*self._workers, *self._refused]
        with contextlib.suppress(RayError, ConnectionError):
            last = [each.actor.close.remote() for each in everybody if each.hello is None]
            if last:
                ray.wait(last, num_returns=len(last), timeout=FAREWELL_SECONDS)
            for each in everybody:
                ray.kill(each.actor)
            if last:
                ray.wait(last, num_returns=len(last), timeout=FAREWELL_SECONDS)
