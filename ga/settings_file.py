"""IBM's settings.yaml, in the words of our config."""

from collections.abc import Mapping
from typing import Any

from evolution.settings import whole_number
from utils.names import did_you_mean

# Of each section: their key, and ours.
KEYS = {
    "vm": {"count": "vm_count", "cpus": "vm_cpus", "mem": "vm_mem"},
    "experiment": {
        "count": "count",
        "generations": "num_generations",
        "population": "pop_size",
        "survivors": "n_parents",
        "champions": "champions",
    },
}
OURS = {"env_kwargs", "network_kwargs"}  # our own keys whose values have keys
CANDIDATES = 10  # for elite


def translated(name: str, content: Mapping[str, Any]) -> dict[str, Any]:
    """Config keys for what stands in a file; a file of our own keys passes as it is.

    Args:
        name: of the file, for errors.
    Raises:
        ValueError: an unknown section or key, or a value of the wrong type.
    """
    sections = [key for key, value in content.items() if isinstance(value, Mapping)]
    if not {*content} & {*KEYS} and set(sections) <= OURS:
        return dict(content)
    found: dict[str, Any] = {}
    for section, values in content.items():
        if section not in KEYS:
            hint = did_you_mean(section, KEYS)
            raise ValueError(
                f"{name}: unknown section {section!r}.{hint} There are {' and '.join(KEYS)}"
            )
        if not isinstance(values, Mapping):
            keys = ", ".join(KEYS[section])
            raise ValueError(f"{name}: {section}={values!r}: must have keys of its own: {keys}")
        found |= _section(name, section, values)
    if {"n_parents", "champions"} <= set(found):  # IBM's has no candidates: as many as fit
        candidates = max(found["champions"], min(CANDIDATES, found["n_parents"]))
        found["n_elite_candidates"] = candidates
    return found


def _section(name: str, section: str, values: Mapping[str, Any]) -> dict[str, Any]:
    known = KEYS[section]
    for key, value in values.items():
        if key not in known:
            hint = did_you_mean(str(key), known)
            raise ValueError(
                f"{name}: unknown key {section}.{key}.{hint} There are {', '.join(known)}"
            )
        whole_number(f"{name}: {section}.{key}", value, 1)
    return {known[key]: value for key, value in values.items()}
