"""What a run has logged, on this machine's disk, until the store has acknowledged all of it.

    spool/3-5f0c…/            one folder a run
        run.bson              the run's document, as last seen
        metrics/ID.f64 …      one file a metric: step, value, seconds since 1970, 24 bytes a point
        metrics.json          the metrics' names and ids
        artifacts/…           copies of the files
        artifacts.json        what each is, in the order of their coming
        shipped.json          how much of all that the store has

        checkpoints/…         see `store.checkpoint`

Nothing here talks to a store: `store.shipper` does. Written files are replaced as a whole, metrics
are only ever added to, so a process may be killed at any moment; what a full disk does not take
waits in memory, see `store.disk`.
"""

import fcntl
import io
import json
import logging
import os
import shutil
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

import bson
import numpy as np

from store.checkpoint import Checkpoints
from store.disk import MOST_HELD, Disk, FullError

log = logging.getLogger(__name__)

POINT = np.dtype([("step", "<f8"), ("value", "<f8"), ("time", "<f8")])
EPOCH = datetime(1970, 1, 1)
REWRITE = -1  # in place of a number of points: the store has others, which are to be replaced


@dataclass(frozen=True)
class Artifact:
    """A file of a run, kept until it is in the store."""

    id: str  # of the file in the store
    name: str
    file: str  # inside the spool
    metadata: dict[str, Any] | None
    content_type: str


