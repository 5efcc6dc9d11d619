"""AWS, played by moto: what is made, found again, changed and ended."""

import base64
import json
import re
from typing import Any

import pytest
from aws_moto import BUCKET, NOTHING, REGION, Moto, launch, launched, manage, plan
from botocore.exceptions import ClientError
from commands import complaint

from cluster import launch as launch_script
from cluster.providers import Change, ProviderError
from cluster.providers.aws import AwsProvider, machines
from cluster.providers.aws import launch as launches
from cluster.providers.aws.machines import Found, end_group_at, found_clusters
from cluster.providers.aws.session import Aws
from cluster.providers.aws.setup import AwsAccount

MONGO = "mongodb+srv://ann:secret@db.example.org/sacred"


# --- what is made


def test_a122_the_bucket_is_closed_encrypted_and_speaks_tls_only(moto: Moto) -> None:
    s3 = moto.client("s3")
    blocked = s3.get_public_access_block(Bucket=BUCKET)["PublicAccessBlockConfiguration"]
    assert set(blocked.values()) == {True}
    (rule,) = s3.get_bucket_encryption(Bucket=BUCKET)["ServerSideEncryptionConfiguration"]["Rules"]
    assert rule["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256"
    (said,) = json.loads(s3.get_bucket_policy(Bucket=BUCKET)["Policy"])["Statement"]
    assert said["Effect"] == "Deny" and said["Principal"] == "*"
    assert said["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    assert "Status" not in s3.get_bucket_versioning(Bucket=BUCKET)
    assert s3.get_bucket_location(Bucket=BUCKET)["LocationConstraint"] == REGION


def test_a122_a_bucket_in_the_first_region_and_one_that_is_taken(moto: Moto) -> None:
    """W-45: us-east-1 must not be named as a location."""
    first = AwsAccount("ann", Aws("us-east-1"))
    assert first.create_bucket("evo-first") == "evo-first"
    assert first.create_bucket("evo-first") == "evo-first"
    with pytest.raises(ProviderError, match="bucket evo-first is in us-east-1, not in eu-west-1"):
        AwsAccount("ann", Aws()).create_bucket("evo-first")
    taken = ClientError({"Error": {"Code": "BucketAlreadyExists"}}, "CreateBucket")
    account = AwsAccount("ann", Aws())
    taken = account.aws.s3.exceptions.BucketAlreadyExists(taken.response, "CreateBucket")
    with moto.fault(0, "before", taken), pytest.raises(ProviderError, match="taken, by another"):
        account.create_bucket("evo-other")
    with pytest.raises(ProviderError, match="3 to 63 small letters"):
        account.create_bucket("Evo_Bucket")


def test_a_set_up_can_be_repeated_and_removed(moto: Moto) -> None:
    account = AwsAccount("zoe", Aws())
    assert len(account.missing()) == 4
    made = account.setup()
    assert account.setup() == made and account.missing() == []
    password = moto.client("ssm").get_parameter(Name="/evo/zoe/redis-password")["Parameter"]
    assert (password["Type"], password["Version"]) == ("SecureString", 1)
    assert len(account.teardown()) == 4
    assert account.teardown() == []
    assert AwsAccount("ann", Aws()).missing() == []


def test_the_group_lets_in_redis_from_its_own_machines_and_nobody_else(moto: Moto) -> None:
    ec2 = moto.client("ec2")
    filters = [{"Name": "group-name", "Values": ["evo-ann"]}]

    def rules() -> list[dict[str, Any]]:
        (found,) = ec2.describe_security_groups(Filters=filters)["SecurityGroups"]
        return found["IpPermissions"]

    (rule,) = rules()
    assert (rule["IpProtocol"], rule["FromPort"], rule["ToPort"]) == ("tcp", 6379, 6379)
    (pair,) = rule["UserIdGroupPairs"]
    assert rule["IpRanges"] == [] and rule["Ipv6Ranges"] == []
    world = {
        "IpProtocol": "tcp",
        "FromPort": 22,
        "ToPort": 22,
        "IpRanges": [{"CidrIp": "0.0.0.0/0"}],
    }
    ec2.authorize_security_group_ingress(GroupId=pair["GroupId"], IpPermissions=[world])
    account = AwsAccount("ann", Aws())
    assert account.missing() == ["security group evo-ann has other rules than it needs"]
    account.setup()
    assert rules() == [rule] and account.missing() == []
    ec2.revoke_security_group_ingress(GroupId=pair["GroupId"], IpPermissions=[rule])
    assert account.missing() == ["security group evo-ann has other rules than it needs"]
    account.setup()
    assert len(rules()) == 1 and account.missing() == []


def test_a122_a_launch_makes_a_head_and_a_group(
    moto: Moto, aws: AwsProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MONGO_URL", MONGO)
    launched(aws, "one", price=0.1)
    (head,) = moto.machines_of(cluster="one", role="head")
    workers = moto.machines_of(cluster="one", role="worker")
    tags = {each["Key"]: each["Value"] for each in head["Tags"]}
    assert tags["evo:owner"] == "ann" and tags["Name"] == "HEAD_one" and tags["evo:bundle"]
    assert head["MetadataOptions"]["HttpTokens"] == "required"
    assert head["IamInstanceProfile"]["Arn"].endswith(f"/evo-ann-{REGION}-head")
    assert len(workers) == 2 and {each["InstanceType"] for each in workers} == {"t3.2xlarge"}
    made = moto.group("one")
    assert (made["MinSize"], made["MaxSize"], made["DesiredCapacity"]) == (2, 2, 2)
    distribution = made["MixedInstancesPolicy"]["InstancesDistribution"]
    assert distribution["SpotMaxPrice"] == "0.1"
    assert distribution["OnDemandPercentageAboveBaseCapacity"] == 0
    data = moto.template("one")
    assert data["MetadataOptions"]["HttpTokens"] == "required"
    assert data["InstanceInitiatedShutdownBehavior"] == "terminate"
    assert data["BlockDeviceMappings"][0]["Ebs"]["Encrypted"] is True
    stored = moto.client("ssm").get_parameter(
        Name="/evo/ann/clusters/one/mongo-url", WithDecryption=True
    )["Parameter"]
    assert (stored["Type"], stored["Value"]) == ("SecureString", MONGO)
    for each in (head, *workers):
        assert MONGO not in moto.start_script(each["InstanceId"])


def test_a122_the_address_of_the_users_mongodb_is_told_to_nobody(
    moto: Moto, aws: AwsProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But to the parameter that is secret: no script, template, tag or word of ours has it."""
    monkeypatch.setenv("MONGO_URL", MONGO)
    monkeypatch.setattr(launch_script, "check_config", lambda *_: None)  # asks nothing of AWS
    words = ("--name=one", "--config=sphere", "--committed-only")
    told = [launch(*words, "--dry-run").output, launch(*words, "-y").output]
    assert all("results to your MongoDB" in each for each in told)
    told += [manage("list").output, manage("check").output]
    ec2, scaling = moto.client("ec2"), moto.client("autoscaling")
    there = moto.machines_of(cluster="one")
    told += [moto.start_script(each["InstanceId"]) for each in there]
    template = moto.template("one")
    told.append(base64.b64decode(template.pop("UserData")).decode())
    described = [there, template, ec2.describe_tags()["Tags"], moto.group("one")]
    described += [scaling.describe_tags()["Tags"], moto.everything()]
    secret = [{"Key": "Type", "Values": ["SecureString"]}]
    described.append(moto.client("ssm").describe_parameters(ParameterFilters=secret)["Parameters"])
    assert len(there) == 2 and "mongo-url" in str(described[-1])
    assert "db.example.org" not in "\n".join(told) + str(described)


def test_a_launch_ends_by_itself_even_if_nobody_is_there(moto: Moto, aws: AwsProvider) -> None:
    """The group is told when to end, and so is every machine in its script."""
    launched(aws, "one", hours=3.0)
    actions = moto.client("autoscaling").describe_scheduled_actions(
        AutoScalingGroupName="evo-ann-one"
    )
    (action,) = actions["ScheduledUpdateGroupActions"]
    assert (action["MinSize"], action["MaxSize"], action["DesiredCapacity"]) == (0, 0, 0)
    for each in moto.machines_of(cluster="one"):
        said = re.search(r"^DEADLINE=(\d+)$", moto.start_script(each["InstanceId"]), re.MULTILINE)
        assert said and int(said[1]) == int(action["StartTime"].timestamp())


# --- what is changed


def test_a122_commands_act_on_the_named_cluster_only(moto: Moto, aws: AwsProvider) -> None:
    for name in ("one", "two"):
        launched(aws, name)
    before = moto.group("two"), moto.machines_of(cluster="two")
    listed = manage("list").output
    assert re.search(r"i-\w+ +running +2 +one +head 172", listed) and "two" in listed
    assert "4 machines" in manage("size", "one", "4").output
    assert len(moto.machines_of(cluster="one", role="worker")) == 4
    assert "1 machines" in manage("resize", "one", "1").output
    assert "1 machines of workers" in manage("size", "one").output
    changes = ["--price=0.07", "--max_size=5", "--desired_size=3", "--worker_type=m5.xlarge"]
    assert manage("set-price", "one", *changes).exit_code == 0
    made = moto.group("one")
    assert (made["MinSize"], made["MaxSize"], made["DesiredCapacity"]) == (1, 5, 3)
    assert "m5.xlarge, spot, at most $0.07" in manage("list").output
    assert manage("set-price", "one").exit_code == 0
    assert "m5.xlarge, on demand" in manage("list").output
    (head,) = moto.machines_of(cluster="one", role="head")
    moto.machines[head["InstanceId"]] = {"EVO": str(moto.folder)}
    (moto.folder / "log.txt").write_text("generation 1\ngeneration 2\n")
    assert manage("tail", "one", "-n", "1").output == "generation 2\n"
    (moto.folder / "log.txt").write_text("".join(f"{n:3} {'x' * 90}\n" for n in range(500)))
    told = manage("tail", "one", "-n", "400").output.splitlines()  # more than AWS hands on
    assert told[-1].startswith("499 ") and {len(each) for each in told} == {94}
    assert manage("exec", "one", "echo", "hello").output == "hello\n"
    assert "has ended" in manage("kill", "one", "-y").output
    assert moto.machines_of(cluster="one") == []
    assert (moto.group("two"), moto.machines_of(cluster="two")) == before
    assert "one" not in manage("list").output


def test_a123_new_machines_run_the_same_start_script(moto: Moto, aws: AwsProvider) -> None:
    """W-43: also after the type has changed, in all ways in which a machine may come."""
    launched(aws, "one", config=("sphere", "a='%s' \"$HOME\" `id` \\ ü"), nodes=1)
    (first,) = moto.machines_of(cluster="one", role="worker")
    script = moto.start_script(first["InstanceId"])
    aws.set_price("one", Change(price=0.1, worker_type="m5.xlarge", max_size=4, desired_size=2))
    aws.set_price("one", Change(worker_type="c5.xlarge", desired_size=3))
    aws.resize("one", 4)
    workers = moto.machines_of(cluster="one", role="worker")
    assert sorted(each["InstanceType"] for each in workers) == [
        *("c5.xlarge", "c5.xlarge", "m5.xlarge", "t3.2xlarge"),
    ]
    assert {moto.start_script(each["InstanceId"]) for each in workers} == {script}
    for version in ("1", "2", "3"):
        user_data = moto.template("one", version)["UserData"]
        assert base64.b64decode(user_data).decode() == script


def test_a122_upload_brings_the_code_to_a_machine(moto: Moto, aws: AwsProvider) -> None:
    launched(aws, "one", nodes=1)
    (head,) = moto.machines_of(cluster="one", role="head")
    machine, address = head["InstanceId"], head["PrivateIpAddress"]
    shown = manage("upload", address, "--dry_run").output
    assert f"to s3://{BUCKET}/code/ann/upload/{machine}.tar.gz" in shown
    programs = moto.folder / "bin"
    programs.mkdir()
    signed = f"--user key:secret --aws-sigv4 aws:amz:{REGION}:s3"
    text = f'#!/bin/sh\nexec curl -sf {signed} {moto.url}/"${{3#s3://}}"\n'
    (programs / "aws").write_text(text)
    (programs / "aws").chmod(0o700)
    evo = moto.folder / "machine"
    moto.machines[machine] = {"EVO": str(evo), "PATH": f"{programs}:/usr/bin:/bin"}
    done = manage("upload", address)
    assert done.exit_code == 0, done.output
    assert f"aws ssm start-session --target {machine}\nsudo -i\n" in done.output
    assert (evo / "upload" / "hello.py").read_text() == "hello = 1\n"
    keys = moto.client("s3").list_objects_v2(Bucket=BUCKET, Prefix="code/ann/upload/")
    assert keys["KeyCount"] == 0


def test_what_a_machine_stored_is_told_when_it_is_gone(moto: Moto, aws: AwsProvider) -> None:
    launched(aws, "one", nodes=1)
    nothing = manage("tail", "one")
    assert "has said nothing yet" in complaint(nothing.stderr)
    moto.client("s3").put_object(Bucket=BUCKET, Key="runs/ann/one/head.txt", Body=b"a\nb\nc\n")
    assert manage("tail", "one", "-n", "2").output == "b\nc\n"
    manage("kill", "one", "-y")
    assert manage("tail", "one", "-n", "1").output == "c\n"


def test_clusters_are_found_however_many_there_are(moto: Moto, aws: AwsProvider) -> None:
    """AWS answers in pages, of 10 in this case."""
    names = {f"c{number}" for number in range(12)}
    for name in names:
        moto.client("ssm").put_parameter(
            Name=f"/evo/ann/clusters/{name}/mongo-url", Type="SecureString", Value="x"
        )
    assert {each.name for each in aws.list()} == names
    assert {each.status for each in aws.list()} == {"incomplete"}


# --- what is ended


WRITES_OF_A_LAUNCH = 7


def test_a125_a_launch_that_fails_half_way_leaves_nothing(
    moto: Moto, aws: AwsProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MONGO_URL", MONGO)
    checked = aws.check(plan("one"))
    refused = ClientError({"Error": {"Code": "Boom", "Message": "no capacity"}}, "X")
    for number in range(WRITES_OF_A_LAUNCH):
        expected = pytest.raises(ProviderError, match="no capacity; nothing of one is left")
        with moto.fault(number, "after", refused), expected:
            aws.create(checked)
        assert moto.everything() == NOTHING
    with moto.fault(4, "before", KeyboardInterrupt()), pytest.raises(KeyboardInterrupt):
        aws.create(checked)
    assert moto.everything() == NOTHING


def test_a125_what_aws_does_not_yet_know_is_rolled_back_too(
    moto: Moto, aws: AwsProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AWS may need a moment until it finds again what it has just made."""

    def found(*asked: Any) -> dict[str, Found]:
        there = found_clusters(*asked)
        for each in there.values():
            each.machines.clear()
        return {name: each for name, each in there.items() if each != Found()}

    checked = aws.check(plan("one"))
    monkeypatch.setattr(launches, "found_clusters", found)
    monkeypatch.setattr(machines, "LOOK_SECONDS", 0)
    refused = ClientError({"Error": {"Code": "Boom", "Message": "no capacity"}}, "X")
    with moto.fault(2, "before", refused), pytest.raises(ProviderError, match="no capacity"):
        aws.create(checked)
    assert moto.everything() == NOTHING


def test_a_profile_that_is_new_is_waited_for(
    moto: Moto, aws: AwsProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machines, "LOOK_SECONDS", 0)
    said = {"Code": "InvalidParameterValue", "Message": "Invalid IAM Instance Profile name"}
    checked, unknown = aws.check(plan("one")), ClientError({"Error": said}, "RunInstances")
    with moto.fault(1, "before", unknown):
        aws.create(checked)
    assert moto.writes[1:3] == ["RunInstances", "RunInstances"]


def test_a125_a_head_that_ends_during_the_launch_leaves_no_workers(
    moto: Moto, aws: AwsProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end_head(*asked: Any) -> None:
        (head,) = moto.machines_of(cluster="one", role="head")
        moto.client("ec2").terminate_instances(InstanceIds=[head["InstanceId"]])
        end_group_at(*asked)

    monkeypatch.setattr(launches, "end_group_at", end_head)
    with pytest.raises(ProviderError, match="the head is terminated already"):
        launched(aws, "one")
    assert moto.everything() == NOTHING


def test_a125_a_cluster_whose_head_is_dead_can_be_killed(moto: Moto, aws: AwsProvider) -> None:
    """W-44."""
    launched(aws, "one")
    (head,) = moto.machines_of(cluster="one", role="head")
    moto.client("ec2").terminate_instances(InstanceIds=[head["InstanceId"]])
    assert "headless" in manage("list").output
    assert "has ended" in manage("kill", "one", "-y").output
    assert moto.everything() == NOTHING


def test_a_set_up_that_is_in_use_is_not_removed(moto: Moto, aws: AwsProvider) -> None:
    launched(aws, "one", nodes=1)
    done = manage("teardown", "-y")
    assert done.exit_code == 1 and "kill these clusters first: one" in complaint(done.stderr)
    assert AwsAccount("ann", Aws()).missing() == []
