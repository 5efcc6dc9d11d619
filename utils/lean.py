"""Imports that leave out what they can do without: a program starts sooner."""

import contextlib
import gc
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def without(module: str) -> Iterator[None]:
    """Let what is imported inside believe that ``module`` is not installed.

    For libraries that look for an optional package which is slow to import. Nothing changes if it
    has been imported already. No garbage is looked for meanwhile: imports leave hardly any.
    """
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment]  # Python's own way to say so
    thresholds = gc.get_threshold()
    gc.set_threshold(0)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        del sys.modules[module]
