"""What IBM Cloud needs once for an owner in a region: a bucket and a security group.

Both can be made again without harm; ``teardown`` removes the group. The network with its subnet,
and the gateway by which machines reach package registries, are the user's own.
"""

from typing import Any

from cluster.addresses import PORT
from cluster.providers import ProviderError
from cluster.providers.clouds import owner_name
from cluster.providers.ibm.machines import find_group, find_subnet, found_clusters, group_name
from cluster.providers.ibm.session import Ibm, store_code, told_in_one_line
from utils.settings import VARIABLES, setting

CODE_DAYS = 30  # after which a bundle that nobody has removed goes
STORAGE = "{region}-smart"  # the class that IBM chooses the price of by itself
ANYWHERE = "0.0.0.0/0"


class IbmAccount:
    """The parts of an account that an owner's clusters share."""

    name = "ibm"

    def __init__(self, owner: str, ibm: Ibm) -> None:
        self._ibm, self._owner = ibm, owner

    @told_in_one_line
    def create_bucket(self, name: str | None) -> str:
        bucket, store = name or self._ibm.bucket, self._ibm.store
        where = {"LocationConstraint": STORAGE.format(region=self._ibm.region)}
        try:
            store.create_bucket(Bucket=bucket, CreateBucketConfiguration=where)
        except store.exceptions.ClientError as error:
            if store_code(error) not in ("BucketAlreadyExists", "BucketAlreadyOwnedByYou"):
                raise
            self._check_bucket(bucket)
        rule = {
            "ID": "bundles that nobody has removed",
            "Status": "Enabled",
            "Filter": {"Prefix": "code/"},
            "Expiration": {"Days": CODE_DAYS},
        }
        store.put_bucket_lifecycle_configuration(
            Bucket=bucket, LifecycleConfiguration={"Rules": [rule]}
        )
        return bucket

    def _check_bucket(self, bucket: str) -> None:
        """Refuse a bucket that is not there or not ours: ProviderError."""
        store = self._ibm.store
        try:
            store.head_bucket(Bucket=bucket)
        except store.exceptions.ClientError as error:
            if store_code(error) in ("404", "NoSuchBucket"):
                raise ProviderError(
                    f"no bucket {bucket}: python cluster/manage.py create-bucket --provider=ibm"
                ) from error
            raise ProviderError(f"bucket {bucket} is somebody else's: choose another") from error

    @told_in_one_line
    def setup(self) -> list[str]:
        """A group whose machines reach each other's redis, and the world; nobody reaches them."""
        vpc, group = self._ibm.vpc, find_group(self._ibm, self._owner)
        if group is None:
            network = {"id": find_subnet(self._ibm)["vpc"]["id"]}
            wanted = {"vpc": network, "name": group_name(self._owner)}
            group = vpc.create_security_group(**wanted).get_result()
        missing, strange = _differing(group)
        for rule in strange:
            vpc.delete_security_group_rule(group["id"], rule["id"])
        for rule in missing:
            vpc.create_security_group_rule(group["id"], rule)
        return [f"security group {group['name']} ({group['id']})"]

    @told_in_one_line
    def teardown(self) -> list[str]:
        if left := found_clusters(self._ibm, self._owner):
            raise ProviderError(f"kill these clusters first: {', '.join(sorted(left))}")
        group = find_group(self._ibm, self._owner)
        if group is None:
            return []
        self._ibm.vpc.delete_security_group(group["id"])
        return [f"security group {group['name']}"]

    @told_in_one_line
    def missing(self) -> list[str]:
        said = []
        try:
            self._check_bucket(self._ibm.bucket)
        except ProviderError as error:
            said.append(str(error))
        subnet = find_subnet(self._ibm)
        if not subnet.get("public_gateway"):
            said.append(
                f"subnet {subnet['name']} has no public gateway, so machines cannot install what"
                " they need: attach one"
            )
        group = find_group(self._ibm, self._owner)
        if group is None:
            said.append(f"no security group {group_name(self._owner)}: manage.py setup")
        elif any(_differing(group)):
            said.append(
                f"security group {group['name']} has other rules than it needs: manage.py setup"
            )
        return said

    @told_in_one_line
    def remarks(self) -> list[str]:
        ibm, where = self._ibm, VARIABLES["store", "url"]
        subnet = find_subnet(ibm)
        said = [
            f"region {ibm.region}, zone {subnet['zone']['name']}, owner {self._owner}",
            "machines have no rights: whoever launches waits, and removes them at the end",
        ]
        if setting("store", "url") is None:
            said.append(f"results go into {ibm.bucket}/runs/{self._owner}/, for {where} is not set")
        return said


def make(owner: str | None = None) -> IbmAccount:
    """The account; see `cluster.providers.account`."""
    return IbmAccount(owner_name(owner), Ibm())


def wanted_rules(group: str) -> list[dict[str, Any]]:
    """Redis from machines of the same group; out to wherever packages are."""
    ports = {"protocol": "tcp", "port_min": PORT, "port_max": PORT}
    return [
        {"direction": "inbound", **ports, "remote": {"id": group}},
        {"direction": "outbound", "protocol": "any", "remote": {"cidr_block": ANYWHERE}},
    ]


def _differing(group: dict[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The rules that a group lacks, and those that it should not have."""
    wanted, found = wanted_rules(group["id"]), group["rules"]
    missing = [rule for rule in wanted if not any(_is_same(each, rule) for each in found)]
    strange = [rule for rule in found if not any(_is_same(rule, each) for each in wanted)]
    return missing, strange


def _is_same(found: dict[str, Any], wanted: dict[str, Any]) -> bool:
    plain = ("direction", "protocol", "port_min", "port_max")
    remote = found.get("remote", {})
    same_remote = all(remote.get(key) == value for key, value in wanted["remote"].items())
    return same_remote and all(found.get(key) == wanted.get(key) for key in plain)
