"""A launch on IBM Cloud: what may be refused is refused first, what is half made is rolled back."""

import dataclasses
import json
import logging
import secrets
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from cluster.bundle import Bundle, make_bundle
from cluster.providers import CloudPlan, ProviderError, cannot
from cluster.providers.clouds import MOST_MACHINES, check_numbers, store_url, workers_each
from cluster.providers.ibm.machines import (
    Found,
    Shape,
    address,
    end_machine,
    find_group,
    find_image,
    find_ssh_keys,
    find_subnet,
    found_clusters,
    group_name,
    profiles,
    wait,
)
from cluster.providers.ibm.scripts import Link, Place, Start
from cluster.providers.ibm.session import Ibm, explained
from cluster.providers.ibm.vm import Machines, machines_asked_for
from cluster.words import fresh_name
from utils.names import did_you_mean

log = logging.getLogger(__name__)

HEAD_TYPE, WORKER_TYPE = "cx2-4x8", "cx2-8x16"
MOST_HOURS = 160.0  # links to the bucket last a week
AT_ONCE = 10  # machines that are asked for
# Of compute and balanced types, in January 2025: an estimate that needs no rights.
DOLLARS_PER_CORE_HOUR = 0.05
NONE: Mapping[int, dict[str, Any]] = {}
AWAY = "10.0.0.0"  # stands for the head's address in a script that is only shown


@dataclass(frozen=True)
class Launch:
    """A plan that was checked, and all that creating it needs."""

    plan: CloudPlan  # with nothing left open
    place: Place
    bundle: Bundle
    shape: Shape
    cores: dict[str, int]  # of the types of head and workers
    reused: dict[int, dict[str, Any]]  # machines of that name that are there already
    store_url: str  # with its password; "": results are put into the bucket
    bucket: str

    @property
    def estimate(self) -> str:
        """What it costs, and what it leaves, in lines."""
        plan = self.plan
        cores = self.cores["head"] + plan.nodes * self.cores["worker"]
        dollars = cores * DOLLARS_PER_CORE_HOUR
        runs = f"{self.bucket}/{self.place.runs}"
        where = "your MongoDB" if self.store_url else f"{runs}runs.tar.gz when the run has ended"
        again = [f"{self.place.name}-{number}" for number in self.reused if number <= plan.nodes]
        lines = [
            f"head {plan.head_type} and {plan.nodes} × {plan.worker_type}: {cores} cores, about"
            f" ${dollars:,.2f} an hour, at most ${dollars * plan.hours:,.2f} in {plan.hours:g}"
            f" hours (at ${DOLLARS_PER_CORE_HOUR:g} a core; disks and traffic not counted)",
            f"used again, with new disks: {', '.join(again)}" if again else "",
            f"logs go to {runs}, results to {where}",
        ]
        return "\n".join(line for line in lines if line)

    def preview(self) -> str:
        """All that would be made, in order; links are left out, for they are as good as keys."""
        plan, name = self.plan, self.place.name
        start = self.start(lambda operation, key: f"https://LINK/{operation}/{key}")
        until = time.strftime("%F %T UTC", time.gmtime(start.deadline))
        zone = self.shape.subnet["zone"]["name"]
        return "\n".join(
            [
                f"{self.bucket}/{self.place.bundle}: commit {self.bundle.commit[:10]},"
                f" {len(self.bundle.data):,} bytes",
                f"{self.bucket}/{self.place.password}: the password of redis",
                f"head {name}-0: {plan.head_type} in {zone}, image {self.shape.image}",
                f"machines {name}-1 to {name}-{plan.nodes}: {plan.worker_type},"
                f" {plan.cpus_per_node} workers each",
                f"all machines stop at {until} at the latest",
                "--- the head's start script",
                start.head(plan),
                "--- the workers' start script",
                start.worker(plan, 1, AWAY),
            ]
        )

    def start(self, link: Link) -> Start:
        """The scripts of a launch that begins now."""
        deadline = int(time.time() + self.plan.hours * 3600)
        return Start(self.place, self.bundle.sha256, deadline, bool(self.store_url), link)


