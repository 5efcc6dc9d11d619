"""Near matches for a name that nobody knows, to end a one-line error with."""

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Say which known names look like the one given.

    Args:
        name: what was asked for; upper and lower case count as the same letter.
        known: what could have been asked for.

    Returns:
        " Did you mean 'x' or 'y'?" with at most two names, or "" when none is near.
    """
    by_lower = {each.lower(): each for each in known}
    near = difflib.get_close_matches(str(name).lower(), by_lower, n=2, cutoff=0.6)
    if not near:
        return ""
    return f" Did you mean {' or '.join(repr(by_lower[each]) for each in near)}?"
