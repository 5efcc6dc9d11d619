"""In what the configs of runs differ."""

from collections.abc import Mapping, Sequence
from typing import Any

ABSENT = "–"  # shown where a config does not have a key


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """A config as dotted keys and texts; what Sacred adds for itself is left out."""
    found: dict[str, str] = {}
    for key, value in config.items():
        if str(key).startswith("__"):
            continue
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = repr(value)
    return found


def common_and_different(
    configs: Sequence[Mapping[str, Any]],
) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Split the keys of some configs.

    Returns:
        Keys whose value is the same in all, with it; and the others, with the value in each.
    """
    texts = [flat(config) for config in configs]
    rows = {
        key: [text.get(key, ABSENT) for text in texts]
        for key in sorted(set().union(*texts) if texts else ())
    }
    common = {key: values[0] for key, values in rows.items() if len(set(values)) == 1}
    return common, {key: values for key, values in rows.items() if key not in common}
