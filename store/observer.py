"""Our observer: what a run logs goes to disk at once and to the store when that answers."""

import io
import logging
import tempfile
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

from store.location import StoreError
from store.shipper import FULL_SERIES, Shipper, TakenOverError, full_series
from store.sources import store_sources
from store.spool import Spool, spool_folder
from store.takeover import Checkpoint, SpoolError, new_mark, take_up

log = logging.getLogger(__name__)

RETRY_SECONDS = 1.0
FINAL_SECONDS = 30.0  # that the end of a run waits for a store that does not answer
LEAST_ROOM = 1 << 16  # bytes that a run wants to begin
WAY_OUT = (
    "'docker compose up -d' in the folder sacred/ starts a MongoDB; with '-F FOLDER' the run is"
    " kept in files"
)
OUTPUT_HEAD, OUTPUT_TAIL = 100_000, 400_000  # characters of the console that are kept


class SpoolingObserver(MongoObserver):
    """Sacred's MongoObserver, but with a store that is away nothing is lost and nothing waits.

    Nor with a disk that is full. Sacred drops an observer for the rest of a run after its first
    error; from here none reaches it.
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
        self._given_up = self._is_away = False
        self._mark: dict[str, Any] = {}
        self._checkpoint: Checkpoint | None = None  # to go on from
        self._skips = False  # checkpoints, for want of room
        self._taken_over: str | None = None  # by whom

    # --- what Sacred calls

    def started_event(self, *args: Any, **kwargs: Any) -> Any:
        """See Sacred; here errors do reach it, for a run without a store had better not start."""
        try:
            database = self._find()  # not before: a config that is refused starts nothing
        except StoreError as error:
            raise SpoolError(f"{error}. {WAY_OUT}") from error
        try:
            return self._begin(database, args, kwargs)
        except OSError as error:
            reason = error.strerror or error
            raise SpoolError(f"{self._spools}: the run cannot be kept there: {reason}") from error

    def _begin(self, database: Database, args: Any, kwargs: Any) -> Any:
        if self.is_resumed:  # first of all: nothing is changed of a run that cannot go on
            entry = database.runs.find_one({"_id": self._resume})
            assert entry is not None, "store.resume has looked"
            names = ("start_time", "info", "artifacts", "captured_out", "result")
            self._kept = {name: entry[name] for name in names if name in entry}
            self._spool, self._checkpoint, self._mark = take_up(self._spools, database, entry)
        else:
            self._mark = new_mark(self._spools)
            _check_room(self._spools)
        self.initialize(database.runs, GridFS(database), self._resume, database.metrics)
        if self.overwrite is not None:
            self.overwrite = {"_id": self.overwrite["_id"]}  # leave the user's tags and notes alone
        run_id = super().started_event(*args, **kwargs)
        if self._spool is None:
            self._spool = Spool(spool_folder(self._spools, database.name, self.run_entry))
            self._spool.take()
        self._spool.put_run(self.run_entry)
        if self.is_resumed:  # before anything is sent, or it would be taken for what the store has
            self._spool.truncate(self._checkpoint[0] if self._checkpoint else 0)
            self._news.set()
        self._thread.start()
        return run_id

    def insert(self) -> None:
        """See Sacred; a run that goes on keeps what it had."""
        self.run_entry.update(self._kept, spool=self._mark)
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
        try:
            self._spool.add_artifact(name, Path(filename), metadata, content_type)
        except OSError as error:
            log.error("%s is not kept: %s", name, error)
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
        lost = self._spool.lost
        if self._spool.is_shipped:
            if self.run_entry["status"] == "COMPLETED":  # others may want to go on
                self._spool.remove()
            self._spool.release()
        else:
            self._given_up = True
            lost = [*self._spool.give_up(), *lost]
            log.error(*self._where_the_rest_lies())
        if lost:
            log.error("lost of run %s for want of room: %s", self._id, ", ".join(lost))

    def _where_the_rest_lies(self) -> tuple[str, *tuple[Any, ...]]:
        if self._taken_over:
            return "%s: nothing more was sent of what this process did", self._taken_over
        return (
            "the store does not have all of run %s: the rest lies in %s; when the store is back,"
            " send it with 'python -m store.replay'",
            *(self._id, self.spool.folder),
        )

    # --- what others ask

    @property
    def left_behind(self) -> Path | None:
        """The spool, if the run has ended and the store does not have all of it."""
        if self._spool is None:
            return None
        return self._spool.folder if self._given_up or self._spool.lost else None

    @property
    def _id(self) -> Any:
        return self.run_entry["_id"]

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

    def go_on(self) -> dict[str, Any] | None:
        """The state at the newest checkpoint, after which all that was logged is forgotten."""
        if self._checkpoint is None:
            log.warning("run %s has no checkpoint: it begins again", self._id)
            return None
        (_, state), self._checkpoint = self._checkpoint, None
        return state

    def keep(self, number: int, state: Mapping[str, Any]) -> None:
        """Keep a checkpoint; with a full disk, for the store alone."""
        try:
            if not self.spool.flush():  # what it stands on is in memory
                raise OSError("what was logged before is not written yet")
            self.spool.checkpoints.save(number, state)
        except OSError as error:
            self.spool.checkpoints.hold(number, state)
            if not self._skips:
                log.warning("no checkpoint is written: %s", error.strerror or error)
            self._skips = True
        else:
            if self._skips:
                log.warning("checkpoints are written again")
            self._skips = False
        self._news.set()

    def check_ours(self) -> None:
        """See that the run is still this process's.

        Raises:
            SpoolError: it has gone on elsewhere.
        """
        if self._taken_over is not None:
            raise SpoolError(f"{self._taken_over}: this process ends")

    # --- sending

    def _ship_on(self) -> None:
        """Send what is new, once a second at most; the body of the thread."""
        shipper: Shipper | None = None
        give_up = float("inf")
        while self._taken_over is None:
            self._news.wait(RETRY_SECONDS)
            self.spool.flush()
            ending = self._ended.is_set()  # before sending: what comes later goes another time
            if ending:
                give_up = min(give_up, time.monotonic() + FINAL_SECONDS)
            if not (ending or self._is_away or self._news.is_set()):
                continue
            self._news.clear()
            try:
                shipper = shipper or Shipper(self.spool, self._find())
                shipper.ship(last=ending)
            except TakenOverError as error:
                self._taken_over = str(error)
            except (PyMongoError, SacredError, OSError) as error:
                shipper = None  # the store may come back at another address
                self._say(error)
                if time.monotonic() > give_up:
                    return
                time.sleep(RETRY_SECONDS / 4)
            else:
                self._say(None)
                if ending:
                    return

    def _say(self, error: Exception | None) -> None:
        """Tell that the store is away, or back: once."""
        if error is not None and not self._is_away:
            reason = str(error).partition("\n")[0][:200]
            log.warning("the store is away, results are kept in %s: %s", self.spool.folder, reason)
        elif error is None and self._is_away:
            log.warning("the store is back and has everything")
        self._is_away = error is not None

    def _save_full_series(self) -> None:
        series = full_series(self.spool)
        if not series:
            return
        path, kind = self.spool.folder / FULL_SERIES, "application/octet-stream"
        try:
            np.savez_compressed(path, **series)  # type: ignore[arg-type]
            self.spool.add_artifact(FULL_SERIES, path, None, kind)
        except OSError:  # no room for it
            file = io.BytesIO()
            np.savez_compressed(file, **series)  # type: ignore[arg-type]
            self.spool.add_artifact(FULL_SERIES, file.getvalue(), None, kind)
        finally:
            path.unlink(missing_ok=True)

    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = object.__hash__


def _check_room(spools: Path) -> None:
    """Raise OSError if a run had better not begin."""
    spools.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=spools) as file:
        file.write(bytes(LEAST_ROOM))


def _shortened(text: str) -> str:
    """The beginning and the end of a long console: a document of the store has a limit."""
    if len(text) <= OUTPUT_HEAD + OUTPUT_TAIL:
        return text
    left_out = len(text) - OUTPUT_HEAD - OUTPUT_TAIL
    return f"{text[:OUTPUT_HEAD]}\n… {left_out} characters left out …\n{text[-OUTPUT_TAIL:]}"
