"""A launch on AWS: all that may be refused is refused first; what is half made is rolled back."""

import dataclasses
import logging
import math
import time
from dataclasses import dataclass
from typing import Any

from cluster.bundle import Bundle, make_bundle
from cluster.providers import CloudPlan, ProviderError
from cluster.providers.aws.machines import (
    Found,
    Shape,
    check_running,
    end_cluster,
    end_group_at,
    end_parts,
    found_clusters,
    make_group,
    make_template,
    policy,
    run_head,
    update_group,
)
from cluster.providers.aws.network import Image, find_image, machine_type, subnets_with, vpc_of
from cluster.providers.aws.prices import estimate
from cluster.providers.aws.scripts import Start
from cluster.providers.aws.session import Aws, Mine, Names, explained
from cluster.providers.aws.setup import find_group, missing_parts
from cluster.providers.clouds import check_numbers, store_url, workers_each
from cluster.words import fresh_name

log = logging.getLogger(__name__)

HEAD_TYPE, WORKER_TYPE = "t3.xlarge", "t3.2xlarge"
RESERVED = ("upload",)
AWAY = "10.0.0.0"  # stands for the head's address in a script that is only shown


@dataclass(frozen=True)
class Launch:
    """A plan that was checked, and all that creating it needs."""

    plan: CloudPlan  # with nothing left open
    bundle: Bundle
    image: Image
    security_group: str
    profiles: dict[str, str]  # of head and worker
    subnets: dict[str, list[str]]  # likewise
    start: Start
    store_url: str  # with its password; "": results are put into the bucket

    @property
    def names(self) -> Names:
        return self.start.names

    @property
    def estimate(self) -> str:
        """What it costs, and what it leaves, in lines."""
        plan = self.plan
        assert plan.head_type and plan.worker_type
        costs = estimate(plan.head_type, plan.worker_type, plan.nodes, plan.price, plan.hours)
        return f"{costs}\n{self._results}"

    @property
    def _results(self) -> str:
        place = f"s3://{self.start.bucket}/{self.names.runs}"
        where = "your MongoDB" if self.store_url else f"{place}runs when the run has ended"
        return f"logs go to {place}, results to {where}"

    def shape(self, role: str) -> Shape:
        """What machines of a role are made of."""
        type_name = self.plan.head_type if role == "head" else self.plan.worker_type
        tags = self.names.tags(role, self.bundle.name)
        assert type_name
        return Shape(self.image, type_name, self.security_group, self.profiles[role], tags)

    def preview(self) -> str:
        """All that would be made, in order."""
        plan, start = self.plan, self.start
        until = time.strftime("%F %T UTC", time.gmtime(start.deadline))
        parameter = [f"parameter {start.store_url}: the address of your MongoDB"]
        return "\n".join(
            [
                f"s3://{start.bucket}/{start.bundle}: commit {self.bundle.commit[:10]},"
                f" {len(self.bundle.data):,} bytes",
                *(parameter if start.store_url else ()),
                f"head: {plan.head_type} in {self.subnets['head'][0]}, image {self.image.id},"
                f" security group {self.security_group}, role {self.profiles['head']}",
                f"launch template and group {self.names.group}: {plan.nodes} × {plan.worker_type}"
                f" in {', '.join(self.subnets['worker'])}, {plan.cpus_per_node} workers each,"
                f" role {self.profiles['worker']}",
                f"all ends at {until} at the latest",
                "--- the head's start script",
                start.head(plan),
                "--- the workers' start script",
                start.worker(plan, AWAY),
            ]
        )


def prepare(aws: Aws, mine: Mine, plan: CloudPlan) -> Launch:
    """Check all of a plan, and ask AWS what it needs; changes nothing.

    Raises:
        ProviderError: with what is wrong, and what would be right.
    """
    check_numbers(plan)
    check_price(plan.price)
    url, bundle = store_url(), make_bundle(committed_only=plan.committed_only)
    bucket = aws.bucket()
    if missing := missing_parts(aws, mine):
        raise ProviderError(f"{'; '.join(missing)}: python cluster/manage.py setup; see check")
    plan, image = _with_machines(aws, plan)
    plan = dataclasses.replace(plan, name=_free_name(aws, mine, plan.name))
    group = find_group(aws, mine)
    assert group and plan.head_type and plan.worker_type
    if group["VpcId"] != vpc_of(aws):
        raise ProviderError(
            f"security group {mine.group} is in another network than the subnets: teardown, setup"
        )
    names = mine.cluster(plan.name)
    made = Launch(
        plan,
        bundle,
        image,
        group["GroupId"],
        {role: mine.role(role) for role in ("head", "worker")},
        {
            "head": subnets_with(aws, plan.head_type, "--master_type"),
            "worker": subnets_with(aws, plan.worker_type, "--worker_type"),
        },
        Start(
            names,
            aws.region,
            bucket,
            f"{names.code}{bundle.name}.tar.gz",
            bundle.sha256,
            mine.password,
            names.store_url if url else "",
            _deadline(plan),
        ),
        url,
    )
    made.preview()  # the scripts may be too long
    return made


