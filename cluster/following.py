"""Following what a cluster says, whoever has its machines, until it has ended."""

import time
from collections.abc import Callable, Iterator, Sequence

from cluster.jobs import CANCELLED, DONE, FAILED, INTERRUPTED, STOPPED
from cluster.providers import Provider, ProviderError

PAUSE_SECONDS = 3.0
WINDOW = 200  # lines that are asked for at a time; what is said faster is shown in part
OVER = (DONE, FAILED, INTERRUPTED, CANCELLED, STOPPED, "lost", "headless")


def follow(
    chosen: Provider,
    cluster: str,
    lines: int,
    node: int | None = None,
    pause: Callable[[float], object] = time.sleep,
) -> Iterator[str]:
    """Yield what is said line by line: the last lines first, then all that comes.

    Raises:
        ProviderError: there is no such cluster, or it has ended without a word.
    """
    seen: list[str] = []
    begun = False
    while True:
        over = has_ended(chosen, cluster)  # before looking, so that the last words are not missed
        try:
            now = chosen.tail(cluster, max(lines, WINDOW), node).splitlines()
        except ProviderError:
            if over and not begun:
                raise
            now = []  # it has not said anything yet, or is just ending
        if fresh := news(seen, now):
            yield from fresh if begun else fresh[-lines:]
            seen, begun = now, True
        if over:
            return
        pause(PAUSE_SECONDS)


def has_ended(chosen: Provider, cluster: str) -> bool:
    """True if a cluster will say nothing more."""
    status = {each.name: each.status for each in chosen.list()}
    return status.get(cluster, DONE) in OVER


def news(seen: Sequence[str], now: Sequence[str]) -> list[str]:
    """What stands behind the lines that were seen before; all, if none of these are left.

    Both are the last lines of one text that grows; ``now`` may be the older one, as it was stored.
    """
    newer, older = _overlap(seen, now), _overlap(now, seen)
    return [] if older > newer else list(now[newer:])


def _overlap(before: Sequence[str], after: Sequence[str]) -> int:
    """How many lines at the end of one are those at the beginning of the other."""
    for number in range(min(len(before), len(after)), 0, -1):
        if list(before[-number:]) == list(after[:number]):
            return number
    return 0
