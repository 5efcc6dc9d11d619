"""How our programs report: one line an event, on standard error."""

import logging
import sys


def set_up_logging(level: int = logging.INFO) -> None:
    """Send the log of all our modules to standard error, one line each."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
