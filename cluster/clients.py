"""What heads and workers exchange through redis, without knowing what it means.

The head posts a run, then task after task, and tickets for the pieces of each task. A worker takes
tickets, reads the run and the task if it does not hold them yet, and pushes results. Every word
is pulled, so a process that reconnects has missed nothing.
"""

import json
import logging
import re
import secrets
import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import redis

from cluster.keys import (
    HEAD_SECONDS,
    WORKER_SECONDS,
    Keys,
    head_statement,
    is_gone,
    who,
)
from cluster.tickets import Ticket, encoded, parse_ticket
from cluster.wire import MessageError, VersionError, pack, unpack

log = logging.getLogger(__name__)

RESULTS_PER_POP = 1000
GATHER_SECONDS = 0.002  # from one batch of results that a head takes to the next
RESULT_BYTES = 1 << 28  # that one answer may have
KEY_BYTES = 32
RESULTS_EXPIRE = 3600  # seconds after the last answer, should nobody read them
_NOT_MINE = 0.02  # seconds of pause for a worker that got a ticket which is for others


class AnotherHeadError(RuntimeError):
    """The server already serves a head."""

    def __init__(self, other: dict[str, Any]) -> None:
        super().__init__(
            f"a head of run {other['run']} is at work on this server (process {other['pid']} on"
            f" {other['host']}): stop it, or use another server or another group"
        )


