"""What the scripts that read the store have in common."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
from pymongo.errors import PyMongoError
from sacred.utils import SacredError


@contextlib.contextmanager
def in_one_line(*expected: type[Exception]) -> Iterator[None]:
    """Tell what is the user's mistake, or the store's, in one line; exit code 1.

    Args:
        expected: what else may be raised, beside ValueError.
    """
    kinds: tuple[type[Exception], ...] = (ValueError, SacredError, *expected)
    try:
        yield
    except kinds as error:
        raise click.ClickException(" ".join(str(error).split())) from error
    except PyMongoError as error:
        reason = " ".join(str(error).split())[:200]
        raise click.ClickException(f"the store does not answer: {reason}") from error


def check_out(out: Path, endings: Sequence[str]) -> None:
    """Refuse a file that could not be written, before anything is done for it."""
    if out.suffix.lower() not in endings:
        raise ValueError(f"--out {out}: choose a file that ends in {', '.join(endings)}")
    if not out.parent.is_dir():
        raise ValueError(f"--out {out}: there is no folder {out.parent}")
