"""Where machines stand: networks, zones, types of machines, images."""

from dataclasses import dataclass
from typing import Any

from cluster.providers import ProviderError
from cluster.providers.aws.session import Aws, code_of
from utils.names import did_you_mean
from utils.settings import VARIABLES, setting

# Where Amazon says which image of its Linux is today's; it has the agent and the `aws` program.
IMAGE = "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-{architecture}"


@dataclass(frozen=True)
class MachineType:
    """What AWS says of a type."""

    name: str
    cores: int
    architectures: tuple[str, ...]


@dataclass(frozen=True)
class Image:
    """What a machine's disk begins with."""

    id: str
    architecture: str
    root: str  # the device that its system is on


def vpc_of(aws: Aws) -> str:
    """The network of the subnets in the settings, else the account's default one.

    Raises:
        ProviderError: there is none.
    """
    return str(subnets(aws)[0]["VpcId"])


def subnets(aws: Aws) -> list[dict[str, Any]]:
    """Those of the settings, else the default one of each zone.

    Raises:
        ProviderError: there are none, or they are not of one network.
    """
    where = f"{VARIABLES['aws', 'subnets']} or [aws] subnets"
    given = setting("aws", "subnets")
    if given is None:
        filters = [{"Name": "default-for-az", "Values": ["true"]}]
        found = list(aws.pages("ec2", "describe_subnets", "Subnets", Filters=filters))
        if not found:
            raise ProviderError(
                f"{aws.region} has no default network here: name subnets in {where}"
            )
        return sorted(found, key=lambda each: str(each["AvailabilityZone"]))
    wanted = [name.strip() for name in given.split(",") if name.strip()]
    try:
        found = aws.ec2.describe_subnets(SubnetIds=wanted)["Subnets"]
    except aws.ec2.exceptions.ClientError as error:
        if not code_of(error).startswith("InvalidSubnet"):
            raise
        raise ProviderError(f"{where}: {error.response['Error']['Message']}") from error
    if len({each["VpcId"] for each in found}) != 1:
        raise ProviderError(f"{where}: must name subnets of one network, in {aws.region}")
    return list(found)


def machine_type(aws: Aws, name: str, option: str) -> MachineType:
    """What AWS says of a type of machines.

    Args:
        option: that named it.
    Raises:
        ProviderError: there is none of that name in the region.
    """
    try:
        found = aws.ec2.describe_instance_types(InstanceTypes=[name])["InstanceTypes"]
    except aws.ec2.exceptions.ClientError as error:
        if not code_of(error).startswith("InvalidInstanceType"):
            raise
        found = []
    if not found:
        offered = aws.pages("ec2", "describe_instance_type_offerings", "InstanceTypeOfferings")
        hint = did_you_mean(name, [each["InstanceType"] for each in offered])
        raise ProviderError(f"{option}={name}: {aws.region} has no such machines.{hint}")
    (one,) = found
    architectures = one["ProcessorInfo"]["SupportedArchitectures"]
    return MachineType(name, one["VCpuInfo"]["DefaultVCpus"], tuple(architectures))


def zones_with(aws: Aws, name: str) -> set[str]:
    """The zones of the region that have machines of a type."""
    offers = aws.pages(
        "ec2",
        "describe_instance_type_offerings",
        "InstanceTypeOfferings",
        LocationType="availability-zone",
        Filters=[{"Name": "instance-type", "Values": [name]}],
    )
    return {each["Location"] for each in offers}


def subnets_with(aws: Aws, type_name: str, option: str) -> list[str]:
    """The subnets in which machines of a type can stand: ProviderError if there are none."""
    zones, all_ = zones_with(aws, type_name), subnets(aws)
    found = [each["SubnetId"] for each in all_ if each["AvailabilityZone"] in zones]
    if not found:
        here = ", ".join(sorted({each["AvailabilityZone"] for each in all_}))
        raise ProviderError(f"{option}={type_name}: none in the zones of the subnets ({here})")
    return found


def find_image(aws: Aws, given: str | None, types: list[MachineType]) -> Image:
    """The image to start from: as given, as the settings say, or Amazon's Linux of today.

    Raises:
        ProviderError: there is none, or it is not for machines of these types.
    """
    image = given or setting("aws", "image") or _todays(aws, types)
    try:
        found = aws.ec2.describe_images(ImageIds=[image])["Images"]
    except aws.ec2.exceptions.ClientError as error:
        if not code_of(error).startswith("InvalidAMI"):
            raise
        found = []
    if not found:
        raise ProviderError(f"--image_id={image}: {aws.region} has no such image")
    made = Image(
        image,
        found[0].get("Architecture") or "x86_64",
        found[0].get("RootDeviceName") or "/dev/xvda",
    )
    for each in types:
        if made.architecture not in each.architectures:
            raise ProviderError(
                f"image {image} is for {made.architecture}, {each.name} is"
                f" {' or '.join(each.architectures)}"
            )
    return made


def _todays(aws: Aws, types: list[MachineType]) -> str:
    both = [name for name in ("x86_64", "arm64") if all(name in t.architectures for t in types)]
    if not both:
        names = " and ".join(each.name for each in types)
        raise ProviderError(f"no image is for both {names}: choose types of one architecture")
    name = IMAGE.format(architecture=both[0])
    return str(aws.ssm.get_parameter(Name=name)["Parameter"]["Value"])
