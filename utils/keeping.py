"""Processes that are kept: started again should they die, and ended with their keeper."""

import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import wait
from multiprocessing.context import ForkProcess
from types import FrameType

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.5
SHORT_LIFE_SECONDS = 1.0  # what does not even begin well should not be started all the time
FIRST_PAUSE = 0.25  # seconds before a process is started again that lived shortly; then doubled …
LONGEST_PAUSE = 5.0  # … up to this
END_SECONDS = 3.0  # that a process has for its end
HOPELESS = 77  # the exit code of a process that starting again cannot help
_REASON_BYTES = 2000

_ENDING = {signal.SIGINT, signal.SIGTERM}


class HopelessError(Exception):
    """Raised by a kept process that would fail in the same way again."""


class Kept:
    """A process of its own that does ``work``; a fork, so it knows what its keeper has set up."""

    def __init__(self, name: str, work: Callable[[], None]) -> None:
        """Nothing runs yet.

        Args:
            name: for the log.
            work: ends by itself only when there is nothing left to do. In the process SIGTERM
                raises SystemExit, and so does the end of the keeper.
        """
        self.name, self._work = name, work
        self.process: ForkProcess | None = None
        self._started = self._due = 0.0
        self._short_lives = 0

    @property
    def is_dead(self) -> bool:
        return self.process is not None and not self.process.is_alive()

    def note_death(self) -> int:
        """Plan the next start; returns the exit code."""
        assert self.process is not None
        code = self.process.exitcode
        now = time.monotonic()
        short = now - self._started < SHORT_LIFE_SECONDS
        self._short_lives = self._short_lives + 1 if short else 0
        exponent = min(self._short_lives, 20) - 1
        pause = min(FIRST_PAUSE * 2**exponent, LONGEST_PAUSE) if short else 0.0
        self._due = now + pause
        self.process = None
        if code != HOPELESS:
            log.error("%s died (exit code %s), next start in %.2g s", self.name, code, pause)
        return code or 0

    def seconds_to_start(self) -> float:
        """0 if it is due, infinite if it runs."""
        return float("inf") if self.process else max(self._due - time.monotonic(), 0.0)

    def start(self, reasons: int) -> None:
        """Fork.

        Args:
            reasons: file descriptor where it says why it is hopeless.
        """
        fork = multiprocessing.get_context("fork")
        self.process = fork.Process(target=_live, args=(self._work, os.getpid(), reasons))
        signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)  # until the child knows what to do
        try:
            self.process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
        self._started = time.monotonic()

    def stop(self) -> None:
        if self.process:
            self.process.terminate()

    def join(self) -> None:
        """Wait for the end, which is made sure of."""
        if self.process:
            self.process.join(timeout=END_SECONDS)
            if self.process.is_alive():
                self.process.kill()
                self.process.join()


class Keeper:
    """Keeps processes until Ctrl-C or SIGTERM.

    A context manager: the signals are caught from its beginning, so that whatever is set up inside
    is also taken down.
    """

    def __init__(self) -> None:
        self._wake_read, self._wake_write = os.pipe()
        self._reasons_read, self._reasons_write = os.pipe()
        self._over = False
        for number in _ENDING:
            signal.signal(number, self._stop)

    def _stop(self, signal_number: int, frame: FrameType | None) -> None:
        self._over = True
        os.write(self._wake_write, b".")

    def keep(self, kept: Sequence[Kept], *, until_stdin_ends: bool = False) -> None:
        """Start them, and again whenever one dies.

        Args:
            until_stdin_ends: end when whoever holds the other end of standard input does.
        Raises:
            HopelessError: one of them says that there is no point in it.
        """
        try:
            while not self._over:
                self._look_after(kept)
                self._wait(kept, until_stdin_ends)
        finally:
            for each in kept:
                each.stop()
            for each in kept:
                each.join()

    def _look_after(self, kept: Sequence[Kept]) -> None:
        for each in kept:
            if each.is_dead and each.note_death() == HOPELESS:
                reason = os.read(self._reasons_read, _REASON_BYTES).decode(errors="replace")
                raise HopelessError(reason.partition("\n")[0])
            if each.seconds_to_start() == 0:
                each.start(self._reasons_write)

    def _wait(self, kept: Sequence[Kept], until_stdin_ends: bool) -> None:
        """Until something may have happened."""
        awaited: list[int] = [self._wake_read]
        awaited += [each.process.sentinel for each in kept if each.process]
        if until_stdin_ends:
            awaited.append(sys.stdin.fileno())
        pause = min(LOOK_SECONDS, *(each.seconds_to_start() for each in kept))
        ready = wait(awaited, timeout=pause)
        if until_stdin_ends and sys.stdin.fileno() in ready:
            self._over |= not os.read(sys.stdin.fileno(), 1)

    def __enter__(self) -> "Keeper":
        return self

    def __exit__(self, *_: object) -> None:
        for end in (self._wake_read, self._wake_write, self._reasons_read, self._reasons_write):
            os.close(end)


def _live(work: Callable[[], None], parent: int, reasons: int) -> None:
    """A kept process, from its beginning to its end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the keeper, who tells us
    signal.signal(signal.SIGTERM, _exit)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
    if not sys.stdin.closed:
        sys.stdin.close()
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    try:
        work()
    except HopelessError as error:
        os.write(reasons, (str(error).partition("\n")[0][: _REASON_BYTES // 4] + "\n").encode())
        sys.exit(HOPELESS)


def _end_with(parent: int) -> None:
    """However the keeper dies, and whatever this process is busy with, it ends as well."""
    while os.getppid() == parent:
        time.sleep(LOOK_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(END_SECONDS)
    os._exit(1)


def _exit(signal_number: int, frame: FrameType | None) -> None:
    sys.exit(0)