class Spool:
    """The folder of one run; many threads may use it, and one process at a time writes."""

    def __init__(self, folder: Path, most_held: int = MOST_HELD) -> None:
        """Open the folder, making it if it is not there.

        Args:
            most_held: bytes that may wait in memory while the disk refuses.
        """
        self.folder, self.checkpoints = folder, Checkpoints(folder / "checkpoints")
        self.lost: list[str] = []  # what neither the disk nor the memory had room for
        self._lock = threading.RLock()
        self._most_held = most_held
        self._disk = Disk(folder, POINT.itemsize, most_held)
        self._taken = -1  # an open file
        self._open()

    def _open(self) -> None:
        for part in ("metrics", "artifacts"):
            (self.folder / part).mkdir(parents=True, exist_ok=True)
        self._metrics: dict[str, str] = self._read("metrics.json", {})
        files = self._read("artifacts.json", {"artifacts": [], "replaced": []})
        self._artifacts = [Artifact(**each) for each in files["artifacts"]]
        self._replaced = [Artifact(**each) for each in files["replaced"]]
        shipped = self._read("shipped.json", {"metrics": {}, "artifacts": []})
        self._shipped_metrics: dict[str, int] = shipped["metrics"]
        self._shipped_artifacts: list[str] = shipped["artifacts"]
        self._version, self._shipped_version = 0, -1

    def take(self) -> bool:
        """Become the one process that writes here, until it ends; false if another one is."""
        taken = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(taken, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(taken)
            return False
        self._taken = taken
        return True

    def release(self) -> None:
        """Let another process write."""
        if self._taken >= 0:
            os.close(self._taken)
            self._taken = -1

    # --- the run's document

    def put_run(self, entry: Mapping[str, Any]) -> None:
        """Keep the newest state of the run's document."""
        with self._lock:
            self._disk.replace("run.bson", bson.encode(entry))
            self._version += 1

    def run(self) -> tuple[dict[str, Any], int]:
        """The newest state, and a number that grows with each."""
        with self._lock:
            return bson.decode(self._disk.read("run.bson")), self._version

    # --- metrics

    def add_points(
        self, name: str, steps: Sequence[float], values: Sequence[float], times: Sequence[datetime]
    ) -> None:
        """Append to a metric."""
        points = np.empty(len(steps), POINT)
        points["step"], points["value"] = steps, values
        points["time"] = [(time - EPOCH).total_seconds() for time in times]
        with self._lock:
            if name not in self._metrics:
                self._metrics[name] = str(bson.ObjectId())
                self._write("metrics.json", self._metrics)
            try:
                self._disk.append(self._file_of(name), points.tobytes())
            except FullError as error:
                self._lose("values of metrics", error)

    def metrics(self) -> dict[str, str]:
        """The metrics so far: their names and ids."""
        with self._lock:
            return dict(self._metrics)

    def count(self, name: str) -> int:
        """How many points a metric has."""
        with self._lock:
            return self._disk.length(self._file_of(name)) // POINT.itemsize

    def points(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Points ``start`` to ``stop`` of a metric: POINT[n]."""
        with self._lock:
            stop = self.count(name) if stop is None else stop
            of_bytes = start * POINT.itemsize, max(start, stop) * POINT.itemsize
            return np.frombuffer(self._disk.part(self._file_of(name), *of_bytes), POINT)

    def truncate(self, step: float) -> None:
        """Forget the points from ``step`` on; they will be logged again.

        Raises:
            OSError: the disk refuses.
        """
        with self._lock:
            for name in self._metrics:
                points = self.points(name)
                self._disk.shorten(self._file_of(name), points[points["step"] < step].tobytes())
                self._shipped_metrics[name] = REWRITE  # whatever the store may have got
            self._write_shipped()

    def _file_of(self, name: str) -> str:
        return f"metrics/{self._metrics[name]}.f64"

    # --- artifacts

    def add_artifact(
        self, name: str, content: Path | bytes, metadata: dict[str, Any] | None, content_type: str
    ) -> None:
        """Copy a file, which takes the place of an earlier one of that name.

        Raises:
            OSError: it cannot be read.
        """
        with self._lock:
            id = str(bson.ObjectId())
            made = Artifact(id, name, f"artifacts/{id}", metadata, content_type)
            try:
                if isinstance(content, Path):
                    self._disk.add(made.file, content)
                else:
                    self._disk.add_bytes(made.file, content)
            except FullError as error:
                self._lose(name, error)
                return
            self._replaced += [each for each in self._artifacts if each.name == name]
            self._artifacts = [each for each in self._artifacts if each.name != name]
            self._artifacts.append(made)
            self._drop_unwritten()
            self._write_artifacts()
            self._version += 1  # the run's document names them

    def _drop_unwritten(self) -> None:
        """Of what has been replaced, the memory is wanted for other things."""
        for each in self.replaced_artifacts():
            if self._disk.holds(each.file):
                self.forget(each)

    def open_artifact(self, artifact: Artifact) -> BinaryIO:
        """A file that the store has not acknowledged."""
        with self._lock:
            if self._disk.holds(artifact.file):
                return io.BytesIO(self._disk.read(artifact.file))
        return open(self.folder / artifact.file, "rb")

    def artifacts(self) -> list[Artifact]:
        """All artifacts so far, whether the store has them or not."""
        with self._lock:
            return list(self._artifacts)

    def replaced_artifacts(self) -> list[Artifact]:
        """Those that others have taken the place of; the store may still have them."""
        with self._lock:
            return list(self._replaced)

    def forget(self, replaced: Artifact) -> None:
        """The store does not have it any more."""
        with self._lock:
            self._replaced.remove(replaced)
            self._disk.remove(replaced.file)
            self._write_artifacts()

    def _write_artifacts(self) -> None:
        kinds = {"artifacts": self._artifacts, "replaced": self._replaced}
        written = {kind: [vars(each) for each in found] for kind, found in kinds.items()}
        self._write("artifacts.json", written)

    # --- what others have brought into the store

    def begin_with(
        self, metrics: Mapping[str, tuple[str, np.ndarray]], artifacts: Sequence[Artifact]
    ) -> None:
        """Forget all that is here, and begin with what the store has.

        Args:
            metrics: by name, the id in the store and POINT[n].
        Raises:
            OSError: the disk refuses.
        """
        with self._lock:
            for part in ("checkpoints", "metrics", "artifacts"):
                shutil.rmtree(self.folder / part, ignore_errors=True)
            for path in self.folder.glob("*.*"):
                path.unlink()
            self._disk = Disk(self.folder, POINT.itemsize, self._most_held)
            self._open()
            self._metrics = {name: id for name, (id, _) in metrics.items()}
            self._write("metrics.json", self._metrics)
            for name, (_, points) in metrics.items():
                self._disk.shorten(self._file_of(name), points.tobytes())
            self.meet(artifacts)

    def meet(self, stored: Sequence[Artifact]) -> None:
        """Take over the files that the store has, in place of what is here under their names."""
        with self._lock:
            known = {each.id for each in (*self._artifacts, *self._replaced)}
            unknown = {each.name: each for each in stored if each.id not in known}
            self._replaced += [each for each in self._artifacts if each.name in unknown]
            self._artifacts = [each for each in self._artifacts if each.name not in unknown]
            self._artifacts += unknown.values()
            self._shipped_artifacts += [each.id for each in unknown.values()]
            self._write_artifacts()
            self._write_shipped()

    # --- what the store has

    def waiting_artifacts(self) -> list[Artifact]:
        """Those that the store has not acknowledged; of others no copy is left."""
        with self._lock:
            waiting = [each for each in self._artifacts if each.id not in self._shipped_artifacts]
            return [each for each in waiting if self._disk.has(each.file)]

    def shipped_points(self, name: str) -> int:
        """How many points of a metric the store has acknowledged."""
        return self._shipped_metrics.get(name, 0)

    def note_points(self, counts: Mapping[str, int]) -> None:
        """The store has so many points of these metrics."""
        with self._lock:
            self._shipped_metrics |= counts
            self._write_shipped()

    def note_artifact(self, artifact: Artifact) -> None:
        """The store has this file; the copy goes."""
        with self._lock:
            self._disk.remove(artifact.file)
            self._shipped_artifacts.append(artifact.id)
            self._write_shipped()

    def note_run(self, version: int) -> None:
        """The store has that state of the run's document."""
        self._shipped_version = version

    @property
    def is_shipped(self) -> bool:
        """True if the store has everything."""
        with self._lock:
            return (
                self._shipped_version == self._version
                and not self.waiting_artifacts()
                and not self._replaced
                and all(self.count(name) == self.shipped_points(name) for name in self._metrics)
            )

    def waiting_points(self, name: str) -> int:
        """How many points of a metric the store has not acknowledged."""
        return self.count(name) - max(self.shipped_points(name), 0)

    def remove(self) -> None:
        """Delete the folder: the store has everything."""
        self.release()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _write_shipped(self) -> None:
        shipped = {"metrics": self._shipped_metrics, "artifacts": self._shipped_artifacts}
        self._write("shipped.json", shipped)

    # --- what the disk has

    @property
    def is_written(self) -> bool:
        """True if a kill would lose nothing."""
        with self._lock:
            return self._disk.is_written

    def flush(self) -> bool:
        """Try to write what the disk refused earlier; true if nothing is in memory alone."""
        with self._lock:
            return self._disk.flush()

    def give_up(self) -> list[str]:
        """Write what can be written; returns in words what is lost with this process."""
        with self._lock:
            gone = set(self._disk.give_up())
            files = [each for each in self._artifacts if each.file in gone]
            self._artifacts = [each for each in self._artifacts if each.file not in gone]
            self._write_artifacts()
            names = [name for name in self._metrics if self._disk.holds(self._file_of(name))]
            metrics = [f"the newest values of {len(names)} metrics"] if names else []
            run = ["how the run ended"] if self._disk.holds("run.bson") else []
            return [*(each.name for each in files), *metrics, *run]

    def _lose(self, what: str, error: FullError) -> None:
        if what not in self.lost:
            log.error("%s: lost, for %s", what, error)
            self.lost.append(what)

    def _read(self, name: str, default: Any) -> Any:
        return json.loads(self._disk.read(name)) if self._disk.has(name) else default

    def _write(self, name: str, value: Any) -> None:
        self._disk.replace(name, json.dumps(value).encode())


def spools(folder: Path) -> Iterable[Path]:
    """The folders of runs that left something behind."""
    return sorted(path.parent for path in folder.glob("*/run.bson"))


def is_taken(folder: Path) -> bool:
    """True if a process of this machine writes there."""
    try:
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def spool_folder(spools: Path, database: str, entry: Mapping[str, Any]) -> Path:
    """The spool of a run; a run of the same id in a database made anew has another."""
    return spools / f"{database}-{entry['_id']}-{entry['start_time']:%Y%m%dT%H%M%S}"
