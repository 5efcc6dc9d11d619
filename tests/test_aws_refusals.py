"""What AWS would take, or explain in its own words: refused before anything is made."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from aws_moto import REGION, Moto, launch, launched, manage, plan
from botocore.exceptions import ClientError
from botocore.stub import Stubber
from click.testing import Result
from commands import complaint

from cluster.providers import Change, ProviderError
from cluster.providers.aws import AwsProvider
from cluster.providers.aws.session import Aws
from cluster.providers.aws.setup import AwsAccount


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"nodes": 0}, "--size=0: must be 1 to 1000"),
        ({"nodes": -3}, "--size=-3: must be 1 to 1000"),
        ({"price": float("nan")}, "--price=nan: must be dollars"),
        ({"price": 0.0}, "--price=0: must be dollars"),
        ({"hours": float("inf")}, "--max-hours=inf: must be a number, 0.1 or more"),
        ({"name": "Big_One"}, "'Big_One': a small letter, then up to 29"),
        ({"name": "upload"}, "'upload' stands for something else"),
        (
            {"worker_type": "t3.3xlarge"},
            "--worker_type=t3.3xlarge: eu-west-1 has no such machines.",
        ),
        ({"head_type": "big"}, "--master_type=big: eu-west-1 has no such machines"),
        ({"image": "ami-12345678"}, "--image_id=ami-12345678: eu-west-1 has no such image"),
        ({"cpus_per_node": 9}, "--workers_per_machine=9: t3.2xlarge has 8 cores"),
        ({"head_type": "t4g.large"}, "no image is for both t4g.large and t3.2xlarge"),
        ({"worker_command": "python '"}, "No closing quotation"),
        ({"config": ("x" * 20_000,)}, "AWS takes 16,384: shorten --config"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_made(
    moto: Moto, aws: AwsProvider, asked: dict[str, Any], said: str
) -> None:
    moto.calls.clear()
    with pytest.raises(ProviderError, match=re.escape(said)) as caught:
        aws.check(plan(**asked))
    assert moto.writes == [] and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (Change(min_size=3, max_size=2), "--min_size=3 --max_size=2: must be 0 or more"),
        (Change(desired_size=9), "--desired_size=9: must be between --min_size=1 and --max_size=1"),
        (Change(price=-1.0), "--price=-1: must be dollars"),
        (Change(worker_type="c6g.xlarge"), "is for x86_64, c6g.xlarge is arm64"),
        (Change(worker_type="x"), "--worker_type=x: eu-west-1 has no such machines"),
    ],
)
def test_changes_that_cannot_be_are_refused(
    moto: Moto, aws: AwsProvider, change: Change, said: str
) -> None:
    launched(aws, "one", nodes=1)
    moto.calls.clear()
    with pytest.raises(ProviderError, match=re.escape(said)):
        aws.set_price("one", change)
    with pytest.raises(ProviderError, match="size 0: must be 1"):
        aws.resize("one", 0)
    with pytest.raises(ProviderError, match="no cluster 'two'; there are: one"):
        aws.set_price("two", change if change.worker_type else Change())
    with pytest.raises(ProviderError, match="a cluster 'one' is there already"):
        aws.check(plan("one"))
    assert moto.writes == []


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("ExpiredToken", "the AWS credentials have expired: get new ones"),
        ("InvalidClientTokenId", "AWS does not take these credentials"),
        ("AccessDenied", "these credentials may not GetCallerIdentity"),
    ],
)
def test_credentials_that_are_no_good(moto: Moto, code: str, said: str) -> None:
    aws = Aws()
    error = ClientError({"Error": {"Code": code, "Message": ""}}, "GetCallerIdentity")
    aws.sts.meta.events.register("before-call", lambda **_: _raise(error))
    with pytest.raises(ProviderError, match=said):
        AwsProvider("ann", aws).check(plan("one"))


def _raise(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "no AWS credentials: say `aws"),
        ({"EVO_AWS_REGION": "eu-wst-1"}, "no region 'eu-wst-1' (EVO_AWS_REGION or [aws] region)."),
        ({"AWS_DEFAULT_REGION": ""}, "no AWS region: set EVO_AWS_REGION"),
        ({"AWS_PROFILE": "nobody"}, "The config profile (nobody) could not be found"),
        ({"EVO_OWNER": "Ann-Lee"}, "owner 'Ann-Lee' (EVO_OWNER): a small letter"),
        ({"EVO_AWS_SUBNETS": "subnet-0"}, "EVO_AWS_SUBNETS or [aws] subnets: "),
        ({"EVO_AWS_BUCKET": "evo-none"}, "no bucket evo-none: python cluster/manage.py create-b"),
        ({"MONGO_URL": "mongodb://a:b@localhost:27017/x"}, "MONGO_URL is on this machine"),
    ],
)
def test_settings_that_are_no_good_are_told_in_one_line(
    moto: Moto, env: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in env.items():
        if value:
            monkeypatch.setenv(name, value)
        else:
            monkeypatch.delenv(name)
    moto.calls.clear()
    done = launch("--config=sphere")
    assert done.exit_code == 1 and said in complaint(done.stderr)
    assert moto.writes == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["launch", "--size=0"], "Invalid value for '--nodes' / '--size': 0 is not in the range"),
        (["launch", "--size=many"], "'many' is not a valid integer range"),
        (["launch", "--price=cheap"], "Invalid value for '--price': 'cheap' is not a valid float"),
        (["launch", "--partition=x"], "--partition means nothing to aws: leave it out"),
        (["launch", "--provider=slurm", "--price=1"], "--price means nothing to slurm"),
        (["launch", "--config=sphere sigmaa=1"], "no config key 'sigmaa'. Did you mean 'sigma'?"),
        (["launch", "--config=lander '"], "No closing quotation"),
        (["size", "one", "--", "-2"], "-2 is not in the range"),
        (["kill", "one", "-y"], "no cluster 'one'; there are: none"),
        (["kill", "one"], "no cluster 'one'; there are: none"),
        (["upload", "here"], "'here' is neither a machine's id, i-…, nor its address"),
        (["upload", "10.9.9.9"], "no machine 10.9.9.9 is running in eu-west-1"),
        (["check", "--owner=zed"], "no role evo-zed-eu-west-1-head"),
    ],
)
def test_a_bad_command_is_one_line(moto: Moto, words: list[str], said: str) -> None:
    moto.calls.clear()
    script: Callable[..., Result] = launch if words[0] == "launch" else manage
    done = script(*(words[1:] if words[0] == "launch" else words))
    assert done.exit_code == 1 and said in complaint(done.stderr)
    assert moto.writes == []


def test_quotas_that_are_small_are_told(moto: Moto) -> None:
    """moto knows none, so the answers are played."""
    account = AwsAccount("ann", Aws())
    with Stubber(account.aws.service_quotas) as quotas:
        for code, cores in (("L-1216C47A", 5.0), ("L-34B43A08", 64.0)):
            asked = {"ServiceCode": "ec2", "QuotaCode": code}
            quotas.add_response("get_service_quota", {"Quota": {"Value": cores}}, asked)
        told = [line for line in account.remarks() if "quota" in line]
    assert told == ["quota: 5 cores on demand; ask for more (Service Quotas, L-1216C47A)"]
    told = [line for line in account.remarks() if "quota" in line]
    assert len(told) == 2 and all("is not known: AWS refuses GetServiceQuota" in t for t in told)


def test_a_dirty_tree_is_told_and_can_be_gone_on_with(moto: Moto, aws: AwsProvider) -> None:
    new = moto.folder / "code" / "new.py"
    new.write_text("new = 1\n")
    moto.calls.clear()
    try:
        done = launch("--config=sphere", "--dry-run")
        assert done.exit_code == 1
        assert "not in the bundle, which holds what is committed: new.py" in complaint(done.stderr)
        assert aws.check(plan("one", committed_only=True)).name == "one"
    finally:
        new.unlink()
    assert moto.writes == []


def test_a_set_up_for_something_else_is_told(
    moto: Moto, aws: AwsProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    AwsAccount("ann", Aws()).create_bucket("evo-second")
    with monkeypatch.context() as patch:
        patch.setenv("EVO_AWS_BUCKET", "evo-second")
        with pytest.raises(ProviderError, match="-head has other rights than it needs now"):
            aws.check(plan("one"))
    ec2 = moto.client("ec2")
    network = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    zone = f"{REGION}a"
    made = ec2.create_subnet(VpcId=network, CidrBlock="10.0.0.0/24", AvailabilityZone=zone)
    monkeypatch.setenv("EVO_AWS_SUBNETS", made["Subnet"]["SubnetId"])
    with pytest.raises(ProviderError, match="evo-ann is in another network than the subnets"):
        aws.check(plan("one"))


def test_a131_a_dry_run_shows_all_with_its_price_and_writes_nothing(moto: Moto) -> None:
    moto.calls.clear()
    words = ["--size=20", "--worker_type=c5.9xlarge", "--master_type=c5.large", "--price=0.72"]
    done = launch(*words, "--config=sphere lr=0.1", "--max-hours=1", "--dry-run")
    assert done.exit_code == 0, done.output
    # distributed by cshenton: 720 workers for an hour at 0.02 each
    assert "together $14.48 an hour, at most $14.48 in 1 hours" in done.output
    assert "20 × c5.9xlarge" in done.output and "CONFIG=(sphere lr=0.1)" in done.output
    assert moto.writes == []
    asked = launch("--config=sphere", input="n\n")
    assert asked.exit_code == 1 and "launch? [y/N]" in asked.output
    assert moto.writes == [] and re.search(r"^[a-z]+-[a-z]+: es with sphere", asked.output)
