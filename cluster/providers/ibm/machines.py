"""What a cluster consists of on IBM Cloud: how machines are made, found, used again and ended.

A cluster's machines are called NAME-0, which is the head, NAME-1 and so on. Others may have such
names, too: ours are only those in the owner's security group, and no other is touched.
"""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cluster.providers import ProviderError
from cluster.providers.ibm.session import Ibm
from utils.names import did_you_mean
from utils.settings import VARIABLES, setting

NAME = re.compile(r"(.+)-(0|[1-9]\d*)")
IMAGE = re.compile(r"ibm-ubuntu-24-04-\d+-minimal-amd64-\d+")  # today's is the newest of them
NO_ADDRESS = "0.0.0.0"  # what a machine has before it has one
READY_SECONDS = 300.0  # that a machine has to get an address, to stop, or to go
LOOK_SECONDS = 2.0
GONE = 404


@dataclass
class Found:
    """What there is of a cluster, as IBM describes it."""

    machines: dict[int, dict[str, Any]] = field(default_factory=dict)
    objects: list[str] = field(default_factory=list)

    @property
    def head(self) -> dict[str, Any] | None:
        return self.machines.get(0)

    @property
    def workers(self) -> dict[int, dict[str, Any]]:
        return {number: each for number, each in sorted(self.machines.items()) if number > 0}


def found_clusters(ibm: Ibm, owner: str) -> dict[str, Found]:
    """All clusters of an owner, whole or not, by name."""
    found: dict[str, Found] = {}
    group = find_group(ibm, owner)
    if group is not None:
        targets = ibm.pages("SecurityGroupTargets", security_group_id=group["id"])
        ours = {each["id"] for each in targets}
        for machine in ibm.pages("Instances", vpc_id=group["vpc"]["id"]):
            named = NAME.fullmatch(machine["name"])
            if named and machine["primary_network_interface"]["id"] in ours:
                found.setdefault(named[1], Found()).machines[int(named[2])] = machine
    for key in ibm.keys(f"code/{owner}/"):
        found.setdefault(key.split("/")[2], Found()).objects.append(key)
    return found


# --- where machines stand, and what they are


def find_subnet(ibm: Ibm) -> dict[str, Any]:
    """The subnet of the settings, by name or id: ProviderError if there is none."""
    where = f"{VARIABLES['ibm', 'subnet']} or [ibm] subnet"
    wanted = setting("ibm", "subnet")
    there = list(ibm.pages("Subnets"))
    names = sorted(each["name"] for each in there)
    if not wanted:
        raise ProviderError(f"set {where}; in {ibm.region} there are: {', '.join(names) or 'none'}")
    for each in there:
        if wanted in (each["name"], each["id"]):
            return dict(each)
    hint = did_you_mean(wanted, names)
    raise ProviderError(f"{where}: {ibm.region} has no subnet {wanted!r}.{hint}")


def find_group(ibm: Ibm, owner: str) -> dict[str, Any] | None:
    """The owner's security group in the subnet's network; None if it is not there."""
    vpc = find_subnet(ibm)["vpc"]["id"]
    for each in ibm.pages("SecurityGroups", vpc_id=vpc):
        if each["name"] == group_name(owner):
            return dict(each)
    return None


def group_name(owner: str) -> str:
    return f"evo-{owner}"


def profiles(ibm: Ibm) -> dict[str, tuple[int, int]]:
    """Virtual cores and GB of memory of the types of machines that can run what images are for."""
    found = ibm.vpc.list_instance_profiles().get_result()["profiles"]
    return {
        each["name"]: (int(each["vcpu_count"]["value"]), int(each["memory"]["value"]))
        for each in found
        if each["vcpu_count"]["type"] == each["memory"]["type"] == "fixed"
        and "amd64" in each["os_architecture"]["values"]
        and each.get("gpu_count") is None
    }