class HeadClient:
    """The head's end: post runs and tasks, collect results."""

    def __init__(self, server: redis.Redis, run_id: str, keys: Keys) -> None:
        self._server, self._run_id, self.keys = server, run_id, keys
        self._status: dict[str, Any] = {**who(), "run": run_id, "generation": 0, "rate": 0.0}
        self._key = secrets.token_bytes(KEY_BYTES)
        self._collected = 0.0  # when, on time.monotonic()
        self._posted: dict[str, bytes] = {}  # what must be there as long as the run lasts
        self._needs: dict[int, set[str]] = {}  # of each task, keys of the supplies
        self._unneeded: set[str] = set()  # keys that are still at the server

    # --- leading

    def lead(self) -> None:
        """Become the one head of this group of workers.

        Raises:
            AnotherHeadError: somebody else is, and lives.
        """
        deadline = time.monotonic() + HEAD_SECONDS + 1
        while not self._say(only_if_absent=True):
            value: Any = self._server.get(self.keys.head)
            other = head_statement(value)
            if other is None:
                self._remove_nonsense(value)
                continue
            if self._may_replace(other):
                continue
            if other["host"] == socket.gethostname() or time.monotonic() > deadline:
                raise AnotherHeadError(other)
            time.sleep(0.2)  # a dead head on another machine is known by its silence
        self._remove_leavings()

    def _say(self, *, only_if_absent: bool) -> bool:
        value = json.dumps(self._status)
        return bool(self._server.set(self.keys.head, value, nx=only_if_absent, ex=HEAD_SECONDS))

    def _remove_nonsense(self, value: bytes | None) -> None:
        if value is not None:
            log.warning("%s held %r, which no head says: deleting it", self.keys.head, value[:80])
            self._server.delete(self.keys.head)

    def _may_replace(self, other: dict[str, Any]) -> bool:
        """Take the place of a head of this machine whose process is gone."""
        if not is_gone(other):
            return False
        log.info("the head of run %s is gone: taking its place", other["run"])
        self._server.delete(self.keys.head)
        return True

    def _remove_leavings(self) -> None:
        """Delete what heads that were killed have left, perhaps long ago; workers may stay."""
        head, worker = self.keys.head.encode(), self.keys.worker("").encode()
        names = self._server.scan_iter(self.keys.prefix + "*", count=1000)
        if left := [name for name in names if name != head and not name.startswith(worker)]:
            self._server.unlink(*left)

    def beat(self, generation: int, rate: float) -> None:
        """Say that this head lives, and how it goes; to be called every second or two.

        Args:
            rate: environment steps per second.
        Raises:
            AnotherHeadError: this one was silent for so long that another took its place.
        """
        other = head_statement(self._server.get(self.keys.head))
        if other is not None and other["run"] != self._run_id:
            raise AnotherHeadError(other)
        self._status |= {"generation": generation, "rate": rate}
        self._say(only_if_absent=False)

    # --- posting

    def post_run(self, spec: dict[str, Any]) -> None:
        """Declare the run; ``spec`` is what workers need to set up for it."""
        said = {"run": self._run_id, "key": self._key.hex(), **spec}
        self._posted[self.keys.run] = pack(said)
        self._server.set(self.keys.run, self._posted[self.keys.run])

    def add_task(
        self,
        number: int,
        payload: dict[str, Any],
        supplies: Mapping[str, Callable[[], np.ndarray]] | None = None,
    ) -> None:
        """Hold a task ready for ``post``; it stays until ``end_task``.

        Args:
            supplies: what it needs beside itself, which mostly the tasks before it needed too:
                names, and what makes those that are new. They stay as long as tasks need them.
        """
        said = {**payload, "run": self._run_id, "task": number}
        if supplies:
            said["needs"] = list(supplies)
        self._needs[number] = {self.keys.supply(self._run_id, name) for name in supplies or {}}
        for key in self._supplied() - set().union(*self._needs.values()):
            del self._posted[key]
            self._unneeded.add(key)
        for name, make in (supplies or {}).items():
            key = self.keys.supply(self._run_id, name)
            if key not in self._posted:
                self._posted[key] = pack({"name": name, "values": make()}, self._key)
        self._posted[self.keys.task(self._run_id, number)] = pack(said, self._key)

    def _supplied(self) -> set[str]:
        beginning = self.keys.supply(self._run_id, "")
        return {key for key in self._posted if key.startswith(beginning)}

    def post(self, number: int, tickets: Sequence[Ticket]) -> None:
        """Put the task where workers find it, and its tickets behind all others."""
        key = self.keys.task(self._run_id, number)
        lacking = self._lacking(self._needs[number])
        with self._server.pipeline() as pipe:
            for each in (*lacking, key):
                pipe.set(each, self._posted[each])
            pipe.rpush(self.keys.tickets, *encoded(tickets))
            if self._unneeded:
                pipe.delete(*self._unneeded)
            pipe.execute()
        self._unneeded = set()

    def _lacking(self, supplies: Iterable[str]) -> list[str]:
        """Those that the server has not: they may be large."""
        return [key for key in supplies if not self._server.exists(key)]

    def repost(self, tickets: Sequence[Ticket]) -> None:
        """Hand out tickets again, before all others; restore what the server may have lost."""
        supplied = self._supplied()
        lacking = self._lacking(supplied)
        with self._server.pipeline() as pipe:
            for key in [*lacking, *(self._posted.keys() - supplied)]:
                pipe.set(key, self._posted[key])
            if tickets:
                pipe.lpush(self.keys.tickets, *reversed(encoded(tickets)))
            pipe.execute()

    def copy(self, tickets: Sequence[Ticket]) -> None:
        """Hand out tickets again, before all others."""
        self._server.lpush(self.keys.tickets, *reversed(encoded(tickets)))

    def end_task(self, number: int) -> None:
        """The task is done: whoever finds a ticket of it throws that away."""
        key = self.keys.task(self._run_id, number)
        del self._posted[key], self._needs[number]
        self._server.delete(key)

    def next_ticket(self) -> Ticket | None:
        """The first that nobody has taken yet; what lies before it is nobody's, and goes."""
        name = self.keys.tickets
        while (first := self._server.lindex(name, 0)) is not None:
            ticket = parse_ticket(first)  # type: ignore[arg-type]
            if ticket is not None and ticket.run == self._run_id:
                return ticket
            self._server.lrem(name, 1, first)  # type: ignore[arg-type]
        return None

    def forget_tickets(self) -> None:
        """Take back all that nobody has taken."""
        self._server.delete(self.keys.tickets)

    def ban(self, worker: str) -> None:
        """Give a worker nothing more of this run."""
        self._server.sadd(self.keys.banned(self._run_id), worker)

    # --- collecting

    def results(self, timeout: float) -> list[bytes]:
        """What has come, as it came; nothing after ``timeout`` seconds of silence."""
        key = self.keys.results(self._run_id)
        time.sleep(max(0.0, self._collected + GATHER_SECONDS - time.monotonic()))
        first: Any = self._server.blpop([key], timeout=timeout)
        if first is None:
            return []
        self._collected = time.monotonic()
        more: Any = self._server.lpop(key, RESULTS_PER_POP) or []
        return [first[1], *more]

    def read(self, data: bytes) -> dict[str, Any]:
        """A result of this run.

        Raises:
            MessageError: it is none.
        """
        return unpack(data, self._key, RESULT_BYTES)

    def close(self) -> None:
        """Leave nothing behind for workers to do: they wait for the next run."""
        own = self._keys_of(self._run_id)
        self._server.delete(self.keys.run, self.keys.tickets, self.keys.head, *own)

    def _keys_of(self, run_id: str) -> list[str]:
        own = [self.keys.results(run_id), self.keys.banned(run_id)]
        for many in (self.keys.task(run_id), self.keys.supply(run_id)):
            own += [name.decode() for name in self._server.scan_iter(many, count=1000)]
        return own


