"""How a run that goes on finds what it needs, on the machine where it began or on another."""

import logging
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import bson
import numpy as np
from pymongo.database import Database
from sacred.utils import SacredError

from store.carried import StoredCheckpoints
from store.checkpoint import CheckpointError, read_checkpoint
from store.shipper import spool_id
from store.spool import EPOCH, POINT, Artifact, Spool, spool_folder

log = logging.getLogger(__name__)

Checkpoint = tuple[int, dict[str, Any]]  # the generation to come, and the state before it


class SpoolError(SacredError):
    """A run that cannot be kept, or cannot go on; the user sees one line."""

    def __init__(self, text: str) -> None:
        super().__init__(text, print_traceback=False)


def new_mark(spools: Path) -> dict[str, Any]:
    """What a run's document says of the spool from which it is sent."""
    return {"id": bson.ObjectId(), "host": socket.gethostname(), "folder": str(spools.resolve())}


def take_up(
    spools: Path, database: Database, entry: Mapping[str, Any]
) -> tuple[Spool, Checkpoint | None, dict[str, Any]]:
    """The spool from which a run goes on, its newest whole checkpoint, and the spool's mark.

    The spool is this folder's own, if nobody has been at work elsewhere since; else it is made from
    what the store has.

    Raises:
        SpoolError: there is nothing to go on from, or another process is at work.
        OSError: the disk refuses.
        pymongo.errors.PyMongoError: the store is away.
    """
    stored = StoredCheckpoints(database, entry)
    spool, is_new = _taken(spools, database, entry, stored)
    mark = _mark_of(spool)
    is_stale = is_new or spool_id(entry) not in (None, spool_id({"spool": mark}))
    for number, is_local in _newest_first(spool, stored, is_stale):
        try:
            if is_local:
                state = read_checkpoint(spool.checkpoints.file_of(number))
                spool.meet(_artifacts(entry))
            else:
                data, state = stored.read(number)
                _rebuild(spool, database, entry)
                spool.checkpoints.save_bytes(number, data)
                mark = None
        except CheckpointError as error:
            log.warning("%s; taking the one before", error)
            continue
        mark = _claimed(database, entry, mark or new_mark(spools))
        stored.forget_after(number)  # they are damaged or out of date
        return spool, (number, state), mark
    if is_new:
        spool.remove()
        raise SpoolError(f"run {entry['_id']} has no whole checkpoint in the store")
    return spool, None, _claimed(database, entry, mark or new_mark(spools))


def _taken(
    spools: Path, database: Database, entry: Mapping[str, Any], stored: StoredCheckpoints
) -> tuple[Spool, bool]:
    """The folder, in which nobody else writes now, and whether it is new."""
    folder = spool_folder(spools, database.name, entry)
    is_new = not folder.exists()
    if is_new and not stored.generations():
        raise SpoolError(
            f"run {entry['_id']} has left nothing in {spools}, and no checkpoint in the store:"
            " resume it on the machine and with the EVO_RUNS where it began"
        )
    spool = Spool(folder)
    if not spool.take():
        raise SpoolError(f"run {entry['_id']} is at work, in another process of this machine")
    return spool, is_new


def _mark_of(spool: Spool) -> dict[str, Any] | None:
    """The mark of a folder that has one already."""
    try:
        return spool.run()[0].get("spool")
    except FileNotFoundError:
        return None


def _newest_first(
    spool: Spool, stored: StoredCheckpoints, is_stale: bool
) -> list[tuple[int, bool]]:
    """All checkpoints, and which are here; after work elsewhere the store's come first."""
    here = [(number, True) for number in spool.checkpoints.numbers()]
    there = [(number, False) for number in sorted(stored.generations(), reverse=True)]
    return there + here if is_stale else sorted(here + there, reverse=True)


def _rebuild(spool: Spool, database: Database, entry: Mapping[str, Any]) -> None:
    """Fill a spool with what the store has; of the files, with their names alone."""
    log.warning("run %s goes on from what the store has of it", entry["_id"])
    metrics, thinned = {}, []
    for document in database.metrics.find({"run_id": entry["_id"]}).sort("_id", 1):
        metrics[document["name"]] = str(document["_id"]), _points(document)
        if document.get("every", 1) > 1:
            thinned.append(document["name"])
    if thinned:
        log.warning(
            "of what these metrics were until now only every second value, or fewer, is left: %s",
            ", ".join(thinned),
        )
    spool.begin_with(metrics, _artifacts(entry))


def _points(document: Mapping[str, Any]) -> np.ndarray:
    points = np.empty(len(document["steps"]), POINT)
    points["step"], points["value"] = document["steps"], document["values"]
    points["time"] = [(time - EPOCH).total_seconds() for time in document["timestamps"]]
    return points


def _artifacts(entry: Mapping[str, Any]) -> list[Artifact]:
    """What the store has of files; they are not sent again, so the rest does not matter."""
    return [
        Artifact(str(each["file_id"]), each["name"], f"artifacts/{each['file_id']}", None, "")
        for each in entry["artifacts"]
    ]


def _claimed(database: Database, entry: Mapping[str, Any], mark: dict[str, Any]) -> dict[str, Any]:
    """Note in the store from where the run is sent now: from elsewhere nothing is accepted."""
    run = {"_id": entry["_id"], "start_time": entry["start_time"], "spool.id": spool_id(entry)}
    if not database.runs.update_one(run, {"$set": {"spool": mark}}).matched_count:
        raise SpoolError(f"run {entry['_id']} is being resumed by another process")
    return mark
