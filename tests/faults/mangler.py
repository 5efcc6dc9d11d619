"""Messages in a list of a redis server, made worse."""

import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import redis
from processes import Child

from cluster.clients import KEY_BYTES
from cluster.keys import Keys
from cluster.merging import split
from cluster.wire import MessageError, pack, unpack

KEYS = Keys()
ENOUGH = 2  # messages to play with
WAIT_SECONDS = 0.3
ATTEMPTS = 10

Messages = list[bytes]


class Canary:
    """Pickled; whoever unpickles it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        import os

        return os.mkdir, (str(self.path),)


class Mangler:
    """Knows how to spoil the answers that lie in a list; keeps some for later.

    Attributes:
        bad: how many messages that must be rejected it has put into lists.
    """

    def __init__(self, head_db: redis.Redis, song: Path, rng: np.random.Generator) -> None:
        """Spoil answers to the run of ``head_db``.

        Args:
            song: would be there if anybody had executed a canary.
        """
        self._db, self._rng, self._song = head_db, rng, song
        self._kept: dict[str, bytes] = {}  # run: an answer to one of its first tasks
        self.bad = 0
        self.kinds: dict[str, Callable[[Messages], Messages]] = {
            "duplicate": self._duplicate,
            "drop": self._drop,
            "reorder": self._reorder,
            "truncate": self._truncate,
            "flip": self._flip,
            "stale": self._stale,
            "foreign": self._foreign,
            "nan": self._nan,
        }

    def spoil(self, kind: str, db: redis.Redis, reader: Child) -> bool:
        """Halt whoever takes answers from a list until there are some; change them.

        Returns:
            False: there never were any.
        """
        for _ in range(ATTEMPTS):
            reader.stop()
            try:
                if self._spoil_now(self.kinds[kind], db):
                    return True
            finally:
                reader.go_on()
            time.sleep(0.01)
        return False

    def _spoil_now(self, change: Callable[[Messages], Messages], db: redis.Redis) -> bool:
        deadline = time.monotonic() + WAIT_SECONDS
        while (run := self._run()) and time.monotonic() < deadline:
            name = KEYS.results(run)
            if int(db.llen(name)) >= ENOUGH:  # type: ignore[arg-type]
                taken: Any = db.lrange(name, 0, -1)
                self._kept.setdefault(run, taken[0])
                with db.pipeline() as pipe:
                    pipe.ltrim(name, len(taken), -1)
                    if changed := change(list(taken)):
                        pipe.lpush(name, *reversed(changed))
                    pipe.execute()
                return True
            time.sleep(0.002)
        return False

    def _spec(self) -> dict[str, Any]:
        try:
            return unpack(self._db.get(KEYS.run) or b"")  # type: ignore[arg-type]
        except (MessageError, redis.RedisError):
            return {}

    def _run(self) -> str:
        return str(self._spec().get("run", ""))

    # --- kinds

    def _one(self, messages: Messages) -> int:
        return int(self._rng.integers(len(messages)))

    def _duplicate(self, messages: Messages) -> Messages:
        return [each for each in messages for _ in range(int(self._rng.integers(2, 4)))]

    def _drop(self, messages: Messages) -> Messages:
        del messages[self._one(messages)]
        return messages

    def _reorder(self, messages: Messages) -> Messages:
        return [messages[i] for i in self._rng.permutation(len(messages))]

    def _truncate(self, messages: Messages) -> Messages:
        i = self._one(messages)
        messages[i] = messages[i][: int(self._rng.integers(len(messages[i])))]
        self.bad += 1
        return messages

    def _flip(self, messages: Messages) -> Messages:
        i = self._one(messages)
        bit = int(self._rng.integers(8 * len(messages[i])))
        data = bytearray(messages[i])
        data[bit // 8] ^= 1 << bit % 8
        messages[i] = bytes(data)
        self.bad += 1
        return messages

    def _stale(self, messages: Messages) -> Messages:
        """An answer to an old task of this run: known, and of no use; or else not known."""
        return [self._kept[self._run()], *messages]

    def _foreign(self, messages: Messages) -> Messages:
        """An answer that another run's workers have signed."""
        i = self._one(messages)
        said = unpack(messages[i], self._key())
        other = self._rng.bytes(KEY_BYTES)
        own = [data for run, data in self._kept.items() if run != self._run()]
        added = [pack(said, other), pack({**said, "run": "run-0"}, self._key()), *own]
        self.bad += len(added)
        return [*added, *messages]

    def _nan(self, messages: Messages) -> Messages:
        """A worker's mistake, well signed, instead of its answer."""
        i = self._one(messages)
        key = self._key()
        try:
            said = split(unpack(messages[i], key))
        except MessageError:  # another fault was there first
            return messages
        fitness = np.array(said[0]["fitness"])
        fitness[self._rng.integers(len(fitness))] = self._rng.choice([np.nan, np.inf, -np.inf])
        said[0]["fitness"] = fitness
        self.bad += 1
        return [*messages[:i], *(pack(each, key) for each in said), *messages[i + 1 :]]

    def _key(self) -> bytes:
        return bytes.fromhex(self._spec()["key"])

    # --- canaries

    def sing(self, head_db: redis.Redis, machine_dbs: list[redis.Redis]) -> None:
        """Put a pickle into every list, at both ends, and where workers speak."""
        song = pickle.dumps(Canary(self._song))
        run = self._run()
        for db in (head_db, *machine_dbs):
            db.lpush(KEYS.tickets, song)
            db.rpush(KEYS.tickets, song)
            db.set(KEYS.worker("canary"), song, ex=3)
            if run:
                db.rpush(KEYS.results(run), song)
                db.expire(KEYS.results(run), 3600)
                self.bad += 1
