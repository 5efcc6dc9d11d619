"""Brings what a spool holds into the store, in any number of attempts, each thing once."""

from datetime import timedelta
from typing import Any

import bson
import gridfs
import numpy as np
from pymongo.database import Database

from store.spool import EPOCH, REWRITE, Artifact, Spool

# A MongoDB document holds 16 MiB, which a metric fills at about 400,000 points, and Omniboard draws
# all of them: of longer series every second, fourth, … point is shown, and all are in an artifact.
MOST_POINTS = 20_000
FULL_SERIES = "metrics.npz"


class Shipper:
    """From one spool to one database; ``ship`` may fail half-way and be called again."""

    def __init__(self, spool: Spool, database: Database) -> None:
        self._spool, self._database = spool, database
        self._files = gridfs.GridFS(database)
        self._certain = False  # whether `spool.shipped_points` is what the store has

    def ship(self) -> None:
        """Send everything new; returns when the store has acknowledged it.

        Raises:
            pymongo.errors.PyMongoError: the store is away, or refuses; nothing is lost.
        """
        entry, version = self._spool.run()
        names = self._spool.metrics()
        if not self._certain:
            self._ask_what_is_there(names)
        self._certain = False
        for name, id in names.items():
            self._ship_points(entry["_id"], name, id)
        self._certain = True
        for artifact in self._spool.waiting_artifacts():
            self._ship_file(entry["_id"], artifact)
        self._ship_run(entry, names)
        for replaced in self._spool.replaced_artifacts():
            self._files.delete(bson.ObjectId(replaced.id))
            self._spool.forget(replaced)
        self._spool.note_run(version)

    # --- metrics

    def _ask_what_is_there(self, names: dict[str, str]) -> None:
        """After a failure nobody knows whether the last words arrived."""
        ids = {bson.ObjectId(id): name for name, id in names.items()}
        found = self._database.metrics.find({"_id": {"$in": list(ids)}}, {"points": 1})
        there = {ids[document["_id"]]: document["points"] for document in found}
        doubtful = [name for name in names if self._spool.shipped_points(name) != REWRITE]
        self._spool.note_points({name: there.get(name, 0) for name in doubtful})

    def _ship_points(self, run_id: Any, name: str, id: str) -> None:
        count, sent = self._spool.count(name), self._spool.shipped_points(name)
        if count == sent:
            return
        every = stride(count)
        start = sent if sent > 0 and stride(sent) == every else 0
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
        always = {"run_id": run_id, "name": name, "every": every, "points": count}
        change.setdefault("$set", {}).update(always)
        self._database.metrics.update_one({"_id": bson.ObjectId(id)}, change, upsert=True)
        self._spool.note_points({name: count})

    # --- files and the run's document

    def _ship_file(self, run_id: Any, artifact: Artifact) -> None:
        id = bson.ObjectId(artifact.id)
        self._files.delete(id)  # a part of it, should an earlier attempt have failed
        with open(self._spool.folder / artifact.file, "rb") as file:
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
        # A run of that id in a database made anew is another one: refused as a duplicate.
        run = {"_id": document.pop("_id"), "start_time": document["start_time"]}
        self._database.runs.update_one(run, {"$set": document}, upsert=True)


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
