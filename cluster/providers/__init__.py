"""Who has machines to run on; one module for each."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

PROVIDERS = ("slurm", "local", "aws", "ibm")
CLOUDS = ("aws", "ibm")  # what they have costs money by the hour, and has to be set up once
QUEUES = ("slurm",)  # they take many jobs at once


class ProviderError(RuntimeError):
    """What a provider cannot do or refuses, in one line, with its own words."""


@dataclass(frozen=True)
class Plan:
    """Machines for one run of an experiment, and for how long."""

    name: str  # "": one that the provider chooses, if it can
    experiment: str  # es, ga
    config: tuple[str, ...]  # words behind `with`
    nodes: int
    hours: float  # of one sitting; on a cloud: after which all ends, whatever happens
    cpus_per_node: int | None = None  # None: as many as the machines have
    partition: str | None = None  # None: the provider's default
    warning_seconds: int = 120  # before the time is over, in which to write a checkpoint
    sittings: int = 20  # at most; a run that is not done after one goes on in another
    options: tuple[str, ...] = ()  # further ones, in the provider's own words


@dataclass(frozen=True)
class CloudPlan(Plan):
    """Machines that are rented: one for the head, and ``nodes`` for workers."""

    head_type: str | None = None  # None: the provider's default, as in all below
    worker_type: str | None = None
    image: str | None = None
    price: float | None = None  # the most to pay for a worker's hour; None: the fixed price
    keep: bool = False  # the machines stay when the run has ended, until ``hours`` are over
    worker_command: str = "python -u es/worker.py workers"
    committed_only: bool = False  # go on without the changes that are in no commit


@dataclass(frozen=True)
class Change:
    """What the machines of workers are to be from now on."""

    price: float | None = None  # the most to pay for an hour; None: the fixed price
    worker_type: str | None = None  # None, here and below: as it is
    min_size: int | None = None
    max_size: int | None = None
    desired_size: int | None = None


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
    """Creates, shows, changes and ends clusters.

    What one of them cannot do is a ProviderError that says what to do instead.
    """

    name: str

    def check(self, plan: Plan) -> Plan:
        """Refuse what there are no machines for; returns the plan with nothing left open.

        Raises:
            ProviderError: too many nodes, cores or hours, with how many there are.
        """

    def estimate(self, plan: Plan) -> str:
        """What a plan that was checked takes at most: hours of cores, or money."""

    def preview(self, plan: Plan) -> str:
        """What would be handed to the provider, in full."""

    def create(self, plan: Plan) -> Cluster:
        """Begin; returns as soon as the provider has taken it on.

        Raises:
            ProviderError: it refuses; then nothing of the cluster is left.
        """

    def list(self) -> list[Cluster]:
        """All that were created and not forgotten, the oldest first."""

    def tail(self, name: str, lines: int, node: int | None = None) -> str:
        """The last lines that the head, or a node's workers, have said."""

    def exec(self, name: str, command: str, node: int | None = None) -> str:
        """Run a command of the shell where the head is, or on a node; returns what it says.

        Raises:
            ProviderError: it fails, with its last words.
        """

    def resize(self, name: str, size: int) -> None:
        """Have so many machines of workers from now on."""

    def set_price(self, name: str, change: Change) -> None:
        """Have other machines, at another price, from now on."""

    def upload(self, machine: str, dry_run: bool = False) -> str:
        """Bring what is committed here to a machine; returns what to do there.

        Args:
            machine: as the provider or the network calls it.
            dry_run: only say what would be done.
        """

    def destroy(self, name: str) -> None:
        """End a cluster, and wait until it has ended."""


@runtime_checkable
class Attended(Protocol):
    """A provider whose clusters do not remove themselves: who launches waits, and does it."""

    def attend(self, name: str, say: Callable[[str], None]) -> str:
        """Say what the head says until its run has ended; returns how it has.

        Raises:
            ProviderError: the head is lost.
        """


class Account(Protocol):
    """What a cloud needs before the first cluster."""

    name: str

    def create_bucket(self, name: str | None) -> str:
        """Make the store for code and logs; does no harm if it is there. Returns its name."""

    def setup(self) -> list[str]:
        """Make all else that clusters share; says what there is now."""

    def teardown(self) -> list[str]:
        """Remove what `setup` has made; says what."""

    def missing(self) -> list[str]:
        """What has to be done before a launch, one line each."""

    def remarks(self) -> list[str]:
        """What is good to know before a launch, one line each."""


def provider(name: str, folder: Path, owner: str | None = None) -> Provider:
    """The provider of that name.

    Args:
        folder: where its clusters leave their traces.
        owner: of the clusters, where several people share an account; None: as the settings say.
    Raises:
        ProviderError: there is none.
    """
    if name not in PROVIDERS:
        raise ProviderError(f"no provider {name!r}; known: {', '.join(PROVIDERS)}")
    made: Provider = importlib.import_module(f"cluster.providers.{name}").make(folder, owner)
    return made


def account(name: str, owner: str | None = None) -> Account:
    """The account with a cloud.

    Raises:
        ProviderError: the provider needs none.
    """
    if name not in CLOUDS:
        raise ProviderError(f"{name} needs no setting up; those that do: {', '.join(CLOUDS)}")
    made: Account = importlib.import_module(f"cluster.providers.{name}.setup").make(owner)
    return made


def cannot(provider_name: str, what: str, instead: str) -> ProviderError:
    """The error of an operation that a provider does not have."""
    return ProviderError(f"{provider_name} cannot {what}: {instead}")


def no_cluster(name: str, known: list[str]) -> ProviderError:
    """The error of a name that no cluster has."""
    return ProviderError(f"no cluster {name!r}; there are: {', '.join(sorted(known)) or 'none'}")
