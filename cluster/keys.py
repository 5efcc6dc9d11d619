"""The names of our keys in a redis server, and what heads, workers and machines say there."""

import itertools
import json
import os
import re
import socket
from typing import Any

import redis

HEAD_SECONDS = 6  # a head that has not been heard of for so long is gone
WORKER_SECONDS = 3  # likewise a worker, or a machine of many
BEAT_SECONDS = 0.75  # from one word of a worker to the next

_HEAD_FIELDS = {"host": str, "pid": int, "run": str, "generation": int, "rate": float}
_WORKER_FIELDS = {
    **{"host": str, "pid": int, "name": str, "doing": str},
    **{"workers": int, "idle": int, "holds": list},
}


class Keys:
    """The names of our keys in a server: all of a group of workers share one prefix."""

    def __init__(self, group: str = "default") -> None:
        if not isinstance(group, str) or not re.fullmatch(r"[\w.-]{1,64}", group):
            raise ValueError(f"group={group!r}: up to 64 letters, digits, '_', '.' and '-'")
        self.prefix = f"evo:{group}:"
        self.head = self.prefix + "head"  # who leads; expires
        self.run = self.prefix + "run"  # the run spec
        self.tickets = self.prefix + "tickets"

    def task(self, run_id: str, number: int | str = "*") -> str:
        return f"{self.prefix}{run_id}:task:{number}"

    def supply(self, run_id: str, name: str = "*") -> str:
        """What several tasks of a run need."""
        return f"{self.prefix}{run_id}:supply:{name}"

    def results(self, run_id: str) -> str:
        return f"{self.prefix}{run_id}:results"

    def banned(self, run_id: str) -> str:
        """Workers that are believed no more in that run."""
        return f"{self.prefix}{run_id}:banned"

    def worker(self, name: str = "*") -> str:
        return f"{self.prefix}worker:{name}"


def flush(server: redis.Redis, keys: Keys) -> list[str]:
    """Delete every key of the group; workers fall into waiting. Returns the deleted names."""
    names = sorted(name.decode() for name in server.scan_iter(keys.prefix + "*", count=1000))
    if names:
        server.unlink(*names)
    return names


def workers_alive(server: redis.Redis, keys: Keys) -> list[dict[str, Any]]:
    """What each worker, or machine of workers, that was heard of lately says, ordered by name.

    ``doing`` is a run or "", ``workers`` how many speak in this name, ``idle`` how many of them
    have nothing to do, ``holds`` the pieces that they have taken: [task, first, count] each.
    """
    names = sorted(server.scan_iter(keys.worker(), count=1000))
    values: Any = server.mget(names) if names else []
    return [said for value in values if (said := worker_statement(value))]


def worker_statement(value: Any) -> dict[str, Any] | None:
    """What a worker says of itself; None if it says nothing, or nonsense."""
    said = _statement(value, _WORKER_FIELDS)
    if said is None or not 0 <= said["idle"] <= said["workers"] <= 1 << 20:
        return None
    return said if _are_held(said["holds"]) else None


def _are_held(pieces: list[Any]) -> bool:
    """Whether they are lists of task, first piece and count; there may be thousands."""
    if not set(map(type, pieces)) <= {list} or not set(map(len, pieces)) <= {3}:
        return False
    numbers = list(itertools.chain.from_iterable(pieces))
    return set(map(type, numbers)) <= {int} and all(0 <= n < 1 << 62 for n in numbers)


def head_status(server: redis.Redis, keys: Keys) -> dict[str, Any] | None:
    """What the head says of itself: run, host, pid, generation, rate; None if there is none."""
    return head_statement(server.get(keys.head))


def head_statement(value: Any) -> dict[str, Any] | None:
    """What a head says of itself; None if it says nothing, or nonsense."""
    return _statement(value, _HEAD_FIELDS)


def _statement(value: Any, fields: dict[str, type]) -> dict[str, Any] | None:
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
