"""What a cluster consists of on AWS: how each part is made, found again, changed and ended.

Everything is found by its name or its tags, and nothing else is touched. So a launcher that was
killed at any point leaves nothing that `end_cluster` does not find.
"""

import base64
import datetime
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from cluster.providers import ProviderError
from cluster.providers.aws.network import Image
from cluster.providers.aws.session import Aws, Names, as_tags, code_of, tags_of

ALIVE = ("pending", "running", "shutting-down", "stopping", "stopped")
DISK_GIGABYTES = 30  # the libraries take 6
PROFILE_SECONDS = 60.0  # until all of AWS knows a new profile
END_SECONDS = 600.0  # that machines have for their end
LOOK_SECONDS = 2.0
GONE = (
    *("ParameterNotFound", "NoSuchKey", "InvalidLaunchTemplateName.NotFoundException"),
    *("InvalidLaunchTemplateId.NotFound", "InvalidInstanceID.NotFound"),
)


@dataclass
class Found:
    """What there is of a cluster, as AWS describes it."""

    machines: list[dict[str, Any]] = field(default_factory=list)
    groups: list[dict[str, Any]] = field(default_factory=list)
    templates: list[dict[str, Any]] = field(default_factory=list)
    parameters: list[str] = field(default_factory=list)
    bundles: list[str] = field(default_factory=list)

    def of(self, role: str) -> list[dict[str, Any]]:
        """Machines of a role that have not ended, the oldest first."""
        mine = [each for each in self.machines if tags_of(each).get("evo:role") == role]
        return sorted(mine, key=lambda each: (str(each.get("LaunchTime")), each["InstanceId"]))

    @property
    def head(self) -> dict[str, Any] | None:
        heads = self.of("head")
        return heads[0] if heads else None

    @property
    def group(self) -> dict[str, Any] | None:
        return self.groups[0] if self.groups else None


def found_clusters(aws: Aws, owner: str, bucket: str | None = None) -> dict[str, Found]:
    """All clusters of an owner, whole or not, by name."""
    found: dict[str, Found] = {}

    def of(name: str) -> Found:
        return found.setdefault(name, Found())

    tagged = [{"Name": "tag:evo:owner", "Values": [owner]}]
    states = {"Name": "instance-state-name", "Values": list(ALIVE)}
    for each in aws.pages("ec2", "describe_instances", "Reservations", Filters=[*tagged, states]):
        for machine in each["Instances"]:
            if name := tags_of(machine).get("evo:cluster"):
                of(name).machines.append(machine)
    for group in aws.pages(
        "autoscaling", "describe_auto_scaling_groups", "AutoScalingGroups", Filters=tagged
    ):
        of(tags_of(group)["evo:cluster"]).groups.append(group)
    for template in aws.pages(
        "ec2", "describe_launch_templates", "LaunchTemplates", Filters=tagged
    ):
        of(tags_of(template)["evo:cluster"]).templates.append(template)
    path = f"/evo/{owner}/clusters/"
    for parameter in aws.pages(
        "ssm", "get_parameters_by_path", "Parameters", Path=path, Recursive=True
    ):
        of(parameter["Name"].removeprefix(path).partition("/")[0]).parameters.append(
            parameter["Name"]
        )
    for key in _keys(aws, bucket or aws.bucket(), f"code/{owner}/"):
        of(key.split("/")[2]).bundles.append(key)
    return found


def _keys(aws: Aws, bucket: str, prefix: str) -> list[str]:
    try:
        objects = aws.pages("s3", "list_objects_v2", "Contents", Bucket=bucket, Prefix=prefix)
        return [each["Key"] for each in objects]
    except aws.s3.exceptions.NoSuchBucket:
        return []


# --- making