def create(aws: Aws, launch: Launch) -> dict[str, Any]:
    """Make all of it; returns what AWS says of the head.

    Raises:
        ProviderError: and then nothing is left, or it says how to end what is.
    """
    started = Found()
    try:
        return _create(aws, launch, started)
    except BaseException as error:
        _roll_back(aws, launch, started)
        if (said := explained(error)) is None:
            raise
        raise ProviderError(f"{said}; nothing of {launch.plan.name} is left") from error


def _create(aws: Aws, launch: Launch, started: Found) -> dict[str, Any]:
    plan, names = launch.plan, launch.names
    start = dataclasses.replace(launch.start, deadline=_deadline(plan))
    log.info("uploading the bundle")
    aws.s3.put_object(Bucket=start.bucket, Key=start.bundle, Body=launch.bundle.data)
    if start.store_url:
        aws.ssm.put_parameter(
            Name=start.store_url,
            Type="SecureString",
            Value=launch.store_url,
            Tier="Intelligent-Tiering",
        )
    log.info("starting the head")
    head = run_head(aws, launch.shape("head"), start.head(plan), launch.subnets["head"][0])
    started.machines.append(head)
    log.info("starting %d machines of workers", plan.nodes)
    worker = launch.shape("worker")
    script = start.worker(plan, head["PrivateIpAddress"])
    template, version = make_template(aws, names, worker, script)
    mixed = policy(template, version, worker.type, plan.price)
    make_group(aws, names, worker.tags, mixed, launch.subnets["worker"])
    end_group_at(aws, names, start.deadline)
    sizes = {"MinSize": plan.nodes, "MaxSize": plan.nodes, "DesiredCapacity": plan.nodes}
    group = {"AutoScalingGroupName": names.group, "MixedInstancesPolicy": mixed}
    update_group(aws, group, **sizes)
    check_running(aws, head)  # it may have failed, and ended a group that was not yet there
    return head


def _roll_back(aws: Aws, launch: Launch, started: Found) -> None:
    """End what there is already."""
    name, bucket = launch.plan.name, launch.start.bucket
    log.warning("the launch failed: ending what there is of %s", name)

    def look() -> Found | None:
        return found_clusters(aws, launch.names.owner, bucket).get(name)

    try:
        end_parts(aws, started, bucket)  # AWS may not yet find again what it has just made
        end_cluster(aws, look, bucket)
    except Exception as error:
        said = explained(error) or str(error)
        raise ProviderError(
            f"the launch failed, and so did ending it ({said}); see to it with"
            f" python cluster/manage.py kill {name}"
        ) from error


# --- checks


def check_price(price: float | None) -> None:
    """Refuse what is no price: ProviderError. AWS would find out when there are no machines."""
    if price is not None and not (math.isfinite(price) and price >= 0.001):
        raise ProviderError(f"--price={price:g}: must be dollars an hour, 0.001 or more")


def _with_machines(aws: Aws, plan: CloudPlan) -> tuple[CloudPlan, Image]:
    """Fill in types, image and numbers of workers."""
    head = machine_type(aws, plan.head_type or HEAD_TYPE, "--master_type")
    worker = machine_type(aws, plan.worker_type or WORKER_TYPE, "--worker_type")
    workers = workers_each(plan.cpus_per_node, worker.cores, worker.name)
    image = find_image(aws, plan.image, [head, worker])
    filled = dataclasses.replace(
        plan,
        head_type=head.name,
        worker_type=worker.name,
        cpus_per_node=workers,
        image=image.id,
    )
    return filled, image


def _free_name(aws: Aws, mine: Mine, name: str) -> str:
    """The name that was asked for, or one that is free."""
    there = found_clusters(aws, mine.owner)
    if name in RESERVED:
        raise ProviderError(f"cluster name {name!r} stands for something else: choose another")
    if name in there:
        raise ProviderError(f"a cluster {name!r} is there already: kill it, or choose another name")
    return name or fresh_name(there)


def _deadline(plan: CloudPlan) -> int:
    return int(time.time() + plan.hours * 3600)
