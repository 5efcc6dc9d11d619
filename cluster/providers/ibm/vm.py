"""The section `vm` of IBM's settings.yaml: how many machines a run is to have, and how large."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cluster.providers import ProviderError

KEYS = ("count", "cpus", "mem")


@dataclass(frozen=True)
class Machines:
    """What a config asks for; None: it does not say."""

    count: int | None = None
    cpus: int | None = None  # cores of each
    mem: int | None = None  # GB of memory of each

    def smallest(self, types: Mapping[str, tuple[int, int]]) -> str | None:
        """The smallest type that has as many cores and as much memory; None if nothing is asked.

        Args:
            types: cores and GB of each.
        Raises:
            ProviderError: none has.
        """
        if self.cpus is None and self.mem is None:
            return None
        cpus, mem = self.cpus or 1, self.mem or 1
        fitting = [(*has, name) for name, has in types.items() if has[0] >= cpus and has[1] >= mem]
        if not fitting:
            raise ProviderError(f"vm.cpus={cpus}, vm.mem={mem}: no machine has as much")
        return min(fitting)[2]


def machines_asked_for(config: Sequence[str]) -> Machines:
    """What the words of a config say: files with a section `vm`, or vm_count=… themselves.

    Raises:
        ProviderError: a value that is no whole number above 0.
    """
    found: dict[str, Any] = {}
    for word in config:
        key, equals, value = word.partition("=")
        if equals and key in [f"vm_{name}" for name in KEYS]:
            found[key.removeprefix("vm_")] = yaml.safe_load(value)
        elif not equals and word.endswith((".yaml", ".yml")) and Path(word).is_file():
            said = yaml.safe_load(Path(word).read_text())
            section = said.get("vm") if isinstance(said, Mapping) else None
            found |= section if isinstance(section, Mapping) else {}
    for key, value in found.items():
        if key not in KEYS or (value is not None and (type(value) is not int or value < 1)):
            raise ProviderError(f"vm.{key}={value!r}: must be count, cpus or mem, 1 or more")
    return Machines(**found)