def find_image(ibm: Ibm, given: str | None) -> dict[str, Any]:
    """The image to start from: as given, as the settings say, or today's Ubuntu."""
    wanted = given or setting("ibm", "image")
    there = list(ibm.pages("Images", status=["available"]))
    if wanted is None:
        ubuntus = [each for each in there if IMAGE.fullmatch(each["name"])]
        if not ubuntus:
            raise ProviderError(f"{ibm.region} has no image of Ubuntu 24.04: name one, --image_id")
        return dict(max(ubuntus, key=lambda each: each["created_at"]))
    for each in there:
        if wanted in (each["name"], each["id"]):
            return dict(each)
    hint = did_you_mean(wanted, [each["name"] for each in there])
    raise ProviderError(f"--image_id={wanted}: {ibm.region} has no such image.{hint}")


def find_ssh_keys(ibm: Ibm) -> list[dict[str, str]]:
    """The key of the settings, if any: nothing here needs one."""
    wanted = setting("ibm", "ssh_key")
    if not wanted:
        return []
    for each in ibm.pages("Keys"):
        if wanted in (each["name"], each["id"]):
            return [{"id": each["id"]}]
    where = f"{VARIABLES['ibm', 'ssh_key']} or [ibm] ssh_key"
    raise ProviderError(f"{where}: {ibm.region} has no key {wanted!r}")


# --- making


@dataclass(frozen=True)
class Shape:
    """What the machines of a cluster are made of, besides their scripts."""

    image: str
    subnet: dict[str, Any]
    security_group: str
    keys: list[dict[str, str]]

    def make(self, ibm: Ibm, name: str, profile: str, script: str) -> dict[str, Any]:
        """Start a new machine; returns what IBM says of it."""
        wanted = {
            "name": name,
            "profile": {"name": profile},
            "image": {"id": self.image},
            "vpc": {"id": self.subnet["vpc"]["id"]},
            "zone": {"name": self.subnet["zone"]["name"]},
            "primary_network_interface": {
                "subnet": {"id": self.subnet["id"]},
                "security_groups": [{"id": self.security_group}],
                "allow_ip_spoofing": False,
            },
            "keys": self.keys,
            "user_data": script,
            "metadata_service": {"enabled": False},  # it would tell the script to any process
        }
        return dict(ibm.vpc.create_instance(wanted).get_result())

    def make_again(self, ibm: Ibm, machine: dict[str, Any], script: str) -> dict[str, Any]:
        """Have a machine that is there begin anew: its disk is replaced, all else stays."""
        number = machine["id"]
        if look(ibm, number)["status"] != "stopped":
            ibm.vpc.create_instance_action(number, type="stop", force=True)
        wait(lambda: look(ibm, number)["status"] == "stopped", f"{machine['name']} does not stop")
        wanted = {"image": {"id": self.image}, "keys": self.keys, "user_data": script}
        ibm.vpc.create_instance_reinitialization(number, wanted)
        return look(ibm, number)


def look(ibm: Ibm, number: str) -> dict[str, Any]:
    """What IBM says of a machine now."""
    return dict(ibm.vpc.get_instance(number).get_result())


def address_of(machine: dict[str, Any]) -> str:
    return str(machine["primary_network_interface"]["primary_ip"]["address"])


def address(ibm: Ibm, number: str, name: str) -> str:
    """A machine's address, as soon as it has one."""
    wait(lambda: address_of(look(ibm, number)) != NO_ADDRESS, f"{name} gets no address")
    return address_of(look(ibm, number))


# --- ending


def end_machine(ibm: Ibm, machine: dict[str, Any]) -> None:
    """Remove a machine; does no harm if it is going already."""
    from ibm_cloud_sdk_core import ApiException

    if machine.get("status") == "deleting":
        return
    try:
        ibm.vpc.delete_instance(machine["id"])
    except ApiException as error:
        if error.status_code != GONE:
            raise


def wait(condition: Callable[[], bool], trouble: str) -> None:
    """Wait until something holds: ProviderError with the trouble if it does not come to hold."""
    deadline = time.monotonic() + READY_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise ProviderError(f"{trouble} within {READY_SECONDS:g} seconds")
        time.sleep(LOOK_SECONDS)