def prepare(ibm: Ibm, owner: str, plan: CloudPlan) -> Launch:
    """Check all of a plan, and ask IBM what it needs; changes nothing.

    Raises:
        ProviderError: with what is wrong, and what would be right.
    """
    check_numbers(plan)
    if plan.price is not None:
        raise cannot("ibm", "take a price", "its prices are fixed; leave --price out")
    if plan.hours > MOST_HOURS:
        raise ProviderError(f"--max-hours={plan.hours:g}: at most {MOST_HOURS:g} on IBM Cloud")
    url, bundle = store_url(), make_bundle(committed_only=plan.committed_only)
    group, subnet = find_group(ibm, owner), find_subnet(ibm)
    if group is None:
        raise ProviderError(
            f"no security group {group_name(owner)}: python cluster/manage.py setup --provider=ibm"
        )
    there = found_clusters(ibm, owner)
    name = plan.name or fresh_name(there)
    reused = _free_machines(ibm, Place(owner, name), there.get(name, Found()))
    plan, cores = _with_types(ibm, dataclasses.replace(plan, name=name), reused)
    image = find_image(ibm, plan.image)
    shape = Shape(image["id"], subnet, group["id"], find_ssh_keys(ibm))
    plan = dataclasses.replace(plan, image=image["name"])
    made = Launch(plan, Place(owner, name), bundle, shape, cores, reused, url, ibm.bucket)
    made.preview()  # the scripts may be too long
    return made


def create(ibm: Ibm, launch: Launch) -> dict[str, Any]:
    """Make all of it, or use it again; returns what IBM says of the head.

    Raises:
        ProviderError: and then nothing new is left, or it says how to end what is.
    """
    try:
        return _create(ibm, launch)
    except BaseException as error:
        _roll_back(ibm, launch)
        if (said := explained(error)) is None and not isinstance(error, ProviderError):
            raise
        raise ProviderError(
            f"{said or error}; nothing new of {launch.place.name} is left"
        ) from error


def _create(ibm: Ibm, launch: Launch) -> dict[str, Any]:
    plan, place = launch.plan, launch.place
    start = launch.start(_linked(ibm, plan.hours))
    for key in ibm.keys(place.runs):  # of the run before
        ibm.store.delete_object(Bucket=launch.bucket, Key=key)
    contents = {
        place.bundle: launch.bundle.data,
        place.password: secrets.token_hex(24).encode(),
        **({place.store_url: launch.store_url.encode()} if launch.store_url else {}),
        place.plan: json.dumps(
            {"plan": vars(plan), "sha256": launch.bundle.sha256, "deadline": start.deadline}
        ).encode(),
    }
    for key, data in contents.items():
        ibm.store.put_object(Bucket=launch.bucket, Key=key, Body=data)
    assert plan.head_type
    head = _machine(ibm, launch, 0, plan.head_type, start.head(plan))
    where = address(ibm, head["id"], f"{place.name}-0")
    numbers = range(1, plan.nodes + 1)
    make_workers(ibm, launch.shape, start, plan, numbers, head=where, reused=launch.reused)
    for number, each in launch.reused.items():
        if number > plan.nodes:
            end_machine(ibm, each)
    return head


def make_workers(
    ibm: Ibm,
    shape: Shape,
    start: Start,
    plan: CloudPlan,
    numbers: Sequence[int],
    *,
    head: str,
    reused: Mapping[int, dict[str, Any]] = NONE,
) -> None:
    """Machines of workers, several at a time; ``head`` is the head's address."""
    log.info("starting %d machines of workers", len(numbers))

    def make(number: int) -> None:
        script = start.worker(plan, number, head)
        if number in reused:
            shape.make_again(ibm, reused[number], script)
        else:
            shape.make(ibm, f"{plan.name}-{number}", str(plan.worker_type), script)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        for made in [pool.submit(make, number) for number in numbers]:
            made.result()


def started(ibm: Ibm, place: Place) -> tuple[CloudPlan, Start]:
    """What `create` has noted of a cluster: ProviderError if it has come to nothing."""
    noted = ibm.read(place.plan)
    if noted is None:
        raise ProviderError(f"{place.name} is half made, or ending: kill it")
    said = json.loads(noted)
    plan = CloudPlan(**{**said["plan"], "config": tuple(said["plan"]["config"])})
    left = max((said["deadline"] - time.time()) / 3600, 0.0)
    has_store = place.store_url in ibm.keys(place.code)
    return plan, Start(place, said["sha256"], said["deadline"], has_store, _linked(ibm, left))


