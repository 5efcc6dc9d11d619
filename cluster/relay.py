"""A relay, one per machine: a worker to the head, and a head to the workers of its machine.

From the head's server it pulls tickets, and the run and each task once; results it carries up many
at a time. The machine's own server is its memory: a relay that dies is replaced by another, and the
workers notice nothing. It knows neither populations nor policies: of a message it reads the header.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from typing import Any

import redis

from cluster.clients import RESULTS_EXPIRE, RESULTS_PER_POP, WorkerClient
from cluster.keys import Keys, workers_alive
from cluster.merging import merged
from cluster.tickets import MOST_PIECES, Ticket, cut, encoded, parse_ticket
from cluster.wire import MessageError, VersionError, pack, unpack

log = logging.getLogger(__name__)

WAIT_SECONDS = 0.5  # that a pop may block
STOCK_SECONDS = 0.005  # between looks at a stock that is large enough
GATHER_SECONDS = (
    0.005,
    0.04,
)  # from one batch of results that goes up to the next: at least, at most
GATHER_SHARE = 0.02  # … and in between this share of the time that their task has been here
LOT_SECONDS = 0.025  # that the pieces taken at a time should last at least
TICKETS_PER_WORKER = 4  # into which they are cut
RETRY_SECONDS = 0.5
SAY_SECONDS = 0.2  # from one word to the head to the next: what nobody claims for 0.5 s is lost
SHARES = 2  # see `evolution.redis_evaluator`


class Relay:
    """Between the head's server and the one of this machine."""

    def __init__(self, above: redis.Redis, below: redis.Redis, name: str, keys: Keys) -> None:
        """Relay for a group of workers.

        Args:
            above: the head's server.
            below: this machine's.
            name: of this machine.
        """
        self._above, self._below, self._keys = above, below, keys
        self._client = WorkerClient(above, name, keys)
        self._run_id = ""
        self._spec: dict[str, Any] = {}
        self._tasks: dict[int, int] = {}  # of this run, those that are below: number, share
        self._needs: dict[int, set[str]] = {}  # of these and the last one: keys of the supplies
        self._able = 1  # workers of this machine
        self._refused = ""  # a run whose head is of another version
        self._lock = threading.RLock()  # over what is said of run and tasks
        self._lot, self._went_up, self._fetched = _Lot(), 0.0, 0.0

    def run(self, goes_on: Callable[[], bool]) -> None:
        """Work until told to stop; whatever server is away is waited for.

        Args:
            goes_on: asked at least every second.
        """
        over = threading.Event()

        def lasts() -> bool:
            return not over.is_set() and goes_on()

        try:
            with ThreadPoolExecutor(3, "relay") as pool:
                try:
                    pool.submit(_persist, self._adopt, lasts, once=True).result()
                    steps = self._carry_down, self._carry_up, self._look_after
                    tasks = [pool.submit(_persist, step, lasts) for step in steps]
                    wait(tasks, return_when=FIRST_COMPLETED)
                finally:
                    over.set()
                for task in tasks:
                    task.result()
        finally:
            with contextlib.suppress(redis.RedisError):
                self._client.leave()

    def _adopt(self) -> None:
        """Go on where another relay of this machine was killed; its run may be over."""
        data: Any = self._below.get(self._keys.run)
        if data is None:
            return
        run_id = ""
        with contextlib.suppress(MessageError):
            run_id = str(unpack(data).get("run"))
        if not run_id or not self._fetch_run(run_id, clear=False):
            self._below.delete(*self._own(run_id))
        for name in self._below.scan_iter(self._keys.task("*")):
            _, _, number = name.decode().rpartition(":")
            if not (number.isdigit() and self._fetch_task(int(number))):
                self._below.delete(name)
        left = {name.decode() for name in self._below.scan_iter(self._keys.supply("*"))}
        if unneeded := left - set().union(*self._needs.values()):
            self._below.delete(*unneeded)

    # --- tickets, runs and tasks: down

    def _carry_down(self) -> None:
        """Keep about one ticket per worker in stock, beside those at work."""
        if self._refuses():
            time.sleep(WAIT_SECONDS)  # its tickets are for others
            return
        stock: Any = self._below.llen(self._keys.tickets)
        if stock >= self._able:
            time.sleep(STOCK_SECONDS)
            return
        self._lot.runs_low()
        ticket = self._client.take(WAIT_SECONDS)
        if ticket is None or not self._know(ticket):
            if ticket is not None and self._refused == ticket.run:
                self._client.give_back(ticket)
            return
        share = max(self._tasks.get(ticket.task, 1) // self._able, 1)
        wanted = max((self._able - stock - 1) * ticket.count, self._lot.wanted - ticket.count)
        tickets = [ticket, *self._client.take_more(ticket, share, wanted, MOST_PIECES)]
        pieces = sum(each.count for each in tickets)
        self._lot.taken(pieces)
        size = max(1, pieces // (TICKETS_PER_WORKER * self._able))
        smaller = [s for t in tickets for s in cut(t.run, t.task, t.pieces, size, t.not_for)]
        self._below.rpush(self._keys.tickets, *encoded(smaller))

    def _know(self, ticket: Ticket) -> bool:
        """Have the ticket's run and task below; false if they are over."""
        with self._lock:
            if self._run_id and not self._below.exists(self._keys.run):
                self._clear()  # the server below was started again, and is empty
            if ticket.run != self._run_id and not self._fetch_run(ticket.run):
                return False
            return ticket.task in self._tasks or self._fetch_task(ticket.task)

    def _refuses(self) -> bool:
        """True while a run is posted that this program cannot read."""
        if self._refused:
            try:
                self._client.run_spec(self._refused)
                self._refused = ""
            except VersionError:
                pass
        return bool(self._refused)

    def _posted(self, run_id: str) -> dict[str, Any] | None:
        """What workers are to set up for that run; None if it is not posted, or not for us."""
        try:
            return self._client.run_spec(run_id)
        except VersionError as error:
            if run_id != self._refused:
                log.error("relay %s refuses run %s: %s", self._client.name, run_id, error)
            self._refused = run_id
            return None

    def _fetch_run(self, run_id: str, clear: bool = True) -> bool:
        spec = self._posted(run_id)
        if spec is None:
            return False
        if clear:
            self._clear()
        self._below.set(self._keys.run, pack(spec))
        self._run_id, self._spec = run_id, spec
        log.info("relay %s serves run %s", self._client.name, run_id)
        return True

    def _fetch_task(self, number: int) -> bool:
        task = self._client.task(self._run_id, number)
        if task is None:
            return False
        if not self._fetch_supplies(number, task.get("needs") or []):
            return False
        share = task["share"]
        below = pack({**task, "share": SHARES * self._able}, bytes.fromhex(self._spec["key"]))
        self._below.set(self._keys.task(self._run_id, number), below)
        self._tasks[number], self._fetched = share, time.monotonic()
        return True

    def _fetch_supplies(self, number: int, names: list[str]) -> bool:
        """Have below what a task needs, and nothing that no task needs; false if it is over."""
        keys = {self._keys.supply(self._run_id, name) for name in names}
        there = set().union(*self._needs.values())
        self._needs = {each: self._needs[each] for each in self._tasks} | {number: keys}
        if over := there - set().union(*self._needs.values()):
            self._below.delete(*over)
        for key in keys:
            if key in there and self._below.exists(key):
                continue
            value: Any = self._above.get(key)
            if value is None:
                return False
            self._below.set(key, value)
        return True

    def _clear(self) -> None:
        """The run is over: take from the workers what they have of it."""
        if self._run_id:
            tasks = [self._keys.task(self._run_id, number) for number in self._tasks]
            supplies = set().union(*self._needs.values())
            self._below.delete(*self._own(self._run_id), *tasks, *supplies)
        self._run_id, self._spec, self._tasks, self._needs = "", {}, {}, {}

    def _own(self, run_id: str) -> list[str]:
        """What there is below of a run, but for its tasks and what has still to go up."""
        return [self._keys.run, self._keys.tickets, self._keys.banned(run_id)]

    # --- results: up

    def _carry_up(self) -> None:
        with self._lock:
            run_id, spec = self._run_id, self._spec
        if not run_id:
            time.sleep(STOCK_SECONDS)
            return
        name, now = self._keys.results(run_id), time.monotonic()
        time.sleep(max(0.0, self._went_up + gather_seconds(now - self._fetched) - now))
        first: Any = self._below.blpop([name], timeout=WAIT_SECONDS)
        if first is None:
            return
        more: Any = self._below.lpop(name, RESULTS_PER_POP - 1) or []
        results = [first[1], *more]
        try:
            with self._above.pipeline(transaction=False) as pipe:
                pipe.rpush(name, *merged(results, bytes.fromhex(spec["key"])))
                pipe.expire(name, RESULTS_EXPIRE)
                pipe.execute()
            self._went_up = time.monotonic()
        except redis.RedisError:
            with self._below.pipeline(transaction=True) as pipe:
                pipe.lpush(name, *reversed(results))
                pipe.expire(name, RESULTS_EXPIRE)  # should the run be over when it is back
                pipe.execute()
            raise

    # --- life

    def _look_after(self) -> None:
        """Say above who is here and what they hold; drop what is over there."""
        workers = workers_alive(self._below, self._keys)
        self._able = max(sum(worker["workers"] for worker in workers), 1)
        stock: Any = self._below.lrange(self._keys.tickets, 0, -1)
        with self._lock:
            if self._run_id and self._posted(self._run_id) is None:
                self._clear()
            over = [
                number
                for number in self._tasks
                if not self._above.exists(self._keys.task(self._run_id, number))
            ]
            for number in over:
                del self._tasks[number]
                self._below.delete(self._keys.task(self._run_id, number))
        if self._run_id:
            banned: Any = self._above.smembers(self._keys.banned(self._run_id))
            if banned:
                self._below.sadd(self._keys.banned(self._run_id), *banned)
        held = [piece for worker in workers for piece in worker["holds"]]
        tickets = [ticket for data in stock if (ticket := parse_ticket(data))]
        held += [[t.task, t.first, t.count] for t in tickets if t.run == self._run_id]
        able = 0 if self._refused else sum(worker["workers"] for worker in workers)
        idle = sum(worker["idle"] for worker in workers)
        idle = min(max(idle - len(stock), 0), able)
        self._client.say_all(self._run_id, held, workers=able, idle=idle)
        time.sleep(SAY_SECONDS)


def gather_seconds(age: float) -> float:
    """How long the results of a task wait for others to go with them.

    Args:
        age: seconds that the newest task has been here.
    """
    least, most = GATHER_SECONDS
    return min(max(GATHER_SHARE * age, least), most)


class _Lot:
    """How many pieces to take from above at a time: few, unless they are done in a moment."""

    def __init__(self) -> None:
        self.wanted, self._taken, self._measured = 1, 0.0, True

    def taken(self, pieces: int) -> None:
        """So many came; fewer than wanted tell nothing."""
        self._taken, self._measured = time.monotonic(), pieces < self.wanted

    def runs_low(self) -> None:
        """It is time to take more; learn from how long the last ones lasted."""
        lasted = time.monotonic() - self._taken
        if not self._measured and lasted < LOT_SECONDS:
            self.wanted = min(2 * self.wanted, MOST_PIECES)
        elif not self._measured and lasted > 4 * LOT_SECONDS:
            self.wanted = max(self.wanted // 2, 1)
        self._measured = True


def _persist(step: Callable[[], None], lasts: Callable[[], bool], once: bool = False) -> None:
    """Repeat a step; if a server is away, say so once and go on when it is back."""
    complained = False
    while lasts():
        try:
            step()
            if once:
                return
        except redis.AuthenticationError:
            raise
        except redis.RedisError as error:
            if not complained:
                log.warning("waiting: %s", str(error).partition("\n")[0])
            complained = True
            time.sleep(RETRY_SECONDS)
        else:
            complained = False
