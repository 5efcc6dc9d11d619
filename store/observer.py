"""Our observer: what a run logs goes to disk at once and to the store when that answers."""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from gridfs import GridFS
from pymongo.database import Database
from pymongo.errors import PyMongoError
from sacred.observers import MongoObserver
from sacred.observers.mongo import DEFAULT_MONGO_PRIORITY
from sacred.serializer import flatten
from sacred.utils import SacredError

from store.checkpoint import CheckpointError, Checkpoints
from store.shipper import FULL_SERIES, Shipper, full_series
from store.sources import store_sources
from store.spool import Spool

log = logging.getLogger(__name__)

RETRY_SECONDS = 1.0
FINAL_SECONDS = 30.0  # that the end of a run waits for a store that does not answer
OUTPUT_HEAD, OUTPUT_TAIL = 100_000, 400_000  # characters of the console that are kept


class SpoolError(SacredError):
    """A run that cannot be kept; the user sees one line."""

    def __init__(self, text: str) -> None:
        super().__init__(text, print_traceback=False)


class SpoolingObserver(MongoObserver):
    """Sacred's MongoObserver, but with a store that is away nothing is lost and nothing waits.

    Sacred drops an observer for the rest of a run after its first error; from here none reaches it.
    """

    def __init__(
        self, find: Callable[[], Database], spools: Path, resume: int | None = None
    ) -> None:
        """Observe into the store that ``find`` finds, again whenever it has gone.

        Args:
            spools: the folder in which the run's spool is made.
            resume: the id of a run that goes on.
        """
        self.priority = DEFAULT_MONGO_PRIORITY
        self.run_entry: Any = {}  # of a run that has not begun
        self._find, self._spools, self._resume = find, spools, resume
        self._kept: dict[str, Any] = {}
        self._spool: Spool | None = None
        self._news, self._ended = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._ship_on, name="store", daemon=True)
        self._given_up = False

    # --- what Sacred calls

    def started_event(self, *args: Any, **kwargs: Any) -> Any:
        """See Sacred; here errors do reach it, for a run without a store had better not start."""
        database = self._find()  # not before: a config that is refused starts nothing
        if self.is_resumed:  # first of all: nothing is changed of a run that cannot go on
            entry = database.runs.find_one({"_id": self._resume})
            assert entry is not None, "store.resume has looked"
            names = ("start_time", "info", "artifacts", "captured_out", "result")
            self._kept = {name: entry[name] for name in names if name in entry}
            self._spool = self._take_spool(database.name, entry)
        self.initialize(database.runs, GridFS(database), self._resume, database.metrics)
        if self.overwrite is not None:
            self.overwrite = {"_id": self.overwrite["_id"]}  # leave the user's tags and notes alone
        run_id = super().started_event(*args, **kwargs)
        self._spool = self._spool or self._take_spool(database.name, self.run_entry)
        self._spool.put_run(self.run_entry)
        self._thread.start()
        return run_id

    def _take_spool(self, database: str, entry: Mapping[str, Any]) -> Spool:
        folder = spool_folder(self._spools, database, entry)
        if self.is_resumed and not folder.exists():
            raise SpoolError(
                f"run {entry['_id']} has left nothing in {self._spools}: resume it on the machine"
                " and with the EVO_RUNS where it began"
            )
        spool = Spool(folder)
        if not spool.take():
            raise SpoolError(f"run {entry['_id']} is at work, in another process of this machine")
        return spool

    def insert(self) -> None:
        """See Sacred; a run that goes on keeps what it had."""
        self.run_entry.update(self._kept)
        super().insert()

    def save_sources(self, ex_info: Mapping[str, Any]) -> list[list[Any]]:
        """See Sacred; a file that the store has already is not sent again."""
        return store_sources(self.fs, Path(ex_info["base_dir"]), ex_info["sources"])

    def log_metrics(self, metrics_by_name: Mapping[str, Any], info: dict[str, Any]) -> None:
        """See Sacred."""
        assert self._spool is not None
        for name, metric in metrics_by_name.items():
            self._spool.add_points(name, metric["steps"], metric["values"], metric["timestamps"])

    def artifact_event(
        self,
        name: str,
        filename: str,
        metadata: dict[str, Any] | None = None,
        content_type: str | None = None,
    ) -> None:
        """See Sacred; the file is copied and may be deleted afterwards."""
        assert self._spool is not None
        content_type = content_type or "application/octet-stream"
        self._spool.add_artifact(name, Path(filename), metadata, content_type)
        self._news.set()

    def heartbeat_event(
        self, info: dict[str, Any], captured_out: str, beat_time: datetime, result: Any
    ) -> None:
        """See Sacred."""
        self.run_entry["info"] = flatten(info)
        self.run_entry["captured_out"] = _shortened(
            self._kept.get("captured_out", "") + captured_out
        )
        self.run_entry["heartbeat"] = beat_time
        self.run_entry["result"] = flatten(result)
        self.save()

    def save(self) -> None:
        """Keep the run's document, and let it be sent."""
        if self._spool is None:  # Sacred has just begun
            super().save()
            return
        self._spool.put_run(self.run_entry or {})
        self._news.set()

    def final_save(self, attempts: int) -> None:
        """Send what is left; wait a while for a store that is away, then tell where it lies."""
        if self._spool is None:  # the run has not even begun
            return
        self._save_full_series()
        self.save()
        self._ended.set()
        self._thread.join(2 * FINAL_SECONDS)  # it gives up by itself; a store may hang
        if self._spool.is_shipped:
            if self.run_entry["status"] == "COMPLETED":  # others may want to go on
                self._spool.remove()
            self._spool.release()
            return
        self._given_up = True
        log.error(
            "the store does not have all of run %s: the rest lies in %s; when the store is back,"
            " send it with 'python -m store.replay'",
            self._spool.run()[0]["_id"],
            self._spool.folder,
        )

    # --- what others ask

    @property
    def left_behind(self) -> Path | None:
        """The spool, if the run has ended and the store does not have all of it."""
        return self._spool.folder if self._spool is not None and self._given_up else None

    @property
    def spool(self) -> Spool:
        """What the run has logged so far."""
        assert self._spool is not None, "the run has not started"
        return self._spool

    # --- going on

    @property
    def is_resumed(self) -> bool:
        """True if the run has been at work before."""
        return self._resume is not None

    @property
    def checkpoints(self) -> Checkpoints:
        """Those of this run."""
        return Checkpoints(self.spool.folder / "checkpoints")

    def go_on(self) -> dict[str, Any] | None:
        """Forget what was logged after the newest checkpoint; returns its state, or None."""
        try:
            number, state = self.checkpoints.newest()
        except CheckpointError:
            number, state = 0, None
            log.warning("run %s has no checkpoint: it begins again", self.run_entry["_id"])
        self.spool.truncate(number)
        self._news.set()
        return state

    # --- sending

    def _ship_on(self) -> None:
        """Send what is new, once a second at most; the body of the thread."""
        shipper: Shipper | None = None
        told = False  # that the store is away
        give_up = float("inf")
        while True:
            self._news.wait(RETRY_SECONDS)
            ending = self._ended.is_set()  # before sending: what comes later goes another time
            if ending:
                give_up = min(give_up, time.monotonic() + FINAL_SECONDS)
            if not (ending or told or self._news.is_set()):
                continue
            self._news.clear()
            try:
                shipper = shipper or Shipper(self.spool, self._find())
                shipper.ship()
            except (PyMongoError, SacredError) as error:
                shipper = None  # the store may come back at another address
                if not told:
                    log.warning("the store is away, results are kept in %s: %s", *self._why(error))
                told = True
                if time.monotonic() > give_up:
                    return
                time.sleep(RETRY_SECONDS / 4)
            else:
                if told:
                    log.warning("the store is back and has everything")
                told = False
                if ending:
                    return

    def _why(self, error: Exception) -> tuple[Path, str]:
        return self.spool.folder, str(error).partition("\n")[0][:200]

    def _save_full_series(self) -> None:
        assert self._spool is not None
        series = full_series(self._spool)
        if series:
            path = self._spool.folder / FULL_SERIES
            np.savez_compressed(path, **series)  # type: ignore[arg-type]
            self._spool.add_artifact(FULL_SERIES, path, None, "application/octet-stream")

    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = object.__hash__


def spool_folder(spools: Path, database: str, entry: Mapping[str, Any]) -> Path:
    """The spool of a run; a run of the same id in a database made anew has another."""
    return spools / f"{database}-{entry['_id']}-{entry['start_time']:%Y%m%dT%H%M%S}"


def _shortened(text: str) -> str:
    """The beginning and the end of a long console: a document of the store has a limit."""
    if len(text) <= OUTPUT_HEAD + OUTPUT_TAIL:
        return text
    left_out = len(text) - OUTPUT_HEAD - OUTPUT_TAIL
    return f"{text[:OUTPUT_HEAD]}\n… {left_out} characters left out …\n{text[-OUTPUT_TAIL:]}"
