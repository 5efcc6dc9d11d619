"""AWS: a machine for redis and the head, and an Auto Scaling group of machines with workers.

Nothing is kept here: AWS is asked what there is. See `cluster.providers.aws.machines` for the
parts, `start/` for what the machines do.
"""

import re
import time
from pathlib import Path
from typing import Any

from cluster.bundle import make_bundle
from cluster.providers import Change, CloudPlan, Cluster, Plan, ProviderError, no_cluster
from cluster.providers.aws.launch import check_price, create, prepare
from cluster.providers.aws.machines import (
    Found,
    end_cluster,
    found_clusters,
    image_of,
    now,
    policy,
    retyped,
    update_group,
)
from cluster.providers.aws.network import find_image, machine_type, subnets_with
from cluster.providers.aws.session import (
    Aws,
    Mine,
    code_of,
    told_in_one_line,
)
from cluster.providers.clouds import (
    MOST_MACHINES,
    TRY_OUT,
    Launches,
    check_cluster_name,
    owner_name,
)

LOG = "/opt/evo/log.txt"  # on a machine, as start/common.sh has it
ANSWER_SECONDS = 60.0  # that a machine has for a command
MOST_SAID = 20_000  # bytes; of what a command says, AWS hands on the first 24,000 characters
LOOK_SECONDS = 0.5
SOON = ("Pending", "InProgress", "Delayed", "Cancelling")
NOT_THERE = ("InvalidInstanceId", "InvalidInstanceID.NotFound", "InvalidInstanceID.Malformed")
UPLOADED = "/opt/evo/upload"


