"""Brings what a spool holds into the store, in any number of attempts, each thing once."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import bson
import gridfs
import numpy as np
from pymongo.database import Database

from store.carried import StoredCheckpoints
from store.spool import EPOCH, REWRITE, Artifact, Spool

# A MongoDB document holds 16 MiB, which a metric fills at about 400,000 points, and Omniboard draws
# all of them: of longer series every second, fourth, … point is shown, and all are in an artifact.
MOST_POINTS = 20_000
FULL_SERIES = "metrics.npz"


class TakenOverError(RuntimeError):
    """The run has gone on from another folder: nothing from here may get into the store."""


class Shipper:
    """From one spool to one database; ``ship`` may fail half-way and be called again."""

    def __init__(self, spool: Spool, database: Database) -> None:
        self._spool, self._database = spool, database
        self._files = gridfs.GridFS(database)
        self._certain = False  # whether `spool.shipped_points` is what the store has
        self._checkpoints: StoredCheckpoints | None = None

    def ship(self, last: bool = False) -> None:
        """Send everything new; returns when the store has acknowledged it.

        Args:
            last: nothing comes afterwards, so the newest checkpoint is not left for another time.
        Raises:
            pymongo.errors.PyMongoError: the store is away, or refuses; nothing is lost.
            TakenOverError: the run has gone on elsewhere.
            OSError: the disk cannot be read.
        """
        entry, version = self._spool.run()
        self._check_that_it_is_ours(entry)
        checkpoint = self._due_checkpoint(entry, last)  # what it stands on is in the spool
        names = self._spool.metrics()
        if not self._certain:
            self._ask_what_is_there(names)
        self._certain = False
        for name, id in names.items():
            self._ship_points(entry, name, id)
        self._certain = True
        for artifact in self._spool.waiting_artifacts():
            self._ship_file(entry["_id"], artifact)
        self._ship_run(entry, names)
        for replaced in self._spool.replaced_artifacts():
            self._files.delete(bson.ObjectId(replaced.id))
            self._spool.forget(replaced)
        self._spool.note_run(version)
        if checkpoint is not None and self._checkpoints is not None:
            self._check_that_it_is_ours(entry)  # once more: the rest may have taken long
            self._checkpoints.send(*checkpoint)
        if entry["status"] == "COMPLETED":
            StoredCheckpoints(self._database, entry).remove()

    def _check_that_it_is_ours(self, entry: Mapping[str, Any]) -> None:
        run = {"_id": entry["_id"], "start_time": entry["start_time"]}
        there = self._database.runs.find_one(run, {"spool": 1})
        if there is not None and spool_id(there) not in (None, spool_id(entry)):
            where = f"{there['spool']['host']}, {there['spool']['folder']}"
            raise TakenOverError(f"run {entry['_id']} has gone on elsewhere ({where})")

    def _due_checkpoint(self, entry: Mapping[str, Any], last: bool) -> tuple[int, bytes] | None:
        """The newest checkpoint if it should be sent now."""
        number = self._spool.checkpoints.newest_number()
        if number < 0 or entry["status"] == "COMPLETED":
            return None
        self._checkpoints = self._checkpoints or StoredCheckpoints(self._database, entry)
        if not self._checkpoints.wants(number) or (self._checkpoints.rests and not last):
            return None
        return self._spool.checkpoints.newest_bytes()

    # --- metrics

    def _ask_what_is_there(self, names: dict[str, str]) -> None:
        """After a failure nobody knows whether the last words arrived."""
        ids = {bson.ObjectId(id): name for name, id in names.items()}
        found = self._database.metrics.find({"_id": {"$in": list(ids)}}, {"points": 1})
        there = {ids[document["_id"]]: document["points"] for document in found}
        doubtful = [name for name in names if self._spool.shipped_points(name) != REWRITE]
        self._spool.note_points({name: there.get(name, 0) for name in doubtful})

    def _ship_points(self, entry: Mapping[str, Any], name: str, id: str) -> None:
        count, sent = self._spool.count(name), self._spool.shipped_points(name)
        if count == sent:
            return
        every = stride(count)
        start = sent if 0 < sent < count and stride(sent) == every else 0
        points = self._spool.points(name, start, count)
        shown = points[(-start) % every :: every]
        columns = {
            "steps": [_whole(step) for step in shown["step"].tolist()],
            "values": shown["value"].tolist(),
            "timestamps": [EPOCH + timedelta(seconds=t) for t in shown["time"].tolist()],
        }
        if start > 0:
            change = {"$push": {key: {"$each": column} for key, column in columns.items()}}
        else:
            change = {"$set": columns}
        about = {"run_id": entry["_id"], "name": name, "every": every, "points": count}
        change.setdefault("$set", {}).update(about, spool=spool_id(entry))
        metric: dict[str, Any] = {"_id": bson.ObjectId(id)}
        if sent != REWRITE:  # what was rewritten elsewhere is refused as a duplicate
            metric["spool"] = {"$in": [None, spool_id(entry)]}
        self._database.metrics.update_one(metric, change, upsert=True)
        self._spool.note_points({name: count})

    # --- files and the run's document

    def _ship_file(self, run_id: Any, artifact: Artifact) -> None:
        id = bson.ObjectId(artifact.id)
        self._files.delete(id)  # a part of it, should an earlier attempt have failed
        with self._spool.open_artifact(artifact) as file:
            self._files.put(
                file,
                _id=id,
                filename=f"artifact://runs/{run_id}/{artifact.name}",
                metadata=artifact.metadata,
                content_type=artifact.content_type,
            )
        self._spool.note_artifact(artifact)

    def _ship_run(self, entry: dict[str, Any], names: dict[str, str]) -> None:
        there = [{"name": name, "id": id} for name, id in names.items()]
        info = {**entry["info"], **({"metrics": there} if there else {})}
        artifacts = [
            {"name": each.name, "file_id": bson.ObjectId(each.id)}
            for each in self._spool.artifacts()
        ]
        document = {**entry, "info": info, "artifacts": artifacts}
        # Only what is ours: tags and notes are the user's, set in Omniboard meanwhile.
        # A run of that id in a database made anew is another one, and one that has gone on from
        # another folder is not ours any more: refused as a duplicate.
        run = {"_id": document.pop("_id"), "start_time": document["start_time"]}
        run["spool.id"] = {"$in": [None, spool_id(entry)]}
        self._database.runs.update_one(run, {"$set": document}, upsert=True)


def spool_id(entry: Mapping[str, Any]) -> Any:
    """By which the folder is told from which a run is sent; None in older documents."""
    return (entry.get("spool") or {}).get("id")


def stride(count: int) -> int:
    """Of ``count`` points, which are shown: every first, second, fourth, …"""
    every = 1
    while -(-count // every) > MOST_POINTS:
        every *= 2
    return every


def _whole(step: float) -> int | float:
    return int(step) if step.is_integer() else step


def full_series(spool: Spool) -> dict[str, np.ndarray]:
    """All points of the metrics of which the store shows a part."""
    names = [name for name in spool.metrics() if stride(spool.count(name)) > 1]
    return {name: spool.points(name) for name in names}
