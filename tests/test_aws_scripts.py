"""The scripts that machines on AWS start with, as text, and the rights they have there."""

import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from aws_moto import plan
from commands import PATH

from cluster.providers import CloudPlan, ProviderError
from cluster.providers.aws.policies import role_policy
from cluster.providers.aws.scripts import SCRIPTS, Start
from cluster.providers.aws.session import Mine

ODD = ("sphere", "it's", '"$HOME"', "`id`", "a\n# b", "\\", "ü", "", "; rm -rf *", "$(id)")
MINE = Mine("ann", "eu-west-1")


def start() -> Start:
    names = MINE.cluster("one")
    return Start(
        names,
        "eu-west-1",
        "bucket",
        f"{names.code}x.tar.gz",
        "0" * 64,
        MINE.password,
        names.store_url,
        int(time.time()) + 3600,
    )


def scripts(asked: CloudPlan) -> list[str]:
    return [start().head(asked), start().worker(asked, "10.0.0.5")]


# --- as text


def test_a124_start_scripts_pass_shellcheck(tmp_path: Path) -> None:
    if (shellcheck := shutil.which("shellcheck", path=PATH)) is None:
        pytest.skip("no shellcheck here: pip install -r requirements-dev.txt")
    for number, text in enumerate(scripts(plan("one"))):
        script = tmp_path / f"{number}.sh"
        script.write_text(text)
        done = subprocess.run([shellcheck, script], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


def test_a124_scripts_bind_to_the_private_address_and_hold_no_secret() -> None:
    head, worker = scripts(plan("one"))
    assert 'run-server --host "$address"' in head and "meta-data/local-ipv4" in head
    for text in (head, worker):
        assert "0.0.0.0" not in text
        assert "PASSWORD=/evo/ann/redis-password\n" in text
        assert 'parameter "$PASSWORD" >"$EVO_REDIS_PASSWORD_FILE"' in text
        assert "X-aws-ec2-metadata-token" in text
        assert len(text.encode()) < SCRIPTS.most_bytes / 2
    assert "mongo-url" in head and "mongo-url" not in worker
    with pytest.raises(ProviderError, match="shorten --config"):
        start().head(plan("one", config=("x" * SCRIPTS.most_bytes,)))


def test_whatever_a_config_says_the_shell_takes_it_for_words() -> None:
    """W-46."""
    head = start().head(plan("one", config=ODD))
    values = head[: head.index("wrap_up() {")]
    shown = subprocess.run(
        ["/bin/bash", "-c", f"{values}\nprintf '%s\\0' \"${{CONFIG[@]}}\""],
        capture_output=True,
        check=True,
    )
    assert tuple(shown.stdout.decode().split("\0")[:-1]) == ODD


# --- rights


def may(role: str, action: str, resource: str) -> bool:
    policy = role_policy(role, MINE, partition="aws", account="123456789012", bucket="bucket")

    def covers(pattern: str, text: str) -> bool:
        return re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), text) is not None

    return any(
        action in each["Action"] and covers(each["Resource"], resource)
        for each in policy["Statement"]
    )


PLACE = "eu-west-1:123456789012"
PARAMETER = f"arn:aws:ssm:{PLACE}:parameter/evo"
GROUP = f"arn:aws:autoscaling:{PLACE}:autoScalingGroup:1:autoScalingGroupName/evo"


@pytest.mark.parametrize(
    ("action", "resource", "roles"),
    [
        ("s3:GetObject", "arn:aws:s3:::bucket/code/ann/one/x.tar.gz", {"head", "worker"}),
        ("s3:GetObject", "arn:aws:s3:::bucket/code/bob/one/x.tar.gz", set()),
        ("s3:GetObject", "arn:aws:s3:::other/code/ann/one/x.tar.gz", set()),
        ("s3:GetObject", "arn:aws:s3:::bucket/runs/ann/one/head.txt", set()),
        ("s3:PutObject", "arn:aws:s3:::bucket/runs/ann/one/head.txt", {"head", "worker"}),
        ("s3:PutObject", "arn:aws:s3:::bucket/code/ann/one/x.tar.gz", set()),
        ("s3:DeleteObject", "arn:aws:s3:::bucket/code/ann/one/x.tar.gz", {"head"}),
        ("ssm:GetParameter", f"{PARAMETER}/ann/redis-password", {"head", "worker"}),
        ("ssm:GetParameter", f"{PARAMETER}/bob/redis-password", set()),
        ("ssm:GetParameter", f"{PARAMETER}/ann/clusters/one/mongo-url", {"head"}),
        ("autoscaling:DeleteAutoScalingGroup", f"{GROUP}-ann-one", {"head"}),
        ("autoscaling:DeleteAutoScalingGroup", f"{GROUP}-annie-one", set()),
        ("ec2:TerminateInstances", f"arn:aws:ec2:{PLACE}:instance/i-1", set()),
        ("ec2:RunInstances", f"arn:aws:ec2:{PLACE}:instance/*", set()),
        ("iam:PassRole", "arn:aws:iam::123456789012:role/evo-ann-eu-west-1-head", set()),
        ("sts:AssumeRole", "arn:aws:iam::123456789012:role/other", set()),
    ],
)
def test_machines_may_do_what_they_must_and_no_more(
    action: str, resource: str, roles: set[str]
) -> None:
    assert {role for role in ("head", "worker") if may(role, action, resource)} == roles