class WorkerClient:
    """A worker's end: take tickets, read runs and tasks, push results."""

    def __init__(self, server: redis.Redis, name: str, keys: Keys) -> None:
        self._server, self.name, self.keys = server, name, keys
        self._run_keys: dict[str, bytes] = {}

    # --- tickets

    def take(self, timeout: float) -> Ticket | None:
        """Wait for a ticket; None if ``timeout`` seconds bring none, or one for others."""
        popped: Any = self._server.blpop([self.keys.tickets], timeout=timeout)
        ticket = parse_ticket(popped[1]) if popped else None
        if ticket is not None and ticket.not_for == self.name:
            self._leave_to_others([ticket])
            time.sleep(_NOT_MINE)
            return None
        return ticket

    def give_back(self, *tickets: Ticket) -> None:
        """Return tickets that this worker cannot use."""
        self._server.lpush(self.keys.tickets, *reversed(encoded(tickets)))

    def take_more(self, like: Ticket, share: int, at_least: int, at_most: int) -> list[Ticket]:
        """Further tickets of the same task, without waiting.

        Args:
            like: the ticket that was taken; others are taken to be of its size.
            share: take one ``share``-th of the tickets that are left, …
            at_least: … but no fewer pieces than this, if there are, …
            at_most: … and no more than this.
        """
        left: Any = self._server.llen(self.keys.tickets)
        wanted = min(max(left // share, at_least // like.count), at_most // like.count - 1)
        if wanted < 1:
            return []
        popped: Any = self._server.lpop(self.keys.tickets, wanted) or []
        tickets = [ticket for data in popped if (ticket := parse_ticket(data))]
        if for_others := [each for each in tickets if each.not_for == self.name]:
            self._leave_to_others(for_others)
        usable = [each for each in tickets if each.not_for != self.name]
        same = like.run, like.task
        if others := [each for each in usable if (each.run, each.task) != same]:
            self.give_back(*others)
        return [each for each in usable if (each.run, each.task) == same]

    def _leave_to_others(self, tickets: Sequence[Ticket]) -> None:
        """Put them behind all others, so as not to get them at once again."""
        self._server.rpush(self.keys.tickets, *encoded(tickets))

    # --- runs and tasks

    def run_spec(self, run_id: str) -> dict[str, Any] | None:
        """What to set up for ``run_id``; None if the head has moved on to another run.

        Raises:
            VersionError: the head is older or newer than this program.
        """
        spec = self._message(self.keys.run, b"")
        if spec is None or spec.get("run") != run_id:
            return None
        key = spec.get("key")
        if not isinstance(key, str) or not re.fullmatch(f"[0-9a-f]{{{2 * KEY_BYTES}}}", key):
            log.warning("%s has no key", self.keys.run)
            return None
        self._run_keys = {run_id: bytes.fromhex(key)}
        return spec

    def task(self, run_id: str, number: int) -> dict[str, Any] | None:
        """The task of that number; None if it is over."""
        key = self._run_keys.get(run_id)
        if key is None:
            return None
        task = self._message(self.keys.task(run_id, number), key)
        fits = task is not None and (task.get("run"), task.get("task")) == (run_id, number)
        return task if fits else None

    def supply(self, run_id: str, name: str) -> np.ndarray | None:
        """What tasks need; None if none of those that are posted does."""
        key, at = self._run_keys.get(run_id), self.keys.supply(run_id, name)
        said = self._message(at, key, delete=True) if key else None
        values = said.get("values") if said and said.get("name") == name else None
        return values if isinstance(values, np.ndarray) else None

    def _message(self, name: str, key: bytes, delete: bool = False) -> dict[str, Any] | None:
        data: Any = self._server.get(name)
        if data is None:
            return None
        try:
            return unpack(data, key)
        except VersionError:
            raise
        except MessageError as error:  # the head posts it anew when nobody answers
            log.warning("%s is no message: %s", name, error)
            if delete:
                self._server.delete(name)
            return None

    # --- answers

    def push(self, run_id: str, result: dict[str, Any]) -> None:
        """Answer; the list expires by itself should nobody read it."""
        name = self.keys.results(run_id)
        data = pack({**result, "run": run_id, "worker": self.name}, self._run_keys[run_id])
        with self._server.pipeline(transaction=False) as pipe:
            pipe.rpush(name, data)
            pipe.expire(name, RESULTS_EXPIRE)
            pipe.execute()

    def say(self, doing: str, holds: Sequence[Ticket] = (), able: bool = True) -> None:
        """Say that this worker lives, and what it has taken; to be called every second.

        Args:
            doing: a run, or nothing.
            able: false if it cannot serve that run.
        """
        held = [[ticket.task, ticket.first, ticket.count] for ticket in holds]
        self.say_all(doing, held, workers=int(able), idle=int(able and not held))

    def say_all(self, doing: str, held: list[list[int]], *, workers: int, idle: int) -> None:
        """Say so for a machine of many workers; see `cluster.keys.workers_alive`."""
        said = {"name": self.name, **who(), "doing": doing, "holds": held}
        value = json.dumps({**said, "workers": workers, "idle": idle})
        self._server.set(self.keys.worker(self.name), value, ex=WORKER_SECONDS)

    def is_banned(self, run_id: str) -> bool:
        """True if the head of that run gives this worker nothing more."""
        return bool(self._server.sismember(self.keys.banned(run_id), self.name))

    def leave(self) -> None:
        """Say goodbye."""
        self._server.delete(self.keys.worker(self.name))
