"""What AWS needs once for an owner in a region: a bucket, roles, a security group, a password.

All of it can be made again without harm, and is removed by ``teardown``, but for the bucket: logs
and results are in it.
"""

import contextlib
import json
import logging
import re
import secrets
from typing import Any

from cluster.addresses import PORT
from cluster.providers import ProviderError
from cluster.providers.aws.machines import found_clusters
from cluster.providers.aws.network import vpc_of
from cluster.providers.aws.policies import ROLES, bucket_policy, role_policy, trust
from cluster.providers.aws.session import (
    Aws,
    Mine,
    as_tags,
    code_of,
    explained,
    told_in_one_line,
)
from cluster.providers.clouds import owner_name
from utils.settings import VARIABLES, setting

log = logging.getLogger(__name__)

POLICY = "evo"  # the name of a role's only policy
BUCKET = re.compile(r"(?!\d+\.\d+\.\d+\.\d+$)(?!xn--)(?!.*\.\.)[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
CODE_DAYS = 30  # after which a bundle that nobody has removed goes
GONE = ("NoSuchEntity", "NoSuchEntityException", "ParameterNotFound", "InvalidGroup.NotFound")
QUOTAS = {  # of virtual cores that run at a time
    "on demand": "L-1216C47A",
    "spot": "L-34B43A08",
}


class AwsAccount:
    """The parts of an account that an owner's clusters share."""

    name = "aws"

    def __init__(self, owner: str, aws: Aws) -> None:
        self.aws = aws
        self.mine = Mine(owner, aws.region)

    # --- the bucket

    @told_in_one_line
    def create_bucket(self, name: str | None) -> str:
        bucket = self.aws.bucket(name)
        if not BUCKET.fullmatch(bucket):
            raise ProviderError(
                f"bucket name {bucket!r}: 3 to 63 small letters, digits, dots and dashes, a letter"
                " or digit at both ends"
            )
        self._make_bucket(bucket)
        s3 = self.aws.s3
        closed = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy")
        s3.put_public_access_block(
            Bucket=bucket,
            PublicAccessBlockConfiguration=dict.fromkeys((*closed, "RestrictPublicBuckets"), True),
        )
        s3.put_bucket_ownership_controls(
            Bucket=bucket,
            OwnershipControls={"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]},
        )
        by_default = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}
        s3.put_bucket_encryption(
            Bucket=bucket, ServerSideEncryptionConfiguration={"Rules": [by_default]}
        )
        s3.put_bucket_lifecycle_configuration(
            Bucket=bucket, LifecycleConfiguration={"Rules": [_forgets_code()]}
        )
        policy = bucket_policy(self.aws.partition, bucket)
        s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps(policy))
        return bucket

    def _make_bucket(self, bucket: str) -> None:
        where: dict[str, Any] = {}
        if self.aws.region != "us-east-1":  # which is said by saying nothing
            where["CreateBucketConfiguration"] = {"LocationConstraint": self.aws.region}
        try:
            self.aws.s3.create_bucket(Bucket=bucket, **where)
        except self.aws.s3.exceptions.BucketAlreadyOwnedByYou:
            check_bucket(self.aws, bucket)
        except self.aws.s3.exceptions.BucketAlreadyExists:
            raise ProviderError(
                f"bucket {bucket} is taken, by another account: choose another --name"
            ) from None

    # --- what clusters share

    @told_in_one_line
    def setup(self) -> list[str]:
        bucket = self.aws.bucket()
        made = [self._make_role(role, bucket) for role in ROLES]
        return [*made, self._make_group(), self._make_password()]

    def _make_role(self, role: str, bucket: str) -> str:
        """A role and its profile, with exactly the rights of today."""
        iam, name = self.aws.iam, self.mine.role(role)
        tags = as_tags({"evo:owner": self.mine.owner})
        ours = iam.exceptions.EntityAlreadyExistsException
        try:
            iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust()), Tags=tags)
        except ours:
            iam.update_assume_role_policy(RoleName=name, PolicyDocument=json.dumps(trust()))
        rights = rights_of(self.aws, self.mine, role, bucket)
        iam.put_role_policy(RoleName=name, PolicyName=POLICY, PolicyDocument=json.dumps(rights))
        with contextlib.suppress(ours):
            iam.create_instance_profile(InstanceProfileName=name, Tags=tags)
        profile = iam.get_instance_profile(InstanceProfileName=name)["InstanceProfile"]
        if not profile["Roles"]:
            iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)
        return f"role {name}"

    def _make_group(self) -> str:
        """A security group whose machines reach each other's redis; nobody else reaches them."""
        ec2 = self.aws.ec2
        found = find_group(self.aws, self.mine)
        if found is None:
            tags = as_tags({"evo:owner": self.mine.owner})
            made = ec2.create_security_group(
                GroupName=self.mine.group,
                Description="machines of clusters: redis among themselves",
                VpcId=vpc_of(self.aws),
                TagSpecifications=[{"ResourceType": "security-group", "Tags": tags}],
            )
            found = {"GroupId": made["GroupId"], "IpPermissions": []}
        missing, strange = _differing(found)
        if strange:
            ec2.revoke_security_group_ingress(GroupId=found["GroupId"], IpPermissions=strange)
        if missing:
            ec2.authorize_security_group_ingress(GroupId=found["GroupId"], IpPermissions=missing)
        return f"security group {self.mine.group} ({found['GroupId']})"

    def _make_password(self) -> str:
        ssm, name = self.aws.ssm, self.mine.password
        with contextlib.suppress(ssm.exceptions.ParameterAlreadyExists):
            ssm.put_parameter(
                Name=name,
                Type="SecureString",
                Value=secrets.token_hex(24),
                Description="what workers tell the head's redis",
                Tags=as_tags({"evo:owner": self.mine.owner}),
            )
        return f"password in parameter {name}"

    @told_in_one_line
    def teardown(self) -> list[str]:
        if left := found_clusters(self.aws, self.mine.owner):
            raise ProviderError(f"kill these clusters first: {', '.join(sorted(left))}")
        removed = [name for role in ROLES for name in self._remove_role(role)]
        if group := find_group(self.aws, self.mine):
            self.aws.ec2.delete_security_group(GroupId=group["GroupId"])
            removed.append(f"security group {self.mine.group}")
        if _done(self.aws.ssm.delete_parameter, Name=self.mine.password):
            removed.append(f"parameter {self.mine.password}")
        return removed

    def _remove_role(self, role: str) -> list[str]:
        iam, name = self.aws.iam, self.mine.role(role)
        try:
            profile = iam.get_instance_profile(InstanceProfileName=name)["InstanceProfile"]
        except iam.exceptions.NoSuchEntityException:
            profile = None
        if profile is not None:
            for each in profile["Roles"]:
                iam.remove_role_from_instance_profile(
                    InstanceProfileName=name, RoleName=each["RoleName"]
                )
            iam.delete_instance_profile(InstanceProfileName=name)
        _done(iam.delete_role_policy, RoleName=name, PolicyName=POLICY)
        removed = _done(iam.delete_role, RoleName=name)
        return [f"role {name}"] if profile or removed else []

    # --- what is missing

    @told_in_one_line
    def missing(self) -> list[str]:
        return missing_parts(self.aws, self.mine)

    @told_in_one_line
    def remarks(self) -> list[str]:
        place = f"s3://{self.aws.bucket()}/{self.mine.runs}"
        where = VARIABLES["store", "url"]
        said = [f"account {self.aws.account}, region {self.aws.region}, owner {self.mine.owner}"]
        if setting("store", "url") is None:
            said.append(f"results go into {place}, for {where} is not set")
        for kind, code in QUOTAS.items():
            try:
                answer = self.aws.service_quotas.get_service_quota(
                    ServiceCode="ec2", QuotaCode=code
                )
                cores = int(answer["Quota"]["Value"])
            except Exception as error:
                if (reason := explained(error)) is None:
                    raise
                said.append(f"quota of cores {kind} is not known: {reason}")
                continue
            if cores < 16:
                said.append(f"quota: {cores} cores {kind}; ask for more (Service Quotas, {code})")
        return said


