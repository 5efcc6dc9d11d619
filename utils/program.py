"""What each of our programs does first."""

import gc
import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

GARBAGE_THRESHOLDS = (100_000, 50, 100)  # Python's own are (700, 10, 10) or near that


def set_up_program(level: int = logging.INFO) -> None:
    """Log to standard error, one line an event, and look for garbage seldom.

    Imports make a million objects and hardly any garbage: with Python's own thresholds the
    collector takes a fifth of the time that a program needs to start.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    gc.set_threshold(*GARBAGE_THRESHOLDS)


def until_told_to_end() -> Callable[..., bool]:
    """Catch Ctrl-C and SIGTERM from now on.

    Returns:
        A function that waits for as many seconds as it is given, or none, and is true until one
        of the two has come.
    """
    over = threading.Event()

    def stop(signal_number: int, frame: FrameType | None) -> None:
        over.set()

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    return lambda seconds=0.0: not over.wait(seconds)


@contextmanager
def interrupted_between_steps() -> Iterator[Callable[..., None]]:
    """Have Ctrl-C come between steps: libraries do not like it in the middle of theirs.

    Yields:
        A function to be called between two steps, with the seconds to rest there, or none. It
        raises KeyboardInterrupt, at once or for a Ctrl-C that has come since it was last called.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda seconds=0.0: time.sleep(seconds)  # Python tells nobody else
        return
    has_come = resting = False

    def note(signal_number: int, frame: FrameType | None) -> None:
        nonlocal has_come
        has_come = True
        if resting:
            raise KeyboardInterrupt

    def rest(seconds: float = 0.0) -> None:
        nonlocal resting
        resting = True
        if has_come:
            raise KeyboardInterrupt
        time.sleep(seconds)
        resting = False

    before = signal.signal(signal.SIGINT, note)
    try:
        yield rest
    finally:
        signal.signal(signal.SIGINT, before)
