"""Start scripts of machines, put together from the parts in `start/`."""

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

FOLDER = Path(__file__).parent / "start"
FIRST_LINES = "#!/bin/bash\nset -Eeuo pipefail"


def composed(
    values: Mapping[str, str], lists: Mapping[str, Sequence[str]], parts: Sequence[str]
) -> str:
    """A script: whatever the values hold, the shell takes it for nothing else.

    Args:
        values: variables of one machine.
        lists: those that hold several words.
        parts: what is the same for all, by their names in `start/`.
    """
    lines = [f"{name}={shlex.quote(value)}" for name, value in values.items()]
    lines += [f"{name}=({shlex.join(words)})" for name, words in lists.items()]
    return "\n".join([FIRST_LINES, *lines, joined(parts)])


def joined(parts: Sequence[str]) -> str:
    """Parts that are the same for all, without their comments."""
    texts = [(FOLDER / f"{name}.sh").read_text() for name in parts]
    return "\n".join(re.sub(r"(?m)^ *# .*\n", "", text) for text in texts)
