"""Every evaluation of a run, one line each: results.csv."""

import csv
import io
import logging
import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

log = logging.getLogger(__name__)

RESULTS = "results.csv"


class Result(NamedTuple):
    """One evaluation; the fields are the columns of the file."""

    generation: int  # for which it was asked
    candidate: int  # its number among those of its kind
    kind: str  # candidate, or theta: what the candidates were asked from
    fitness: float  # mean return over the episodes, a float32
    steps: int  # environment steps, all episodes together
    episodes: int
    worker: str
    seconds: float  # the worker's; of what it evaluates side by side, an equal share
    finished: float  # when the head had it, in seconds that the run had been at work
    valid: bool  # False: it came twice or too late, and was not used


class Listing(Protocol):
    """How evaluations are written down."""

    columns: Sequence[str]

    def cells(self, result: Result) -> Sequence[object]:
        """What stands in the columns."""


class PlainListing:
    """As few digits of the fitness as tell it from its neighbours; microseconds."""

    columns: Sequence[str] = Result._fields

    def cells(self, result: Result) -> Sequence[object]:
        """See ``Listing``."""
        cells: dict[str, object] = result._asdict()
        cells["fitness"] = str(np.float32(result.fitness))
        cells |= {name: f"{cells[name]:.6f}" for name in ("seconds", "finished")}
        return list(cells.values())


MOST_HELD = 16 << 20  # bytes that wait in memory while the disk is full


class ResultsFile:
    """A file of results that grows while a run lasts, and goes on with a run that goes on."""

    def __init__(self, folder: Path | None) -> None:
        """Write into ``folder``, where a run that goes on finds it again; None: a temporary one."""
        self.listing: Listing = PlainListing()  # may be changed until the first line is written
        self._folder = folder
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._path: Path | None = None  # of the file, once it is as it should be
        self._size = 0  # of what is on the disk
        self._waiting = b""  # for a disk that is full
        self._refused = False

    def state(self) -> int:
        """The bytes so far, for a checkpoint."""
        return self._size

    def restore(self, state: int) -> None:
        """Go on from there: what was written later will be written again."""
        self._size = state

    def write(self, results: Iterable[Result]) -> None:
        """Add lines; a process that is killed afterwards has not lost what the disk has taken."""
        self._waiting += _lines(map(self.listing.cells, results))
        try:
            self._path = self._path or self._begin()
            self._append(self._path, self._waiting)
        except OSError as error:
            self._keep(error)
            return
        if self._refused:
            log.warning("%s is whole again", self._path)
        self._waiting, self._refused = b"", False

    def file(self) -> Path | None:
        """The file, whole lines alone; None if there are no results yet."""
        return self._begin() if self._size else None

    def close(self) -> None:
        """A temporary file goes."""
        if self._temporary:
            self._temporary.cleanup()

    def _begin(self) -> Path:
        """Leave in the file what is to stay; the names of the columns, if that is nothing."""
        path = self._path or (self._folder or self._temporary_folder()) / RESULTS
        path.touch()
        there = path.stat().st_size
        if there < self._size:
            log.warning("%s has lost its last %d bytes", path, self._size - there)
        self._size = min(there, self._size)
        os.truncate(path, self._size)
        if not self._size:
            self._append(path, _lines([self.listing.columns]))
        return path

    def _keep(self, error: OSError) -> None:
        """The disk takes nothing: keep the lines in memory, as far as there is room for them."""
        if not self._refused:
            log.warning("%s: results wait in memory: %s", RESULTS, error.strerror)
        self._refused = True
        if len(self._waiting) > MOST_HELD:
            log.error("%s has lost %d bytes: the disk is full", RESULTS, len(self._waiting))
            self._waiting = b""

    def _temporary_folder(self) -> Path:
        self._temporary = tempfile.TemporaryDirectory(prefix="evo-results-")
        return Path(self._temporary.name)

    def _append(self, path: Path, data: bytes) -> None:
        with open(path, "r+b") as file:
            file.seek(self._size)  # over what a full disk took half of
            file.write(data)
            file.truncate()
        self._size += len(data)


def _lines(rows: Iterable[Iterable[object]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode(errors="replace")
