"""Checkpoints in the store: with them a run can go on on another machine."""

import hashlib
import logging
import time
from collections.abc import Mapping
from typing import Any

import gridfs
from gridfs.errors import CorruptGridFile, NoFile
from pymongo.database import Database

from store.checkpoint import CheckpointError, decoded

log = logging.getLogger(__name__)

KEPT = 2  # the newest, and the one before should the newest be damaged
PAUSE = 10.0  # times as long as sending one took, until the next is sent


class StoredCheckpoints:
    """Those of one run: files of GridFS beside the run's artifacts.

    They take turns in one place more than are kept, so two are whole while another is written, and
    what a killed process has half sent is written over.
    """

    def __init__(self, database: Database, entry: Mapping[str, Any]) -> None:
        """See those of the run of that document; none of an earlier run of its id."""
        self._database, self._files = database, gridfs.GridFS(database)
        self._name = f"checkpoint://runs/{entry['_id']}"
        self._start = entry["start_time"]
        self._places = [f"{self._name}/{number}" for number in range(KEPT + 1)]
        self._newest: int | None = None  # not yet known
        self._not_before = 0.0

    def wants(self, number: int) -> bool:
        """True if that checkpoint is newer than those in the store."""
        if self._newest is None:
            self._newest = max(self.generations(), default=-1)
        return number > self._newest

    @property
    def rests(self) -> bool:
        """True for a while after one was sent: large ones would leave no time for anything else."""
        return time.monotonic() < self._not_before

    def generations(self) -> dict[int, Any]:
        """The generations that the checkpoints are before, each with the id of its file."""
        found = self._database.fs.files.find({"filename": self._name})
        ours = [each for each in found if each["metadata"]["start_time"] == self._start]
        return {each["metadata"]["generation"]: each["_id"] for each in ours}

    def send(self, number: int, data: bytes) -> None:
        """Store a checkpoint; older ones go, except for one.

        Raises:
            pymongo.errors.PyMongoError: the store is away, or refuses.
        """
        started = time.monotonic()
        self._newest = None
        there = self.generations()
        newest = sorted(there, reverse=True)[:KEPT]
        place = next(id for id in self._places if id not in [there[each] for each in newest])
        self._files.delete(place)  # or what is left of it
        digest = hashlib.sha256(data).hexdigest()
        about = {"generation": number, "sha256": digest, "start_time": self._start}
        self._files.put(data, _id=place, filename=self._name, metadata=about)
        for old in newest[KEPT - 1 :]:
            self._files.delete(there[old])
        self._newest = number
        self._not_before = time.monotonic() + PAUSE * (time.monotonic() - started)

    def read(self, number: int) -> tuple[bytes, dict[str, Any]]:
        """A checkpoint as it was sent, and the state in it.

        Raises:
            CheckpointError: it is damaged.
        """
        name = f"the store's checkpoint of generation {number}"
        try:
            file = self._files.get(self.generations()[number])
            data, about = file.read(), file.metadata or {}
        except (CorruptGridFile, NoFile) as error:
            raise CheckpointError(f"{name} is damaged: {error}") from error
        if hashlib.sha256(data).hexdigest() != about.get("sha256"):
            raise CheckpointError(f"{name} is damaged: its sha256 is another")
        return data, decoded(data, name)

    def forget_after(self, number: int) -> None:
        """Remove those of later generations."""
        for generation, id in self.generations().items():
            if generation > number:
                self._files.delete(id)
        self._newest = None

    def remove(self) -> None:
        """Remove all, for nobody goes on with the run."""
        for place in self._places:
            self._files.delete(place)
        self._newest = None