def _linked(ibm: Ibm, hours: float) -> Link:
    """Links that outlive the cluster by an hour."""
    seconds = (hours + 1) * 3600
    return lambda operation, key: ibm.link(operation, key, seconds)


def _machine(ibm: Ibm, launch: Launch, number: int, type_name: str, script: str) -> dict[str, Any]:
    name = f"{launch.place.name}-{number}"
    if number in launch.reused:
        log.info("using %s again", name)
        return launch.shape.make_again(ibm, launch.reused[number], script)
    log.info("starting %s", name)
    return launch.shape.make(ibm, name, type_name, script)


def _roll_back(ibm: Ibm, launch: Launch) -> None:
    """End what is new; what was there before is left, and can be used again or killed."""
    place = launch.place
    log.warning("the launch failed: ending what is new of %s", place.name)
    known = {each["id"] for each in launch.reused.values()}

    def left() -> list[dict[str, Any]]:
        found = found_clusters(ibm, place.owner).get(place.name, Found())
        return [each for each in found.machines.values() if each["id"] not in known]

    try:
        for each in left():
            end_machine(ibm, each)
        for key in ibm.keys(place.code):
            ibm.store.delete_object(Bucket=launch.bucket, Key=key)
        wait(lambda: not left(), f"machines of {place.name} do not go")
    except Exception as error:
        said = explained(error) or str(error)
        raise ProviderError(
            f"the launch failed, and so did ending it ({said}); see to it with"
            f" python cluster/manage.py kill {place.name} --provider=ibm"
        ) from error


# --- checks


def _free_machines(ibm: Ibm, place: Place, found: Found) -> dict[int, dict[str, Any]]:
    """The machines of a name, if their run has ended: ProviderError if it has not."""
    head = found.head
    over = ibm.read(place.state) is not None
    if head is not None and not over and head["status"] not in ("stopped", "failed"):
        raise ProviderError(
            f"a cluster {place.name!r} is there already, and at work: wait for it, or kill it"
        )
    return {n: each for n, each in sorted(found.machines.items()) if each["status"] != "deleting"}


def _with_types(
    ibm: Ibm, plan: CloudPlan, reused: dict[int, dict[str, Any]]
) -> tuple[CloudPlan, dict[str, int]]:
    """Fill in types and numbers of workers, and say how many cores there are of each."""
    there = profiles(ibm)
    asked = machines_asked_for(plan.config)
    plan = dataclasses.replace(plan, nodes=_count(plan, asked))
    workers = [each for number, each in reused.items() if number > 0]
    head = _type(there, plan.head_type, reused.get(0), HEAD_TYPE, "--master_type")
    fitting = plan.worker_type or asked.smallest(there)
    worker = _type(there, fitting, next(iter(workers), None), WORKER_TYPE, "--worker_type")
    for each in [each for number, each in reused.items() if number <= plan.nodes]:
        wanted = head if each is reused.get(0) else worker
        if each["profile"]["name"] != wanted:
            raise ProviderError(
                f"{each['name']} is there, and a {each['profile']['name']}, not a {wanted}: kill"
                f" {plan.name}, or ask for what it is"
            )
    cores = {"head": there[head][0], "worker": there[worker][0]}
    each_has = workers_each(plan.cpus_per_node or asked.cpus, cores["worker"], worker)
    filled = dataclasses.replace(plan, head_type=head, worker_type=worker, cpus_per_node=each_has)
    return filled, cores


def _count(plan: CloudPlan, asked: Machines) -> int:
    """What `--size` says, or the config's vm.count where that says 1, its default."""
    nodes = asked.count if plan.nodes == 1 and asked.count else plan.nodes
    if nodes > MOST_MACHINES:
        raise ProviderError(f"vm.count={nodes}: must be 1 to {MOST_MACHINES} machines")
    return nodes


def _type(
    there: dict[str, tuple[int, int]],
    given: str | None,
    reused: dict[str, Any] | None,
    default: str,
    option: str,
) -> str:
    name = given or (reused["profile"]["name"] if reused else default)
    if name not in there:
        hint = did_you_mean(name, there)
        raise ProviderError(f"{option}={name}: IBM Cloud has no such machines here.{hint}")
    return str(name)
