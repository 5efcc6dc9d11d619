"""IBM Cloud: NAME-0 for redis and the head, NAME-1 and so on for workers.

Nothing is kept here: IBM is asked what there is. Machines have no rights of their own, so whoever
launches waits for the end of the run and removes them; without it they stop, and can be removed, or
used again, by their name.
"""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cluster.bundle import make_bundle
from cluster.providers import Change, CloudPlan, Cluster, Plan, ProviderError, cannot, no_cluster
from cluster.providers.clouds import (
    MOST_MACHINES,
    TRY_OUT,
    Launches,
    check_cluster_name,
    owner_name,
)
from cluster.providers.ibm.launch import create, make_workers, prepare, started
from cluster.providers.ibm.machines import (
    Found,
    Shape,
    address_of,
    end_machine,
    find_group,
    find_image,
    find_ssh_keys,
    find_subnet,
    found_clusters,
    wait,
)
from cluster.providers.ibm.scripts import Place
from cluster.providers.ibm.session import Ibm, explained, told_in_one_line

log = logging.getLogger(__name__)

ATTEND_SECONDS = 10.0  # between looks how a run is
UPLOAD_SECONDS = 3600.0  # that the link of an upload lasts
LATE_SECONDS = 900.0  # after its deadline, within which a head must have said how it ended
OUTAGE_SECONDS = 1800.0  # that IBM may be out of reach
OVER = ("stopped", "failed", "deleting")


