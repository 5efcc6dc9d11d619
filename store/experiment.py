"""What all our Sacred experiments have in common."""

import contextlib
import logging
import signal
from collections.abc import Iterator
from pathlib import Path

from sacred import SETTINGS, Experiment
from sacred.utils import SacredError, SacredInterrupt, apply_backspaces_and_linefeeds

from store.observer import observe_by_default

ROOT = Path(__file__).resolve().parent.parent


class ConfigError(SacredError):
    """A setting that cannot be; the user sees one line."""


class RunError(SacredError):
    """A run that cannot go on; the user sees one line."""


class Terminated(SacredInterrupt):
    """The run was told to end by SIGTERM."""

    STATUS = "INTERRUPTED"


def new_experiment(name: str, interactive: bool = False) -> Experiment:
    """An experiment that stores config, console and sources, observed by default."""
    SETTINGS.CAPTURE_MODE = "sys"  # "fd" loses the last lines when children write too
    SETTINGS.CONFIG.READ_ONLY_CONFIG = True
    ex = Experiment(name, base_dir=str(ROOT), save_git_info=False, interactive=interactive)
    ex.captured_out_filter = apply_backspaces_and_linefeeds  # type: ignore[assignment]
    observe_by_default(ex)
    logging.getLogger(name).addFilter(_is_news)
    return ex


def _is_news(record: logging.LogRecord) -> bool:
    """Leave out Sacred's remark that a named config has a docstring."""
    return "__doc__" not in record.getMessage()


@contextlib.contextmanager
def in_one_line(error_class: type[SacredError], *expected: type[Exception]) -> Iterator[None]:
    """Turn expected errors into one that Sacred shows as a single line."""
    try:
        yield
    except expected as error:
        text = " ".join(str(error).split())
        raise error_class(text, print_traceback=False) from error


def end_on_sigterm() -> None:
    """Let SIGTERM end the run as Ctrl-C does: tidied up, recorded as INTERRUPTED."""

    def terminate(*_: object) -> None:
        raise Terminated

    signal.signal(signal.SIGTERM, terminate)
