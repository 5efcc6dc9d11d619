"""What a run has logged, on this machine's disk, until the store has acknowledged all of it.

    spool/3-5f0c…/            one folder a run
        run.bson              the run's document, as last seen
        metrics/ID.f64 …      one file a metric: step, value, seconds since 1970, 24 bytes a point
        metrics.json          the metrics' names and ids
        artifacts/…           copies of the files
        artifacts.json        what each is, in the order of their coming
        shipped.json          how much of all that the store has

Nothing here talks to a store: `store.shipper` does. Written files are replaced as a whole, metrics
are only ever added to, so a process may be killed at any moment.
"""

import fcntl
import json
import os
import shutil
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import bson
import numpy as np

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

    def __init__(self, folder: Path) -> None:
        """Open the folder, making it if it is not there."""
        self.folder = folder
        self._lock = threading.RLock()
        for part in ("metrics", "artifacts"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        self._metrics: dict[str, str] = self._read("metrics.json", {})
        files = self._read("artifacts.json", {"artifacts": [], "replaced": []})
        self._artifacts = [Artifact(**each) for each in files["artifacts"]]
        self._replaced = [Artifact(**each) for each in files["replaced"]]
        shipped = self._read("shipped.json", {"metrics": {}, "artifacts": []})
        self._shipped_metrics: dict[str, int] = shipped["metrics"]
        self._shipped_artifacts: list[str] = shipped["artifacts"]
        self._version, self._shipped_version = 0, -1
        self._taken = -1  # an open file

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
            _replace(self.folder / "run.bson", bson.encode(entry))
            self._version += 1

    def run(self) -> tuple[dict[str, Any], int]:
        """The newest state, and a number that grows with each."""
        with self._lock:
            return bson.decode((self.folder / "run.bson").read_bytes()), self._version

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
            with open(self._file_of(name), "ab") as file:
                file.write(points.tobytes())

    def metrics(self) -> dict[str, str]:
        """The metrics so far: their names and ids."""
        with self._lock:
            return dict(self._metrics)

    def count(self, name: str) -> int:
        """How many points a metric has."""
        file = self._file_of(name)
        return file.stat().st_size // POINT.itemsize if file.exists() else 0

    def points(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Points ``start`` to ``stop`` of a metric: POINT[n]."""
        wanted = (self.count(name) if stop is None else stop) - start
        if wanted <= 0:
            return np.empty(0, POINT)
        return np.fromfile(self._file_of(name), POINT, wanted, offset=start * POINT.itemsize)

    def truncate(self, step: float) -> None:
        """Forget the points from ``step`` on; they will be logged again."""
        with self._lock:
            for name in self._metrics:
                points = self.points(name)
                kept = points[points["step"] < step]
                file = self._file_of(name)
                if file.exists() and file.stat().st_size > kept.nbytes:  # or half a point more
                    _replace(file, kept.tobytes())
                    self._shipped_metrics[name] = REWRITE
            self._write_shipped()

    def _file_of(self, name: str) -> Path:
        return self.folder / "metrics" / f"{self._metrics[name]}.f64"

    # --- artifacts

    def add_artifact(
        self, name: str, path: Path, metadata: dict[str, Any] | None, content_type: str
    ) -> None:
        """Copy a file, which takes the place of an earlier one of that name."""
        with self._lock:
            id = str(bson.ObjectId())
            shutil.copyfile(path, self.folder / "artifacts" / id)
            self._replaced += [each for each in self._artifacts if each.name == name]
            self._artifacts = [each for each in self._artifacts if each.name != name]
            self._artifacts.append(Artifact(id, name, f"artifacts/{id}", metadata, content_type))
            self._write_artifacts()
            self._version += 1  # the run's document names them

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
            self._write_artifacts()
            (self.folder / replaced.file).unlink(missing_ok=True)

    def _write_artifacts(self) -> None:
        kinds = {"artifacts": self._artifacts, "replaced": self._replaced}
        written = {kind: [asdict(each) for each in found] for kind, found in kinds.items()}
        self._write("artifacts.json", written)

    # --- what the store has

    def waiting_artifacts(self) -> list[Artifact]:
        """Those that the store has not acknowledged."""
        with self._lock:
            return [each for each in self._artifacts if each.id not in self._shipped_artifacts]

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
            self._shipped_artifacts.append(artifact.id)
            self._write_shipped()
            (self.folder / artifact.file).unlink(missing_ok=True)

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
        shutil.rmtree(self.folder)

    def _write_shipped(self) -> None:
        shipped = {"metrics": self._shipped_metrics, "artifacts": self._shipped_artifacts}
        self._write("shipped.json", shipped)

    # --- files

    def _read(self, name: str, default: Any) -> Any:
        path = self.folder / name
        return json.loads(path.read_text()) if path.exists() else default

    def _write(self, name: str, value: Any) -> None:
        _replace(self.folder / name, json.dumps(value).encode())


def spools(folder: Path) -> Iterable[Path]:
    """The folders of runs that left something behind."""
    return sorted(path.parent for path in folder.glob("*/run.bson"))


def _replace(path: Path, data: bytes) -> None:
    temporary = path.with_name(path.name + ".new")
    temporary.write_bytes(data)
    os.replace(temporary, path)