@dataclass(frozen=True)
class Shape:
    """What a machine of a cluster is made of, besides its script."""

    image: Image
    type: str
    security_group: str
    profile: str
    tags: dict[str, str]

    def described(self, script: str) -> dict[str, Any]:
        """As RunInstances and launch templates have it in common."""
        disk = {"VolumeSize": DISK_GIGABYTES, "VolumeType": "gp3", "DeleteOnTermination": True}
        return {
            "ImageId": self.image.id,
            "InstanceType": self.type,
            "SecurityGroupIds": [self.security_group],
            "UserData": script,
            "IamInstanceProfile": {"Name": self.profile},
            # version 2 of the metadata service only, and not through a container or a proxy
            "MetadataOptions": {"HttpTokens": "required", "HttpPutResponseHopLimit": 1},
            "InstanceInitiatedShutdownBehavior": "terminate",
            "BlockDeviceMappings": [
                {"DeviceName": self.image.root, "Ebs": {**disk, "Encrypted": True}}
            ],
            "TagSpecifications": [
                {"ResourceType": kind, "Tags": as_tags(self.tags)}
                for kind in ("instance", "volume")
            ],
        }


def run_head(aws: Aws, shape: Shape, script: str, subnet: str) -> dict[str, Any]:
    """Start the head's machine; returns what AWS says of it."""
    wanted = shape.described(script)
    deadline = time.monotonic() + PROFILE_SECONDS
    while True:
        try:
            answer = aws.ec2.run_instances(MinCount=1, MaxCount=1, SubnetId=subnet, **wanted)
            made: dict[str, Any] = answer["Instances"][0]
            return made
        except aws.ec2.exceptions.ClientError as error:
            unknown = code_of(error) == "InvalidParameterValue" and "profile" in str(error).lower()
            if not unknown or time.monotonic() > deadline:
                raise
            time.sleep(LOOK_SECONDS)


def check_running(aws: Aws, machine: dict[str, Any]) -> None:
    """Refuse to go on when a machine has ended: ProviderError."""
    wanted = {"Name": "instance-id", "Values": [machine["InstanceId"]]}
    for found in aws.pages("ec2", "describe_instances", "Reservations", Filters=[wanted]):
        state = found["Instances"][0]["State"]["Name"]
        if state not in ("pending", "running"):
            raise ProviderError(
                f"the head is {state} already: see what it has stored in the bucket"
            )


def make_template(aws: Aws, names: Names, shape: Shape, script: str) -> tuple[str, str]:
    """Say how machines of workers are made; returns id and version."""
    described = shape.described(base64.b64encode(script.encode()).decode())
    own = {key: shape.tags[key] for key in ("evo:owner", "evo:cluster")}
    made = aws.ec2.create_launch_template(
        LaunchTemplateName=names.group,
        LaunchTemplateData=described,
        TagSpecifications=[{"ResourceType": "launch-template", "Tags": as_tags(own)}],
    )["LaunchTemplate"]
    return made["LaunchTemplateId"], str(made["LatestVersionNumber"])


def policy(template: str, version: str, type_name: str, price: float | None) -> dict[str, Any]:
    """Which machines a group starts: all at the fixed price, or all as spot ones."""
    distribution: dict[str, Any] = {
        "OnDemandBaseCapacity": 0,
        "OnDemandPercentageAboveBaseCapacity": 100 if price is None else 0,
    }
    if price is not None:
        distribution |= {
            "SpotAllocationStrategy": "price-capacity-optimized",
            "SpotMaxPrice": f"{price:.10f}".rstrip("0"),
        }
    wanted = {"LaunchTemplateId": template, "Version": version}
    return {
        "LaunchTemplate": {
            "LaunchTemplateSpecification": wanted,
            "Overrides": [{"InstanceType": type_name}],
        },
        "InstancesDistribution": distribution,
    }


def make_group(
    aws: Aws, names: Names, tags: dict[str, str], mixed: dict[str, Any], subnets: Sequence[str]
) -> None:
    """Make the group of workers, of no machines yet."""
    aws.autoscaling.create_auto_scaling_group(
        AutoScalingGroupName=names.group,
        MinSize=0,
        MaxSize=0,
        DesiredCapacity=0,
        VPCZoneIdentifier=",".join(subnets),
        MixedInstancesPolicy=mixed,
        CapacityRebalance=True,
        Tags=[{**tag, "PropagateAtLaunch": True} for tag in as_tags(tags)],
    )


