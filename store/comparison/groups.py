"""Which runs are looked at together."""

import re
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Group:
    """Runs that are compared with others under one label."""

    label: str
    runs: tuple[int, ...]


def parse_groups(texts: Sequence[str]) -> list[Group]:
    """Read label=ids, where ids are numbers and ranges: 12-16,20.

    Raises:
        ValueError: another form, or a run or label named twice.
    """
    groups: list[Group] = []
    for text in texts:
        label, _, ids = text.rpartition("=")
        runs: list[int] = []
        for part in ids.split(","):
            match = re.fullmatch(r"(\d+)(?:-(\d+))?", part.strip())
            if match is None or int(match[2] or match[1]) < int(match[1]):
                raise ValueError(f"{text!r} names no runs: write it as es=12-16,20")
            runs += range(int(match[1]), int(match[2] or match[1]) + 1)
        if len(set(runs)) < len(runs):
            raise ValueError(f"{text!r} names a run twice")
        groups.append(Group(label or ids, tuple(runs)))
    labels = [group.label for group in groups]
    if twice := {label for label in labels if labels.count(label) > 1}:
        raise ValueError(f"label {twice.pop()!r} stands for two groups: write all its runs in one")
    return groups
