"""The command of every experiment by which a run goes on where it stopped."""

import socket
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from pymongo.database import Database
from sacred.utils import SacredError

from store.spool import is_taken, spool_folder

# Settings of where the work is done; all others are the run's own.
WHERE = (
    *("num_workers", "evaluator", "redis", "local", "group", "min_task_runtime"),
    *("ray_address", "use_ray", "num_processors", "checkpoint_every"),
)
HEARTBEAT_PATIENCE = timedelta(seconds=40)  # after so long a head on another machine counts as gone


class ResumeError(SacredError):
    """A run that cannot go on; the user sees one line."""

    def __init__(self, text: str) -> None:
        super().__init__(text, print_traceback=False)


def run_to_resume(
    database: Database, updates: Mapping[str, Any], experiment: str
) -> tuple[int, dict[str, Any]]:
    """The id and the config of the run that is to go on.

    Args:
        updates: what stood on the command line: ``run_id``, and where to work.
        experiment: the name of the experiment that was asked.
    Raises:
        ResumeError: with what is wrong.
    """
    others = [name for name in updates if name not in ("run_id", *WHERE)]
    if others:
        raise ResumeError(
            f"{', '.join(others)} cannot be changed when a run is resumed: only {', '.join(WHERE)}"
            " can. A new run begins with another's policy by load_from=RUN_ID"
        )
    run_id = updates.get("run_id")
    if type(run_id) is not int:
        raise ResumeError(f"run_id={run_id!r}: say 'resume with run_id=NUMBER'")
    entry = database.runs.find_one({"_id": run_id})
    if entry is None:
        raise ResumeError(f"no run {run_id} in the store. {_known(database)}")
    name = entry["experiment"]["name"]
    if name != experiment:
        raise ResumeError(f"run {run_id} is of experiment {name}, this is {experiment}")
    if entry["status"] == "COMPLETED":
        raise ResumeError(f"run {run_id} is complete; begin a new one with load_from={run_id}")
    _check_gone(database.name, entry)
    config = {key: value for key, value in entry["config"].items() if key != "__doc__"}
    return run_id, {**config, **{key: updates[key] for key in WHERE if key in updates}}


def _known(database: Database) -> str:
    newest = [each["_id"] for each in database.runs.find({}, {"_id": 1}).sort("_id", -1).limit(5)]
    return f"The newest are {', '.join(map(str, newest))}" if newest else "There are none yet"


def _check_gone(database: str, entry: Mapping[str, Any]) -> None:
    """Refuse a run that is at work; on this machine the lock of its spool tells."""
    head, beat, mark = entry["info"].get("head", {}), entry["heartbeat"], entry.get("spool") or {}
    if mark.get("host") == socket.gethostname():
        folder = spool_folder(Path(mark["folder"]), database, entry)
        if is_taken(folder):
            raise ResumeError(f"run {entry['_id']} is at work, in another process of this machine")
        if folder.exists():
            return
    elif head.get("host") == socket.gethostname():
        return  # from before there were marks
    if entry["status"] != "RUNNING":
        return
    if beat is not None and datetime.utcnow() - beat < HEARTBEAT_PATIENCE:
        raise ResumeError(
            f"run {entry['_id']} is at work: process {head.get('pid')} on {head.get('host')}."
            " End that first; if it was killed, wait a minute"
        )