class IbmProvider:
    """The clusters of one owner in one region."""

    name = "ibm"

    def __init__(self, owner: str, ibm: Ibm) -> None:
        self._ibm, self._owner = ibm, owner
        self._launches = Launches(told_in_one_line(lambda plan: prepare(ibm, owner, plan)))

    # --- launching

    def check(self, plan: Plan) -> CloudPlan:
        return self._launches.check(plan)

    def estimate(self, plan: Plan) -> str:
        return self._launches.estimate(plan)

    def preview(self, plan: Plan) -> str:
        return self._launches.preview(plan)

    @told_in_one_line
    def create(self, plan: Plan) -> Cluster:
        head = create(self._ibm, self._launches.taken(plan))
        detail = f"head {address_of(head)}"
        return Cluster(plan.name, self.name, head["id"], head["status"], plan.nodes, detail)

    @told_in_one_line
    def attend(self, name: str, say: Callable[[str], None]) -> str:
        """Say what the head says until its run has ended; returns how it has.

        Raises:
            ProviderError: the head is lost, or IBM cannot be asked for long.
        """
        place, said, heard = Place(self._owner, name), 0, time.monotonic()
        deadline = started(self._ibm, place)[1].deadline
        while True:
            try:
                over, status, lines = self._look(place)
            except Exception as error:
                if explained(error) is None or time.monotonic() > heard + OUTAGE_SECONDS:
                    raise
                log.warning("%s; trying again", explained(error))
                time.sleep(ATTEND_SECONDS)
                continue
            heard = time.monotonic()
            for line in lines[said:]:
                say(line)
            said = max(said, len(lines))
            if over is not None:
                return over
            if status in OVER:
                raise ProviderError(f"the head of {name} has stopped without a word")
            if time.time() > deadline + LATE_SECONDS:
                raise ProviderError(f"the head of {name} has not ended in its time")
            time.sleep(ATTEND_SECONDS)

    def _look(self, place: Place) -> tuple[str | None, str, list[str]]:
        """How a run has ended, if it has; its head's status; all that the head has said."""
        over = self._ibm.read(place.state)  # first, for it is stored last
        found = found_clusters(self._ibm, place.owner).get(place.name, Found())
        said = (self._ibm.read(place.log(0)) or b"").decode(errors="replace")
        ended = None if over is None else over.decode(errors="replace").strip()
        return ended, found.head["status"] if found.head else "deleting", said.splitlines()

    # --- looking

    @told_in_one_line
    def list(self) -> list[Cluster]:
        found = found_clusters(self._ibm, self._owner)
        return [_shown(name, each) for name, each in sorted(found.items(), key=_age)]

    @told_in_one_line
    def tail(self, name: str, lines: int, node: int | None = None) -> str:
        """What the machine has stored, twice a minute; also of one that has gone."""
        number = 0 if node is None else node + 1
        stored = self._ibm.read(Place(self._owner, check_cluster_name(name)).log(number))
        if stored is None:
            self._found(name)
            raise ProviderError(f"{name}-{number} has said nothing yet: machines need minutes")
        return "\n".join(stored.decode(errors="replace").splitlines()[-lines:])

    @told_in_one_line
    def exec(self, name: str, command: str, node: int | None = None) -> str:
        self._found(name)
        raise cannot(
            "ibm",
            "run commands",
            "its machines have no agent for it; see tail, or give one a floating IP and use ssh",
        )

    # --- changing

    @told_in_one_line
    def resize(self, name: str, size: int) -> None:
        found = self._found(name)
        if not 1 <= size <= MOST_MACHINES:
            raise ProviderError(f"size {size}: must be 1 to {MOST_MACHINES} machines; see kill")
        plan, start = started(self._ibm, Place(self._owner, name))
        if found.head is None or found.head["status"] in OVER:
            raise ProviderError(f"{name} has no head at work: launch it again, or kill it")
        for number, each in found.workers.items():
            if number > size:
                end_machine(self._ibm, each)
        missing = [number for number in range(1, size + 1) if number not in found.machines]
        head = address_of(found.head)
        make_workers(self._ibm, self._shape(plan), start, plan, missing, head=head)

    def _shape(self, plan: CloudPlan) -> Shape:
        ibm, group = self._ibm, find_group(self._ibm, self._owner)
        assert group is not None
        image = find_image(ibm, plan.image)["id"]
        return Shape(image, find_subnet(ibm), group["id"], find_ssh_keys(ibm))

    @told_in_one_line
    def set_price(self, name: str, change: Change) -> None:
        self._found(name)
        raise cannot(
            "ibm", "set prices", "they are fixed, and types stay; see resize, or launch anew"
        )

    @told_in_one_line
    def upload(self, machine: str, dry_run: bool = False) -> str:
        # beside the clusters', of which it is none: what nobody removes goes after a month
        bundle, key = make_bundle(), f"code/{self._owner}-upload/bundle.tar.gz"
        place = f"{self._ibm.bucket}/{key}"
        if dry_run:
            return f"{len(bundle.data):,} bytes to {place}, and a link to type on {machine}"
        self._ibm.store.put_object(Bucket=self._ibm.bucket, Key=key, Body=bundle.data)
        link = self._ibm.link("get_object", key, UPLOAD_SECONDS)
        return (
            f"commit {bundle.commit[:10]} is in {place}; on {machine}, within the hour:\n"
            f"mkdir -p upload && cd upload && curl -sSf '{link}' | tar -xz\n{TRY_OUT}"
        )

    # --- ending

    @told_in_one_line
    def destroy(self, name: str) -> None:
        self._found(name)

        def is_gone() -> bool:
            """End what there is, also what comes only now, of a launch that was just killed."""
            found = found_clusters(self._ibm, self._owner).get(name)
            for machine in found.machines.values() if found else ():
                end_machine(self._ibm, machine)
            for key in found.objects if found else ():
                self._ibm.store.delete_object(Bucket=self._ibm.bucket, Key=key)
            return found is None

        wait(is_gone, f"machines of {name} do not go")

    def _found(self, name: str) -> Found:
        there = found_clusters(self._ibm, self._owner)
        if name not in there:
            raise no_cluster(name, [*there])
        return there[name]


def make(folder: Path, owner: str | None = None) -> IbmProvider:
    """The provider; see `cluster.providers.provider`. It leaves nothing in the folder."""
    return IbmProvider(owner_name(owner), Ibm())


def _shown(name: str, found: Found) -> Cluster:
    """One line of the list."""
    head = found.head
    kinds = sorted({each["profile"]["name"] for each in found.workers.values()})
    at_work = [each for each in found.workers.values() if each["status"] not in OVER]
    detail = f"head {address_of(head)}" if head else "no head"
    return Cluster(
        name,
        "ibm",
        head["id"] if head else "",
        head["status"] if head else "headless",
        len(at_work),
        f"{detail}; {' and '.join(kinds) or 'no machines of workers'}",
    )


def _age(item: tuple[str, Any]) -> str:
    times = [str(each.get("created_at", "")) for each in item[1].machines.values()]
    return min(times, default="~")
