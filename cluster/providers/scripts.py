"""Start scripts of machines, put together from the parts in `start/`."""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster.providers import ProviderError

FOLDER = Path(__file__).parent / "start"
FIRST_LINES = "#!/bin/bash\nset -Eeuo pipefail"


@dataclass(frozen=True)
class Scripts:
    """What the start scripts of a cloud's machines have in common."""

    cloud: str  # its parts in `start/` begin with it
    most_bytes: int  # that it takes

    def composed(
        self, role: str, values: Mapping[str, str], lists: Mapping[str, Sequence[str]]
    ) -> str:
        """A script: whatever the values hold, the shell takes it for nothing else.

        Args:
            role: head or worker.
            values: variables of one machine.
            lists: those that hold several words.
        Raises:
            ProviderError: it is too long.
        """
        lines = [f"{name}={shlex.quote(value)}" for name, value in values.items()]
        lines += [f"{name}=({shlex.join(words)})" for name, words in lists.items()]
        parts = (f"{self.cloud}_{role}_end", self.cloud, "common", role)
        made = "\n".join([FIRST_LINES, *lines, joined(parts)])
        if (length := len(made.encode())) > self.most_bytes:
            raise ProviderError(
                f"the start script has {length:,} bytes, {self.cloud.upper()} takes"
                f" {self.most_bytes:,}: shorten --config"
            )
        return made


def joined(parts: Sequence[str]) -> str:
    """Parts that are the same for all, without their comments."""
    texts = [(FOLDER / f"{name}.sh").read_text() for name in parts]
    return "\n".join(re.sub(r"(?m)^ *# .*\n", "", text) for text in texts)
