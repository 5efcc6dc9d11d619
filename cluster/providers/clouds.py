"""What clouds share: where things are in a bucket, launches that are checked, one-line errors."""

import functools
import getpass
import math
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, ParamSpec, Protocol, TypeVar

from cluster.providers import CloudPlan, Plan, ProviderError
from utils.settings import VARIABLES, setting

MOST_MACHINES = 1000
# What to do in a folder on a machine that is ours: it has all that the code needs.
TRY_OUT = "PYTHONPATH=$PWD /opt/evo/venv/bin/python es/experiment.py with lander"
LEAST_HOURS = 0.1  # machines need minutes to start
OWNER = re.compile(r"[a-z][a-z0-9]{0,19}")  # no dashes: evo-ann-x is cluster x of ann, and no other
CLUSTER = re.compile(r"[a-z][a-z0-9-]{0,29}")
LOOPBACK = re.compile(r"localhost(:\d+)?|127\.[\d.]+(:\d+)?|\[::1\](:\d+)?|.*\.sock|%2F.*", re.I)

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class InBucket:
    """Where a cluster's things are in the bucket."""

    owner: str
    name: str

    @property
    def code(self) -> str:
        """What it is made of; removed with it."""
        return f"code/{self.owner}/{self.name}/"

    @property
    def runs(self) -> str:
        """What it says and results in; stays."""
        return f"runs/{self.owner}/{self.name}/"


class Launch(Protocol):
    """A plan that was checked, and all that creating it needs."""

    @property
    def plan(self) -> CloudPlan:
        """With nothing left open."""

    @property
    def estimate(self) -> str:
        """What it costs, and what it leaves, in lines."""

    def preview(self) -> str:
        """All that would be made, in order."""


L = TypeVar("L", bound=Launch)


class Launches(Generic[L]):
    """The half of a cloud's provider that makes nothing: plans are checked, and shown."""

    def __init__(self, prepare: Callable[[CloudPlan], L]) -> None:
        """Keep what ``prepare`` makes of plans, until they are launched."""
        self._prepare = prepare
        self._made: dict[str, L] = {}

    def check(self, plan: Plan) -> CloudPlan:
        made = self._prepare(plan if isinstance(plan, CloudPlan) else CloudPlan(**vars(plan)))
        self._made[made.plan.name] = made
        return made.plan

    def estimate(self, plan: Plan) -> str:
        return self._of(plan).estimate

    def preview(self, plan: Plan) -> str:
        return self._of(plan).preview()

    def taken(self, plan: Plan) -> L:
        """What a plan was made of, once: what there is changes by its launch."""
        made = self._of(plan)
        del self._made[made.plan.name]
        return made

    def _of(self, plan: Plan) -> L:
        return self._made[plan.name if plan.name in self._made else self.check(plan).name]


def telling(
    explained: Callable[[BaseException], str | None],
) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Have functions raise ProviderError for what a cloud refuses, or when it cannot be reached.

    Args:
        explained: what went wrong and what would be right; None for an error of another kind.
    """

    def told(call: Callable[P, T]) -> Callable[P, T]:
        @functools.wraps(call)
        def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
            try:
                return call(*args, **kwargs)
            except ProviderError:
                raise
            except Exception as error:
                if (said := explained(error)) is None:
                    raise
                raise ProviderError(said) from error

        return wrapped

    return told


def owner_name(given: str | None) -> str:
    """Whose clusters: as given, as the settings say, or this user's.

    Raises:
        ProviderError: no good for the names of things.
    """
    chosen = given or setting("cluster", "owner")
    if chosen is None:
        chosen = re.sub(r"[^a-z0-9]", "", getpass.getuser().lower()).lstrip("0123456789")[:20]
    if not OWNER.fullmatch(chosen):
        raise ProviderError(
            f"owner {chosen!r} ({VARIABLES['cluster', 'owner']}): a small letter, then up to 19"
            " small letters and digits"
        )
    return chosen


def check_cluster_name(name: str) -> str:
    """Refuse a name that AWS, or a list of names, would not take: ProviderError."""
    if not CLUSTER.fullmatch(name):
        raise ProviderError(
            f"cluster name {name!r}: a small letter, then up to 29 small letters, digits and dashes"
        )
    return name


def check_numbers(plan: CloudPlan) -> None:
    """Refuse a plan of what no cloud has: ProviderError. The price is the cloud's own affair."""
    if plan.name:
        check_cluster_name(plan.name)
    if not 1 <= plan.nodes <= MOST_MACHINES:
        raise ProviderError(f"--size={plan.nodes}: must be 1 to {MOST_MACHINES} machines")
    if not (math.isfinite(plan.hours) and plan.hours >= LEAST_HOURS):
        raise ProviderError(f"--max-hours={plan.hours:g}: must be a number, {LEAST_HOURS} or more")
    try:
        words = shlex.split(plan.worker_command)
    except ValueError as error:
        raise ProviderError(f"--worker_command={plan.worker_command!r}: {error}") from error
    if not words:
        raise ProviderError("--worker_command: must name a program")


def workers_each(asked: int | None, cores: int, type_name: str) -> int:
    """How many workers a machine is to have, as many as cores if nothing was asked for.

    Raises:
        ProviderError: more than there are cores.
    """
    if asked is not None and asked > cores:
        raise ProviderError(f"--workers_per_machine={asked}: {type_name} has {cores} cores")
    return asked or cores


def store_url() -> str:
    """Where results go; "" if no MongoDB is set."""
    url = setting("store", "url") or ""
    hosts = re.sub(r"^[a-z+]+://", "", url).rpartition("@")[2].partition("/")[0]
    if url and all(LOOPBACK.fullmatch(host) for host in hosts.split(",")):
        where = VARIABLES["store", "url"]
        raise ProviderError(
            f"{where} is on this machine, where a cluster's machines cannot reach it: set one that"
            f" they can reach, or unset {where} to have results put into the bucket"
        )
    return url
