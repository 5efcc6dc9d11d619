"""The words that heads and workers exchange through redis, without knowing what they mean.

The head posts a run, then task after task, and one ticket for each piece of a task. A worker takes
tickets, reads the run and the task if it does not hold them yet, and pushes results. Every word
is pulled, so a process that reconnects has missed nothing.
"""

import json
import logging
import os
import re
import socket
import time
from collections.abc import Iterable, Iterator
from typing import Any

import redis

from cluster.wire import MessageError, pack, unpack

log = logging.getLogger(__name__)

RESULTS_PER_POP = 1000
_HEAD_FIELDS = {"host": str, "pid": int, "run": str, "generation": int, "rate": float}
_WORKER_FIELDS = {"host": str, "pid": int, "name": str, "doing": str}
HEAD_SECONDS = 6  # a head that has not been heard of for so long is gone
WORKER_SECONDS = 6  # likewise a worker


class Keys:
    """The names of our keys in a server: all of a group of workers share one prefix."""

    def __init__(self, group: str = "default") -> None:
        if not re.fullmatch(r"[\w.-]{1,64}", group):
            raise ValueError(f"group={group!r}: up to 64 letters, digits, '_', '.' and '-'")
        self.prefix = f"evo:{group}:"
        self.head = self.prefix + "head"  # who leads; expires
        self.run = self.prefix + "run"  # the run spec
        self.tickets = self.prefix + "tickets"

    def task(self, run_id: str) -> str:
        return f"{self.prefix}{run_id}:task"

    def results(self, run_id: str) -> str:
        return f"{self.prefix}{run_id}:results"

    def worker(self, name: str = "*") -> str:
        return f"{self.prefix}worker:{name}"


def flush(server: redis.Redis, keys: Keys) -> list[str]:
    """Delete every key of the group; workers fall into waiting. Returns the deleted names."""
    names = sorted(name.decode() for name in server.scan_iter(keys.prefix + "*", count=1000))
    if names:
        server.unlink(*names)
    return names


def workers_alive(server: redis.Redis, keys: Keys) -> list[dict[str, Any]]:
    """What each worker that was heard of lately says of itself, in the order of their names."""
    names = sorted(server.scan_iter(keys.worker(), count=1000))
    values: Any = server.mget(names) if names else []
    return [said for value in values if (said := _statement(value, _WORKER_FIELDS))]


def head_status(server: redis.Redis, keys: Keys) -> dict[str, Any] | None:
    """What the head says of itself: run, host, pid, generation, rate; None if there is none."""
    return _statement(server.get(keys.head), _HEAD_FIELDS)


def _statement(value: Any, fields: dict[str, type]) -> dict[str, Any] | None:
    """What a process says of itself; None if it says nothing, or nonsense."""
    try:
        said = json.loads(value or b"null")
    except (ValueError, RecursionError):
        return None
    fits = isinstance(said, dict) and all(type(said.get(n)) is kind for n, kind in fields.items())
    return said if fits else None


def who() -> dict[str, Any]:
    """This process, as others should name it."""
    return {"host": socket.gethostname(), "pid": os.getpid()}


def is_gone(other: dict[str, Any]) -> bool:
    """True if a process of this machine has ended; of other machines one cannot know."""
    if other["host"] != socket.gethostname():
        return False
    try:
        os.kill(other["pid"], 0)
    except (ProcessLookupError, OverflowError):  # no process has a number that large
        return True
    except PermissionError:
        pass  # alive, and another user's
    return False


class AnotherHeadError(RuntimeError):
    """The server already serves a head."""

    def __init__(self, other: dict[str, Any]) -> None:
        super().__init__(
            f"a head of run {other['run']} is at work on this server (process {other['pid']} on"
            f" {other['host']}): stop it, or use another server"
        )


