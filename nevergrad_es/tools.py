"""Which of Nevergrad's optimizers can serve, as found out by trying all of them.

The findings are in ``tools.csv``, written by benchmarks/nevergrad_tools.py.
"""

import csv
import functools
from dataclasses import dataclass
from pathlib import Path

from utils.names import did_you_mean

FOUND = Path(__file__).with_name("tools.csv")
SERVES, UNREPEATABLE, REFUSED = "serves", "unrepeatable", "refused"
SMALL, NOISY = "small", "noisy"
LARGE = 300  # parameters, from which on those that are for small networks are refused


class ToolError(ValueError):
    """A tool that cannot serve, or that has failed; the message is one line for the user."""


@dataclass(frozen=True)
class Tool:
    """An optimizer of Nevergrad's registry.

    Attributes:
        verdict: ``SERVES``; ``UNREPEATABLE``: it does, but equal seeds give unequal runs;
            ``REFUSED``.
        only: ``SMALL``: it serves only below ``LARGE`` parameters; ``NOISY``: only if it is told
            that returns vary.
        reason: of any verdict but the first, and of ``only``.
    """

    name: str
    verdict: str
    only: frozenset[str] = frozenset()
    reason: str = ""

    def check(self, dim: int, noisy: bool) -> None:
        """Refuse a tool that cannot serve.

        Args:
            dim: number of parameters.
            noisy: whether it is told that returns vary.
        Raises:
            ToolError: why.
        """
        here = None
        if self.verdict == REFUSED:
            here = ""
        elif SMALL in self.only and dim >= LARGE:
            here = f" with {dim} parameters"
        elif NOISY in self.only and not noisy:
            here = " with noisy=False"
        if here is not None:
            text = f"tool={self.name} cannot serve{here}: {self.reason}"
            raise ToolError(f"{text}. list_tools shows which can")


@functools.cache
def tools() -> dict[str, Tool]:
    """All that were tried, by name."""
    with FOUND.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    found = (
        Tool(row["tool"], row["verdict"], frozenset(row["only"].split()), row["reason"])
        for row in rows
    )
    return {tool.name: tool for tool in found}


def find_tool(name: object) -> Tool:
    """The tool of that name.

    Raises:
        ToolError: there is none; names near matches.
    """
    if isinstance(name, str) and name in tools():
        return tools()[name]
    from nevergrad_es.registry import registry  # takes seconds: only to see if it is a newer one's

    if isinstance(name, str) and name in registry:
        return Tool(name, UNREPEATABLE, reason="of another Nevergrad than was tried")
    hint = did_you_mean(str(name), {*tools(), *registry})
    raise ToolError(f"tool={name!r}: Nevergrad has no optimizer of that name.{hint} See list_tools")
