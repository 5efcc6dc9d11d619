"""The files of a folder; what the disk does not take waits in memory and is tried again.

A disk may be full, over its quota or broken for a while. What it has is never half of something:
files are replaced as a whole, a record that was half written is written over, and the files that
speak of others (``replace``) wait until all those others (``add``) are written.
"""

import contextlib
import logging
import os
import shutil
from pathlib import Path

log = logging.getLogger(__name__)

MOST_HELD = 64 << 20  # bytes that wait in memory; what comes on top of them is lost
NO_ROOM = "neither the disk nor the memory that is set aside has room"


class FullError(OSError):
    """There is no room for it, neither on the disk nor in memory."""


class Disk:
    """Writes to a folder, sooner or later; the caller sees to it that one thread at a time does."""

    def __init__(self, folder: Path, record: int, most_held: int = MOST_HELD) -> None:
        """Write to a folder, which is there.

        Args:
            record: bytes in which files grow that are appended to.
            most_held: bytes that may wait in memory.
        """
        self.folder = folder
        self._record, self._most_held = record, most_held
        self._lengths: dict[str, int] = {}  # of whole records on the disk
        self._added: dict[str, bytes] = {}
        self._appended: dict[str, bytearray] = {}
        self._replaced: dict[str, bytes] = {}
        self._refused = False

    # --- writing

    def add(self, name: str, source: Path) -> None:
        """Copy a file.

        Raises:
            FullError: there is no room for it anywhere.
            OSError: ``source`` cannot be read.
        """
        try:
            shutil.copyfile(source, self.folder / name)
        except OSError as error:
            self._drop(name)
            self._check_room(source.stat().st_size)
            self._added[name] = source.read_bytes()
            self._say(error)

    def add_bytes(self, name: str, data: bytes) -> None:
        """Make a file.

        Raises:
            FullError: there is no room for it anywhere.
        """
        self._added[name] = data
        self.flush()
        if self._held > self._most_held:
            del self._added[name]
            raise FullError(NO_ROOM)

    def append(self, name: str, data: bytes) -> None:
        """Append whole records.

        Raises:
            FullError: there is no room for them anywhere.
        """
        waiting = self._appended.setdefault(name, bytearray())
        waiting.extend(data)
        self.flush()
        if self._held > self._most_held:
            del waiting[-len(data) :]
            raise FullError(NO_ROOM)

    def replace(self, name: str, data: bytes) -> None:
        """Put a small file in the place of what was there."""
        self._replaced[name] = data
        self.flush()

    def remove(self, name: str) -> None:
        """Remove a file, wherever it is."""
        self._added.pop(name, None)
        self._drop(name)

    def shorten(self, name: str, data: bytes) -> None:
        """Replace all records of a file by these.

        Raises:
            OSError: the disk refuses; nothing has changed.
        """
        put_in_place(self.folder / name, data)
        self._appended.pop(name, None)
        self._lengths[name] = len(data)

    def flush(self) -> bool:
        """Try to write what waits; true if nothing waits any more."""
        refused = self._write_all()
        if refused is not None:
            self._say(refused)
        elif self._refused and self.is_written:
            log.warning("%s can be written to again, and has everything", self.folder)
            self._refused = False
        return self.is_written

    def give_up(self) -> list[str]:
        """Forget the files that wait, so that those that speak of others can be written.

        Returns:
            Their names.
        """
        lost = list(self._added)
        self._added.clear()
        self.flush()
        return lost

    # --- reading

    @property
    def is_written(self) -> bool:
        """True if nothing waits in memory."""
        return not (self._added or self._appended or self._replaced)

    def holds(self, name: str) -> bool:
        """True if a file, or part of it, waits in memory."""
        return name in self._added or name in self._appended or name in self._replaced

    def has(self, name: str) -> bool:
        """True if there is such a file, in memory or on the disk."""
        return self.holds(name) or (self.folder / name).exists()

    def read(self, name: str) -> bytes:
        """The whole of a file that was added or replaced.

        Raises:
            OSError: there is none, or the disk refuses.
        """
        for waiting in (self._added, self._replaced):
            if name in waiting:
                return waiting[name]
        return (self.folder / name).read_bytes()

    def length(self, name: str) -> int:
        """The bytes of a file that grows, whole records alone."""
        return self._length(name) + len(self._appended.get(name, b""))

    def part(self, name: str, start: int, stop: int) -> bytes:
        """Some bytes of a file that grows."""
        written, found = self._length(name), b""
        if start < min(written, stop):
            with open(self.folder / name, "rb") as file:
                file.seek(start)
                found = file.read(min(written, stop) - start)
        more = self._appended.get(name, b"")
        return found + bytes(more[max(start - written, 0) : max(stop - written, 0)])

    # --- inside

    def _write_all(self) -> OSError | None:
        """Write what can be written; returns the last refusal."""
        refused = None
        for waiting, write in (
            (self._added, self._write_added),
            (self._appended, self._write_appended),
            (self._replaced, self._write_replaced),
        ):
            if waiting is self._replaced and self._added:
                break
            for name in list(waiting):
                try:
                    write(name)
                    del waiting[name]
                except OSError as error:
                    refused = error
        return refused

    def _write_added(self, name: str) -> None:
        try:
            (self.folder / name).write_bytes(self._added[name])
        except OSError:
            self._drop(name)
            raise

    def _write_appended(self, name: str) -> None:
        """Write behind the last whole record, over what a failure may have left there."""
        length, data = self._length(name), self._appended[name]
        descriptor = os.open(self.folder / name, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
        with open(descriptor, "wb") as file:
            if os.fstat(descriptor).st_size != length:
                file.truncate(length)
            file.seek(length)
            file.write(data)
        self._lengths[name] = length + len(data)

    def _write_replaced(self, name: str) -> None:
        put_in_place(self.folder / name, self._replaced[name])

    def _length(self, name: str) -> int:
        if name not in self._lengths:
            path = self.folder / name
            size = path.stat().st_size if path.exists() else 0
            self._lengths[name] = size - size % self._record
        return self._lengths[name]

    def _drop(self, name: str) -> None:
        with contextlib.suppress(OSError):
            (self.folder / name).unlink()

    @property
    def _held(self) -> int:
        return sum(map(len, [*self._added.values(), *self._appended.values()]))

    def _check_room(self, more: int) -> None:
        if self._held + more > self._most_held:
            raise FullError(NO_ROOM)

    def _say(self, error: OSError) -> None:
        if not self._refused:
            log.warning(
                "%s cannot be written to: %s; until it can, up to %.0f MiB wait in memory",
                *(self.folder, error.strerror or error, self._most_held / (1 << 20)),
            )
        self._refused = True


def put_in_place(path: Path, data: bytes) -> None:
    """Write a file as a whole, or not at all.

    Raises:
        OSError: the disk refuses; the file is as before.
    """
    temporary = path.with_name(path.name + ".new")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