def end_group_at(aws: Aws, names: Names, deadline: int) -> None:
    """Have AWS itself end all machines of the group when their time is over."""
    aws.autoscaling.put_scheduled_update_group_action(
        AutoScalingGroupName=names.group,
        ScheduledActionName="the time is over",
        StartTime=datetime.datetime.fromtimestamp(deadline, datetime.UTC),
        MinSize=0,
        MaxSize=0,
        DesiredCapacity=0,
    )


# --- changing


def update_group(aws: Aws, group: dict[str, Any], **changes: Any) -> None:
    """Change sizes or machines of a group; what is not named stays."""
    aws.autoscaling.update_auto_scaling_group(
        AutoScalingGroupName=group["AutoScalingGroupName"],
        **{"MixedInstancesPolicy": policy(*now(group)), **changes},
    )


def now(group: dict[str, Any]) -> tuple[str, str, str, float | None]:
    """Template, version, type and price that a group has."""
    mixed = group["MixedInstancesPolicy"]
    used = mixed["LaunchTemplate"]["LaunchTemplateSpecification"]
    (override,) = mixed["LaunchTemplate"]["Overrides"]
    price = mixed["InstancesDistribution"].get("SpotMaxPrice")
    return (
        used["LaunchTemplateId"],
        str(used["Version"]),
        override["InstanceType"],
        float(price) if price else None,
    )


def retyped(aws: Aws, template: str, version: str, type_name: str) -> str:
    """A new version of a template with another type of machine: all else is copied by AWS.

    So the start script is the old one, byte for byte.
    """
    made = aws.ec2.create_launch_template_version(
        LaunchTemplateId=template,
        SourceVersion=version,
        LaunchTemplateData={"InstanceType": type_name},
    )["LaunchTemplateVersion"]
    return str(made["VersionNumber"])


def image_of(aws: Aws, template: str, version: str) -> str:
    """The image that a template's machines start from."""
    answer = aws.ec2.describe_launch_template_versions(
        LaunchTemplateId=template, Versions=[version]
    )
    return str(answer["LaunchTemplateVersions"][0]["LaunchTemplateData"]["ImageId"])


# --- ending


def end_cluster(aws: Aws, look: Callable[[], Found | None], bucket: str) -> None:
    """End a cluster, in whatever state it is, and wait until nothing is left of it.

    Args:
        look: what there is of it now; AWS may know only later of what was just made.
    Raises:
        ProviderError: it does not end; what is left is found again by the same command.
    """
    deadline, left = time.monotonic() + END_SECONDS, look()
    while left is not None:
        end_parts(aws, left, bucket)
        if (left := look()) is not None:
            if time.monotonic() > deadline:
                names = [each["InstanceId"] for each in left.machines]
                raise ProviderError(
                    f"these do not end: {', '.join(names) or 'its group'}; kill again"
                )
            time.sleep(LOOK_SECONDS)


def end_parts(aws: Aws, found: Found, bucket: str) -> None:
    """Have AWS end what was found, unless it is at it."""
    for group in found.groups:
        name = group["AutoScalingGroupName"]
        if not group.get("Status"):  # which says that it is being deleted
            end = aws.autoscaling.delete_auto_scaling_group
            _end(end, AutoScalingGroupName=name, ForceDelete=True)
    for template in found.templates:
        _end(aws.ec2.delete_launch_template, LaunchTemplateId=template["LaunchTemplateId"])
    machines = [each["InstanceId"] for each in found.machines]
    if machines:
        _end(aws.ec2.terminate_instances, InstanceIds=machines)
    for parameter in found.parameters:
        _end(aws.ssm.delete_parameter, Name=parameter)
    for key in found.bundles:
        _end(aws.s3.delete_object, Bucket=bucket, Key=key)


def _end(call: Callable[..., Any], **asked: Any) -> None:
    """What is gone already has ended."""
    try:
        call(**asked)
    except Exception as error:
        gone = code_of(error) in GONE
        if not gone and not (code_of(error) == "ValidationError" and "not found" in str(error)):
            raise