class HeadClient:
    """The head's end: post runs and tasks, collect results."""

    def __init__(self, server: redis.Redis, run_id: str, keys: Keys) -> None:
        self._server, self._run_id, self.keys = server, run_id, keys
        self._status: dict[str, Any] = {**who(), "run": run_id, "generation": 0, "rate": 0.0}
        self._posted: dict[str, bytes] = {}

    def lead(self) -> None:
        """Become the one head of this group of workers.

        Raises:
            AnotherHeadError: somebody else is, and lives.
        """
        deadline = time.monotonic() + HEAD_SECONDS + 1
        while not self._say(only_if_absent=True):
            value: Any = self._server.get(self.keys.head)
            other = _statement(value, _HEAD_FIELDS)
            if other is None:
                self._remove_nonsense(value)
                continue
            if self._may_replace(other):
                continue
            if other["host"] == socket.gethostname() or time.monotonic() > deadline:
                raise AnotherHeadError(other)
            time.sleep(0.2)  # a dead head on another machine is known by its silence
        self._server.delete(self.keys.tickets)

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
        stale = (self.keys.head, self.keys.task(other["run"]), self.keys.results(other["run"]))
        self._server.delete(*stale)
        return True

    def beat(self, generation: int, rate: float) -> None:
        """Say that this head lives, and how it goes; to be called every second or two.

        Args:
            rate: environment steps per second.
        """
        self._status |= {"generation": generation, "rate": rate}
        self._say(only_if_absent=False)

    def post_run(self, spec: dict[str, Any]) -> None:
        """Declare the run; ``spec`` is what workers need to set up for it."""
        self._posted[self.keys.run] = pack({"run": self._run_id, **spec})
        self._server.set(self.keys.run, self._posted[self.keys.run])

    def post_task(self, number: int, payload: dict[str, Any], pieces: int) -> None:
        """Replace the current task and hand out a ticket for each of its pieces."""
        key = self.keys.task(self._run_id)
        self._posted[key] = pack({**payload, "run": self._run_id, "task": number})
        with self._server.pipeline() as pipe:
            pipe.delete(self.keys.tickets)
            pipe.set(key, self._posted[key])
            pipe.rpush(self.keys.tickets, *self._tickets(number, range(pieces)))
            pipe.execute()

    def repost(self, number: int, pieces: Iterable[int]) -> None:
        """Hand out tickets again, for pieces whose worker seems lost; restore what was flushed."""
        with self._server.pipeline() as pipe:
            for key, value in self._posted.items():
                pipe.set(key, value)
            pipe.delete(self.keys.tickets)
            pipe.rpush(self.keys.tickets, *self._tickets(number, pieces))
            pipe.execute()

    def tickets_left(self) -> int:
        """Tickets that nobody has taken yet."""
        left: Any = self._server.llen(self.keys.tickets)
        return left

    def results(self, timeout: float) -> Iterator[dict[str, Any] | MessageError | None]:
        """Results as they come, bad ones as the error they are; None after each silent ``timeout``.

        Args:
            timeout: seconds.
        """
        key = self.keys.results(self._run_id)
        while True:
            first: Any = self._server.blpop([key], timeout=timeout)
            if first is None:
                yield None
                continue
            more: Any = self._server.lpop(key, RESULTS_PER_POP) or []
            for data in (first[1], *more):
                try:
                    yield unpack(data)
                except MessageError as error:
                    yield error

    def close(self) -> None:
        """Leave nothing behind for workers to do: they wait for the next run."""
        run, task, results = self.keys.run, *self._run_keys()
        self._server.delete(run, task, results, self.keys.tickets, self.keys.head)

    def _run_keys(self) -> tuple[str, str]:
        return self.keys.task(self._run_id), self.keys.results(self._run_id)

    def _tickets(self, number: int, pieces: Iterable[int]) -> list[str]:
        return [f"{self._run_id}/{number}#{piece}" for piece in pieces]


class WorkerClient:
    """A worker's end: take tickets, read runs and tasks, push results."""

    def __init__(self, server: redis.Redis, name: str, keys: Keys) -> None:
        self._server, self.name, self.keys = server, name, keys

    def take(self, timeout: float) -> tuple[str, int, int] | None:
        """Wait for a ticket: its run, task and piece; None if ``timeout`` seconds bring none."""
        popped: Any = self._server.blpop([self.keys.tickets], timeout=timeout)
        return parse_ticket(popped[1]) if popped else None

    def give_back(self, run_id: str, number: int, piece: int) -> None:
        """Return a ticket that this worker cannot use."""
        self._server.lpush(self.keys.tickets, f"{run_id}/{number}#{piece}")

    def take_more(self, run_id: str, number: int, share: int, at_least: int) -> list[int]:
        """Further pieces of the same task, without waiting.

        Args:
            share: take one ``share``-th of the tickets that are left, …
            at_least: … but no fewer than this, if there are.
        """
        left: Any = self._server.llen(self.keys.tickets)
        count = max(left // share, at_least)
        if count < 1:
            return []
        popped: Any = self._server.lpop(self.keys.tickets, count) or []
        tickets = [(data, ticket) for data in popped if (ticket := parse_ticket(data))]
        newer = [data for data, ticket in tickets if ticket[:2] != (run_id, number)]
        if newer:  # the head has moved on: somebody is to have them
            self._server.lpush(self.keys.tickets, *reversed(newer))
        return [ticket[2] for _, ticket in tickets if ticket[:2] == (run_id, number)]

    def run_spec(self, run_id: str) -> dict[str, Any] | None:
        """What to set up for ``run_id``; None if the head has moved on to another run."""
        return self._message(self.keys.run, "run", run_id)

    def task(self, run_id: str, number: int) -> dict[str, Any] | None:
        """The task of that number; None if the head has moved on to another one."""
        return self._message(self.keys.task(run_id), "task", number)

    def _message(self, key: str, name: str, wanted: Any) -> dict[str, Any] | None:
        data: Any = self._server.get(key)
        if data is None:
            return None
        try:
            message = unpack(data)
        except MessageError as error:  # the head posts it anew when nobody answers
            log.warning("%s is no message: %s", key, error)
            return None
        return message if message.get(name) == wanted else None

    def push(self, run_id: str, result: dict[str, Any]) -> None:
        """Answer; the list expires by itself should nobody read it."""
        key = self.keys.results(run_id)
        with self._server.pipeline(transaction=False) as pipe:
            pipe.rpush(key, pack({**result, "run": run_id, "worker": self.name}))
            pipe.expire(key, 3600)
            pipe.execute()

    def beat(self, doing: str) -> None:
        """Say that this worker lives, and what it does."""
        value = json.dumps({"name": self.name, **who(), "doing": doing})
        self._server.set(self.keys.worker(self.name), value, ex=WORKER_SECONDS)

    def leave(self) -> None:
        """Say goodbye."""
        self._server.delete(self.keys.worker(self.name))


def parse_ticket(data: bytes) -> tuple[str, int, int] | None:
    """(run, task, piece); None for anything that is no ticket."""
    match = re.fullmatch(rb"([\w.-]+)/(\d{1,15})#(\d{1,15})", data)
    if match is None:
        return None
    return match[1].decode(), int(match[2]), int(match[3])