class AwsProvider:
    """The clusters of one owner in one region."""

    name = "aws"

    def __init__(self, owner: str, aws: Aws) -> None:
        self._aws, self._mine = aws, Mine(owner, aws.region)
        self._launches = Launches(told_in_one_line(lambda plan: prepare(aws, self._mine, plan)))

    # --- launching

    def check(self, plan: Plan) -> CloudPlan:
        return self._launches.check(plan)

    def estimate(self, plan: Plan) -> str:
        return self._launches.estimate(plan)

    def preview(self, plan: Plan) -> str:
        return self._launches.preview(plan)

    @told_in_one_line
    def create(self, plan: Plan) -> Cluster:
        head = create(self._aws, self._launches.taken(plan))
        state, address = head["State"]["Name"], head.get("PrivateIpAddress", "")
        return Cluster(
            plan.name, self.name, head["InstanceId"], state, plan.nodes, f"head {address}"
        )

    # --- looking

    @told_in_one_line
    def list(self) -> list[Cluster]:
        found = found_clusters(self._aws, self._mine.owner)
        return [_shown(name, found[name]) for name in sorted(found, key=lambda n: _age(found[n]))]

    @told_in_one_line
    def tail(self, name: str, lines: int, node: int | None = None) -> str:
        """From the machine itself; of one that does not answer, or has ended, what it stored."""
        found = found_clusters(self._aws, self._mine.owner).get(check_cluster_name(name))
        machine = found and _machine(name, found, node)
        if machine:
            last = f"test -e {LOG} && tail -n {lines} {LOG} | tail -c {MOST_SAID}"
            try:
                said = self._say(machine["InstanceId"], last).rstrip("\n")
                return said if len(said.encode()) < MOST_SAID - 1 else said.partition("\n")[2]
            except ProviderError:
                pass  # it has not begun, or is just ending
        stored = self._stored_log(name, machine, node)
        if stored is None:
            if found is None:
                raise no_cluster(name, [*found_clusters(self._aws, self._mine.owner)])
            raise ProviderError(f"{name} has said nothing yet: machines need minutes to start")
        return "\n".join(stored.splitlines()[-lines:])

    def _stored_log(self, name: str, machine: Any, node: int | None) -> str | None:
        runs = self._mine.cluster(name).runs
        if node is not None and machine is None:
            return None
        log = "head.txt" if node is None else f"worker-{machine['InstanceId']}.txt"
        try:
            answer = self._aws.s3.get_object(Bucket=self._aws.bucket(), Key=f"{runs}{log}")
        except self._aws.s3.exceptions.ClientError as error:
            if code_of(error) in ("NoSuchKey", "NoSuchBucket", "404"):
                return None
            raise
        return str(answer["Body"].read().decode(errors="replace"))

    @told_in_one_line
    def exec(self, name: str, command: str, node: int | None = None) -> str:
        machine = _machine(name, self._found(name), node)
        if machine is None:
            raise ProviderError(f"the head of {name} is gone: kill it")
        return self._say(machine["InstanceId"], command)

    def _say(self, machine: str, command: str) -> str:
        """Have a machine run a command of the shell; needs no open port and no key."""
        ssm = self._aws.ssm
        try:
            sent = ssm.send_command(
                InstanceIds=[machine],
                DocumentName="AWS-RunShellScript",
                Parameters={
                    "commands": [command],
                    "executionTimeout": [str(int(ANSWER_SECONDS))],
                },
            )["Command"]
        except ssm.exceptions.ClientError as error:
            if code_of(error) not in NOT_THERE:
                raise
            raise ProviderError(
                f"{machine} takes no commands: it has not yet started, or cannot reach AWS"
            ) from error
        answer = self._answer(sent["CommandId"], machine)
        if answer["Status"] != "Success":
            said = " ".join((answer.get("StandardErrorContent") or "").split())[-300:]
            raise ProviderError(f"{machine}: {said or answer['Status']}")
        return str(answer.get("StandardOutputContent") or "")

    def _answer(self, command: str, machine: str) -> dict[str, Any]:
        ssm, deadline = self._aws.ssm, time.monotonic() + ANSWER_SECONDS
        while time.monotonic() < deadline:
            try:
                answer = ssm.get_command_invocation(CommandId=command, InstanceId=machine)
                if answer["Status"] not in SOON:
                    return dict(answer)
            except ssm.exceptions.InvocationDoesNotExist:
                pass  # it is not yet known
            time.sleep(LOOK_SECONDS)
        raise ProviderError(f"{machine} does not answer within {ANSWER_SECONDS:g} seconds")

    # --- changing

    @told_in_one_line
    def resize(self, name: str, size: int) -> None:
        if not 1 <= size <= MOST_MACHINES:
            raise ProviderError(f"size {size}: must be 1 to {MOST_MACHINES} machines; see kill")
        update_group(self._aws, self._group(name), MinSize=size, MaxSize=size, DesiredCapacity=size)

    @told_in_one_line
    def set_price(self, name: str, change: Change) -> None:
        check_price(change.price)
        group = self._group(name)
        sizes = _sizes(group, change)
        template, version, type_name, _ = now(group)
        changes: dict[str, Any] = sizes
        if change.worker_type and change.worker_type != type_name:
            type_name = change.worker_type
            wanted = machine_type(self._aws, type_name, "--worker_type")
            find_image(self._aws, image_of(self._aws, template, version), [wanted])
            where = subnets_with(self._aws, type_name, "--worker_type")
            version = retyped(self._aws, template, version, type_name)
            changes = {**sizes, "VPCZoneIdentifier": ",".join(where)}
        mixed = policy(template, version, type_name, change.price)
        update_group(self._aws, group, MixedInstancesPolicy=mixed, **changes)

    @told_in_one_line
    def upload(self, machine: str, dry_run: bool = False) -> str:
        found = self._find_machine(machine)["InstanceId"]
        bundle, bucket = make_bundle(), self._aws.bucket()
        key = f"{self._mine.cluster('upload').code}{found}.tar.gz"
        place = f"s3://{bucket}/{key}"
        command = (
            f"set -e; mkdir -p {UPLOADED}; cd {UPLOADED};"
            f" aws s3 cp {place} - --only-show-errors | tar -xz"
        )
        steps = (
            f"commit {bundle.commit[:10]} is in {UPLOADED} of {found}\n"
            f"aws ssm start-session --target {found}\nsudo -i\ncd {UPLOADED}\n{TRY_OUT}"
        )
        if dry_run:
            return f"{len(bundle.data):,} bytes to {place}; then on {found}:\n{command}\n{steps}"
        self._aws.s3.put_object(Bucket=bucket, Key=key, Body=bundle.data)
        try:
            self._say(found, command)
        finally:
            self._aws.s3.delete_object(Bucket=bucket, Key=key)
        return steps

    def _find_machine(self, machine: str) -> dict[str, Any]:
        """By its id, or by an address inside or outside."""
        if re.fullmatch(r"i-[0-9a-f]+", machine):
            names = ["instance-id"]
        elif re.fullmatch(r"\d+\.\d+\.\d+\.\d+", machine):
            names = ["private-ip-address", "ip-address"]
        else:
            raise ProviderError(f"{machine!r} is neither a machine's id, i-…, nor its address")
        for name in names:
            filters = [
                {"Name": name, "Values": [machine]},
                {"Name": "instance-state-name", "Values": ["running"]},
            ]
            for each in self._aws.pages(
                "ec2", "describe_instances", "Reservations", Filters=filters
            ):
                return dict(each["Instances"][0])
        raise ProviderError(f"no machine {machine} is running in {self._aws.region}")

    # --- ending

    @told_in_one_line
    def destroy(self, name: str) -> None:
        self._found(name)
        bucket = self._aws.bucket()

        def look() -> Found | None:
            return found_clusters(self._aws, self._mine.owner, bucket).get(name)

        end_cluster(self._aws, look, bucket)

    # --- finding

    def _found(self, name: str) -> Found:
        there = found_clusters(self._aws, self._mine.owner)
        if name not in there:
            raise no_cluster(name, [*there])
        return there[name]

    def _group(self, name: str) -> dict[str, Any]:
        group = self._found(name).group
        if group is None:
            raise ProviderError(
                f"{name} has no group of workers: it is half made, or ending; kill it"
            )
        return group


