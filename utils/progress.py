"""How far a long work is: a bar on a terminal, now and then a line elsewhere."""

import os
import sys
import time
from collections.abc import Mapping

from tqdm import tqdm

LINE_SECONDS = 2.0


class Progress:
    """Shows rounds done, what they brought and how long the rest will take; a context manager."""

    def __init__(self, total: int, unit: str, done: int = 0) -> None:
        """Of ``total`` rounds, so many are ``done`` already."""
        self._total, self._unit, self._done, self._before = total, unit, done, done
        self._started = time.monotonic()
        self._line_at = 0.0
        self._bar = _bar(total, unit, done) if sys.stderr.isatty() else None

    def advance(self, shown: Mapping[str, str]) -> None:
        """One round more.

        Args:
            shown: names and values to show beside the progress.
        """
        self._done += 1
        if self._bar is not None:
            self._bar.set_postfix(dict(shown), refresh=False)
            self._bar.update()
            return
        now = time.monotonic()
        if now - self._line_at < LINE_SECONDS and self._before + 1 < self._done < self._total:
            return
        self._line_at = now
        pace = (now - self._started) / (self._done - self._before)
        left = pace * (self._total - self._done)
        values = "  ".join(f"{name} {value}" for name, value in shown.items())
        sys.stdout.write(f"{self._unit} {self._done}/{self._total}  {values}  {left:.0f} s left\n")
        sys.stdout.flush()

    def __enter__(self) -> "Progress":
        return self

    def close(self) -> None:
        """Leave the bar as it is: what is written next stands below it."""
        if self._bar is not None:
            self._bar.close()

    def __exit__(self, *_: object) -> None:
        self.close()


def _bar(total: int, unit: str, done: int) -> tqdm:
    """A bar on the terminal itself: sacred would copy what goes through ``sys.stderr``."""
    out = sys.__stderr__
    assert out is not None
    size = os.get_terminal_size(out.fileno())
    # Some terminals say that they are 0 × 0: nothing would be shown there.
    assumed = {} if size.columns and size.lines else {"ncols": 100, "nrows": 24}
    return tqdm(
        total=total, initial=done, unit=unit, file=out, dynamic_ncols=not assumed, **assumed
    )
