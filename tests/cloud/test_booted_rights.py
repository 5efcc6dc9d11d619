"""What machines of a cluster may do, as it is seen from inside of them, and when they end."""

from collections.abc import Iterator

import pytest
from aws_moto import BUCKET, NOTHING, REGION, launch, manage
from booting import Booted
from clusters import LAUNCH, REASON, head_of, is_gone, workers_of
from commands import setting, wait_until
from fake_cloud import Cloud
from rights import ACCOUNT

from cluster.providers import clouds
from cluster.providers.aws.session import Aws
from cluster.providers.aws.setup import AwsAccount

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(REASON), reason=REASON)]
ENDLESS = ["sphere", *setting(num_generations=10_000_000, noise_size=50_000, pop_size=4)]
CONFIG = f"--config={' '.join(ENDLESS)}"
DEADLINE_SECONDS = 10  # enough for a launch
METADATA = "http://169.254.169.254/latest/meta-data/"


@pytest.fixture(scope="module")
def machines(cloud: Cloud) -> Iterator[tuple[Booted, Booted]]:
    """The head of a cluster, and a machine of its workers, at work."""
    done = launch(*LAUNCH, "--workers_per_machine=1", CONFIG)
    assert done.exit_code == 0, done.output
    head, (worker,) = head_of(cloud), workers_of(cloud)
    wait_until(lambda: "generation 1/" in head.log(), cloud)
    yield head, worker


@pytest.fixture
def ends(cloud: Cloud) -> Iterator[None]:
    """At the end nothing of a cluster is left, also when the test fails."""
    yield
    if cloud.moto.everything() != NOTHING:
        manage("kill", "one", "-y")
        is_gone(cloud)


@pytest.fixture
def others(cloud: Cloud) -> Iterator[str]:
    """Things of somebody else, in the same account; a launch template is named."""
    account = AwsAccount("bob", Aws())
    account.setup()
    s3, ec2 = cloud.moto.client("s3"), cloud.moto.client("ec2")
    s3.create_bucket(Bucket="evo-others", CreateBucketConfiguration={"LocationConstraint": REGION})
    for bucket, key in (("evo-others", "x"), (BUCKET, "code/bob/one/x")):
        s3.put_object(Bucket=bucket, Key=key, Body=b"of others")
    tags = [{"Key": "evo:owner", "Value": "bob"}]
    template = ec2.create_launch_template(
        LaunchTemplateName="evo-bob-one",
        LaunchTemplateData={"InstanceType": "t3.micro"},
        TagSpecifications=[{"ResourceType": "launch-template", "Tags": tags}],
    )["LaunchTemplate"]["LaunchTemplateId"]
    yield template
    ec2.delete_launch_template(LaunchTemplateId=template)
    for bucket, key in (("evo-others", "x"), (BUCKET, "code/bob/one/x")):
        s3.delete_object(Bucket=bucket, Key=key)
    s3.delete_bucket(Bucket="evo-others")
    account.teardown()


def test_machines_do_only_what_their_role_allows(
    machines: tuple[Booted, Booted], others: str
) -> None:
    head, worker = machines
    role = f"arn:aws:iam::{ACCOUNT}:role/evo-bob-{REGION}-head"
    forbidden = (
        "s3 cp s3://evo-others/x -",
        f"sts assume-role --role-arn {role} --role-session-name bob",
        f"ec2 terminate-instances --instance-ids {head.name}",
        # and what is a head's right where it is its owner's
        f"s3 cp s3://{BUCKET}/code/bob/one/x -",
        "ssm get-parameter --name /evo/bob/redis-password --with-decryption",
        f"ec2 delete-launch-template --launch-template-id {others}",
    )
    for machine, words in [(head, each) for each in forbidden] + [
        (worker, w) for w in forbidden[:3]
    ]:
        done = machine.run(f"aws {words} --region {REGION}")
        assert done.returncode == 254 and "AccessDenied" in done.stderr, (words, done)
    for machine, kind in ((head, "head"), (worker, "worker")):
        said = machine.run(f"aws sts get-caller-identity --region {REGION}").stdout
        assert f":assumed-role/evo-ann-{REGION}-{kind}/{machine.name}" in said


def test_metadata_are_told_to_those_with_a_token_only(machines: tuple[Booted, Booted]) -> None:
    for machine in machines:
        first = machine.run(f"curl -s -o /dev/null -w '%{{http_code}}' {METADATA}instance-id")
        assert first.stdout == "401"
        stolen = machine.run(f"curl -s -H 'X-aws-ec2-metadata-token: x' {METADATA}instance-id -f")
        assert (stolen.returncode, stolen.stdout) == (22, "")


def test_redis_is_reached_by_machines_of_the_group_and_with_the_password_only(
    cloud: Cloud, machines: tuple[Booted, Booted]
) -> None:
    head, worker = machines
    ec2 = cloud.moto.client("ec2")
    found = ec2.run_instances(ImageId="ami-12c6146b", MinCount=1, MaxCount=1)["Instances"][0]
    try:
        _knocks(cloud.machine(found["InstanceId"]), head, worker)
    finally:
        ec2.terminate_instances(InstanceIds=[found["InstanceId"]])
    assert manage("exec", "one", "id", "-un").output == "root\n"


def _knocks(stranger: Booted, head: Booted, worker: Booted) -> None:
    """Try doors that are shut, from outside of the group and from inside."""
    ask = f"exec 3<>/dev/tcp/{head.address}/6379; printf 'PING\\r\\n' >&3; head -n 1 <&3"
    assert stranger.run(f'timeout 1 bash -c "{ask}"').returncode == 124
    assert "-NOAUTH Authentication required" in worker.run(ask).stdout
    for machine, port, code in ((worker, 22, 1), (head, 6379, 1), (head, 22, 124)):
        # where nobody listens: 1 is "connection refused", 124 that no answer came
        knock = f"timeout 1 bash -c ': </dev/tcp/{worker.address}/{port}'"
        assert machine.run(knock).returncode == code, (machine.name, port)


@pytest.mark.usefixtures("ends")
def test_a126_all_ends_when_the_run_fails(cloud: Cloud, machines: tuple[Booted, Booted]) -> None:
    head, _ = machines
    head.run("kill -9 $(cat /opt/evo/experiment.pid)")
    is_gone(cloud)
    assert " ended with exit code 137\n" in manage("tail", "one", "-n", "50").output


@pytest.mark.usefixtures("ends")
def test_a126_all_ends_when_its_time_is_over(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if nobody is there, and the run has not even begun."""
    monkeypatch.setattr(clouds, "LEAST_HOURS", 0)
    hours = DEADLINE_SECONDS / 3600
    done = launch(*LAUNCH, "--workers_per_machine=1", CONFIG, f"--max-hours={hours}")
    assert done.exit_code == 0, done.output
    is_gone(cloud)
    assert "the time is over" in manage("tail", "one", "-n", "50").output