def make(folder: Path, owner: str | None = None) -> AwsProvider:
    """The provider; see `cluster.providers.provider`. It leaves nothing in the folder."""
    return told_in_one_line(lambda: AwsProvider(owner_name(owner), Aws()))()


def _machine(name: str, found: Found, node: int | None) -> dict[str, Any] | None:
    """The head, if it is there, or a machine of workers by its number, the oldest first."""
    if node is None:
        return found.head
    workers = found.of("worker")
    if node >= len(workers):
        raise ProviderError(f"--node={node}: {name} has {len(workers)} machines of workers")
    return workers[node]


def _sizes(group: dict[str, Any], change: Change) -> dict[str, int]:
    """The sizes that a group is to have, checked: AWS's own words would be no help."""
    least, most = change.min_size, change.max_size
    wanted = change.desired_size
    least = group["MinSize"] if least is None else least
    most = group["MaxSize"] if most is None else most
    wanted = min(max(group["DesiredCapacity"], least), most) if wanted is None else wanted
    if not 0 <= least <= most <= MOST_MACHINES or most < 1:
        raise ProviderError(
            f"--min_size={least} --max_size={most}: must be 0 or more, and min not above max"
            f" (1 to {MOST_MACHINES})"
        )
    if not least <= wanted <= most:
        raise ProviderError(
            f"--desired_size={wanted}: must be between --min_size={least} and --max_size={most}"
        )
    return {"MinSize": least, "MaxSize": most, "DesiredCapacity": wanted}


def _shown(name: str, found: Found) -> Cluster:
    """One line of the list."""
    head, workers = found.head, found.of("worker")
    words = [f"head {head.get('PrivateIpAddress', '')}" if head else "no head"]
    if found.group is not None and found.group.get("MixedInstancesPolicy"):
        _, _, type_name, price = now(found.group)
        kind = "on demand" if price is None else f"spot, at most ${price:g}"
        words.append(f"{len(workers)} of {found.group['DesiredCapacity']} {type_name}, {kind}")
    else:
        words.append("no group of workers")
    status = head["State"]["Name"] if head else "headless"
    return Cluster(
        name,
        "aws",
        head["InstanceId"] if head else "",
        status if found.group is not None else "incomplete",
        len(workers),
        "; ".join(words),
    )


def _age(found: Found) -> tuple[str, str]:
    times = [str(each.get("LaunchTime", "")) for each in found.machines]
    return (min(times, default="~"), "")
