"""What each of our programs does first."""

import gc
import logging
import signal
import sys
import threading
from collections.abc import Callable
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
