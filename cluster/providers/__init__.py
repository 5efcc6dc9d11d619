"""Who has machines to run on; one file for each."""

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

PROVIDERS = ("slurm",)


class ProviderError(RuntimeError):
    """What a provider cannot do or refuses, in one line, with its own words."""


@dataclass(frozen=True)
class Plan:
    """Machines for one run of an experiment, and for how long."""

    name: str
    experiment: str  # es, ga
    config: tuple[str, ...]  # words behind `with`
    nodes: int
    hours: float  # of one sitting
    cpus_per_node: int | None = None  # None: as many as the machines have
    partition: str | None = None  # None: the provider's default
    warning_seconds: int = 120  # before the time is over, in which to write a checkpoint
    sittings: int = 20  # at most; a run that is not done after one goes on in another
    options: tuple[str, ...] = ()  # further ones, in the provider's own words


@dataclass(frozen=True)
class Cluster:
    """What was created of a plan."""

    name: str
    provider: str
    job: str  # as the provider calls it
    status: str
    nodes: int
    detail: str = ""  # in the provider's own words


class Provider(Protocol):
    """Creates, shows and ends clusters.

    What one of them cannot do is a ProviderError that says what to do instead.
    """

    name: str

    def check(self, plan: Plan) -> Plan:
        """Refuse what there are no machines for; returns the plan with nothing left open.

        Raises:
            ProviderError: too many nodes, cores or hours, with how many there are.
        """

    def preview(self, plan: Plan) -> str:
        """What would be handed to the provider, in full."""

    def create(self, plan: Plan) -> Cluster:
        """Begin; returns as soon as the provider has taken it on.

        Raises:
            ProviderError: it refuses.
        """

    def list(self) -> list[Cluster]:
        """All that were created and not forgotten, the oldest first."""

    def tail(self, name: str, lines: int, node: int | None = None) -> str:
        """The last lines that the head, or a node's workers, have said."""

    def destroy(self, name: str) -> None:
        """End a cluster, and wait until it has ended."""


def provider(name: str, folder: Path) -> Provider:
    """The provider of that name.

    Args:
        folder: where its clusters leave their traces.
    Raises:
        ProviderError: there is none.
    """
    if name not in PROVIDERS:
        raise ProviderError(f"no provider {name!r}; known: {', '.join(PROVIDERS)}")
    made: Provider = importlib.import_module(f"cluster.providers.{name}").make(folder)
    return made