def make(owner: str | None = None) -> AwsAccount:
    """The account; see `cluster.providers.account`."""
    return told_in_one_line(lambda: AwsAccount(owner_name(owner), Aws()))()


def missing_parts(aws: Aws, mine: Mine) -> list[str]:
    """What `create_bucket` and `setup` would make; empty if all is there."""
    said = []
    bucket = aws.bucket()
    try:
        check_bucket(aws, bucket)
    except ProviderError as error:
        said.append(str(error))
    for role in ROLES:
        name = mine.role(role)
        try:
            profile = aws.iam.get_instance_profile(InstanceProfileName=name)["InstanceProfile"]
            found = aws.iam.get_role_policy(RoleName=name, PolicyName=POLICY)
            if not profile["Roles"]:
                said.append(f"profile {name} has no role")
            if found["PolicyDocument"] != rights_of(aws, mine, role, bucket):
                said.append(f"role {name} has other rights than it needs now")
        except aws.iam.exceptions.NoSuchEntityException:
            said.append(f"no role {name}")
    group = find_group(aws, mine)
    if group is None:
        said.append(f"no security group {mine.group}")
    elif any(_differing(group)):
        said.append(f"security group {mine.group} has other rules than it needs")
    try:
        aws.ssm.get_parameter(Name=mine.password)
    except aws.ssm.exceptions.ParameterNotFound:
        said.append(f"no parameter {mine.password}")
    return said


def rights_of(aws: Aws, mine: Mine, role: str, bucket: str) -> dict[str, Any]:
    """What machines of a role may do, in this account."""
    return role_policy(role, mine, partition=aws.partition, account=aws.account, bucket=bucket)


def check_bucket(aws: Aws, bucket: str) -> None:
    """Refuse a bucket that is not there, not ours, or elsewhere: ProviderError."""
    try:
        answer = aws.s3.head_bucket(Bucket=bucket, ExpectedBucketOwner=aws.account)
    except aws.s3.exceptions.ClientError as error:
        if code_of(error) in ("404", "NoSuchBucket"):
            raise ProviderError(
                f"no bucket {bucket}: python cluster/manage.py create-bucket"
            ) from error
        if code_of(error) in ("403", "301"):
            raise ProviderError(f"bucket {bucket} is not of this account and region") from error
        raise
    region = answer.get("BucketRegion") or aws.region
    if region != aws.region:
        raise ProviderError(f"bucket {bucket} is in {region}, not in {aws.region}")


def find_group(aws: Aws, mine: Mine) -> dict[str, Any] | None:
    """The security group, as AWS describes it; None if it is not there."""
    filters = [
        {"Name": "group-name", "Values": [mine.group]},
        {"Name": "tag:evo:owner", "Values": [mine.owner]},
    ]
    groups = list(aws.pages("ec2", "describe_security_groups", "SecurityGroups", Filters=filters))
    return groups[0] if groups else None


def among_themselves(group: str) -> dict[str, Any]:
    """The only rule: redis, from machines of the same group."""
    pairs = [{"GroupId": group}]
    return {"IpProtocol": "tcp", "FromPort": PORT, "ToPort": PORT, "UserIdGroupPairs": pairs}


def _differing(group: dict[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The rules that a group lacks, and those that it should not have."""
    wanted, found = among_themselves(group["GroupId"]), group["IpPermissions"]
    strange = [rule for rule in found if not _is_same(rule, wanted)]
    return [wanted] if len(strange) == len(found) else [], strange


def _is_same(rule: dict[str, Any], wanted: dict[str, Any]) -> bool:
    ports = all(rule.get(key) == wanted[key] for key in ("IpProtocol", "FromPort", "ToPort"))
    groups = [pair["GroupId"] for pair in rule.get("UserIdGroupPairs") or []]
    elsewhere = any(rule.get(key) for key in ("IpRanges", "Ipv6Ranges", "PrefixListIds"))
    return ports and not elsewhere and groups == [wanted["UserIdGroupPairs"][0]["GroupId"]]


def _forgets_code() -> dict[str, Any]:
    return {
        "ID": "bundles that nobody has removed",
        "Status": "Enabled",
        "Filter": {"Prefix": "code/"},
        "Expiration": {"Days": CODE_DAYS},
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1},
    }


def _done(call: Any, **asked: Any) -> bool:
    """Do it; false if what should go is gone already."""
    try:
        call(**asked)
    except Exception as error:
        if code_of(error) not in GONE:
            raise
        return False
    return True
