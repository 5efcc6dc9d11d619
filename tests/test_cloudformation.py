"""The template of an experiment as a stack: linted, in step with the start scripts, and played."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from aws_moto import REGION, Moto
from booted import Cloud, Machine, code_of_ours
from commands import HAS_PROC, PATH, ROOT, run_here, setting, wait_until
from moto.cloudformation import parsing
from moto.secretsmanager.models import secretsmanager_backends

from cluster.addresses import PORT
from cluster.providers.aws.policies import AGENT
from cluster.providers.aws.scripts import SCRIPTS
from cluster.providers.aws.template import TEMPLATE, renewed

SPHERE = {"num_generations": 3, "noise_size": 50_000, "seed": 7, "final_episodes": 3}


class Loader(yaml.SafeLoader):
    """Reads the short forms of functions, too: !Ref x is {"Ref": "x"}."""


def _function(loader: Loader, name: str, node: yaml.Node) -> dict[str, Any]:
    if isinstance(node, yaml.ScalarNode):
        return {name: loader.construct_scalar(node)}
    if isinstance(node, yaml.SequenceNode):
        return {name: loader.construct_sequence(node, deep=True)}
    raise AssertionError(node)


Loader.add_multi_constructor("!", _function)
FORM = yaml.load(TEMPLATE.read_text(), Loader)
RESOURCES: dict[str, dict[str, Any]] = FORM["Resources"]
PARAMETERS: dict[str, dict[str, Any]] = FORM["Parameters"]


def of_type(kind: str) -> dict[str, dict[str, Any]]:
    return {k: v["Properties"] for k, v in RESOURCES.items() if v["Type"] == f"AWS::{kind}"}


# --- as text


@pytest.mark.slow
def test_a129_the_template_lints() -> None:
    config = pytest.importorskip("cfnlint.config").ManualArgs(
        templates=[str(TEMPLATE)], regions=[REGION]
    )
    from cfnlint.api import lint_by_config

    assert [str(each) for each in lint_by_config(config)] == []


def test_a129_its_parameters_are_those_of_cshentons_and_have_defaults() -> None:
    assert {"Vpc", "Subnets", "Environment", "Experiment", "Config", "Workers", "SpotPrice"} <= set(
        PARAMETERS
    )
    open_ = {name for name, each in PARAMETERS.items() if "Default" not in each}
    assert open_ == {"Vpc", "Subnets", "Bucket", "Code", "CodeSha256"}
    scripts = {path.parent.name for path in ROOT.glob("*/experiment.py")} - {"store"}
    assert set(PARAMETERS["Experiment"]["AllowedValues"]) == scripts
    for name in ("Config", "Environment", "SpotPrice", "Code", "MongoUrlParameter"):
        assert not re.fullmatch(PARAMETERS[name]["AllowedPattern"], "x'; reboot '")
    assert re.fullmatch(PARAMETERS["Config"]["AllowedPattern"], "lander hidden_sizes=[32,32]")


def test_a129_nothing_is_open_to_the_world() -> None:
    (group,) = of_type("EC2::SecurityGroup").values()
    assert "SecurityGroupIngress" not in group
    (rule,) = of_type("EC2::SecurityGroupIngress").values()
    assert rule["SourceSecurityGroupId"] == rule["GroupId"] == {"GetAtt": "Machines.GroupId"}
    assert rule["FromPort"] == rule["ToPort"] == PORT
    assert "CidrIp" not in TEMPLATE.read_text() and "0.0.0.0" not in TEMPLATE.read_text()


def test_a129_machines_have_few_rights_and_no_global_names() -> None:
    """W-105: roles with names of their own would let no second stack be made."""
    for name, role in of_type("IAM::Role").items():
        assert "RoleName" not in role
        (policy,) = role["Policies"]
        wide = [
            each for each in policy["PolicyDocument"]["Statement"] if each.get("Resource") == "*"
        ]
        (agent,) = wide
        assert agent["Action"] == list(AGENT), name
        said = json.dumps(policy)
        assert not re.search(r"Terminate|PassRole|RunInstances|[a-z]:\*\"", said), name


def test_a129_logs_are_kept_for_a_week() -> None:
    assert [each["RetentionInDays"] for each in of_type("Logs::LogGroup").values()] == [7, 7]


def test_its_start_scripts_are_those_of_a_launch() -> None:
    """Else: python cluster/providers/aws/template.py."""
    assert renewed(TEMPLATE.read_text()) == TEMPLATE.read_text()


# --- played


class Secret:
    """What moto lacks: a secret that a stack makes."""

    def __init__(self, arn: str) -> None:
        self.arn = arn

    @staticmethod
    def cloudformation_name_type() -> str:
        return ""

    @staticmethod
    def is_created() -> bool:
        return True

    @property
    def physical_resource_id(self) -> str:
        return self.arn

    @classmethod
    def create_from_cloudformation_json(
        cls,
        resource_name: str,
        cloudformation_json: Any,
        account_id: str,
        region_name: str,
        **_: Any,
    ) -> "Secret":
        wanted = cloudformation_json["Properties"]["GenerateSecretString"]
        backend = secretsmanager_backends[account_id][region_name]
        value = "x" * int(wanted["PasswordLength"])
        made = backend.create_secret(
            resource_name, value, None, None, [], None, None, [], force_overwrite=False
        )
        return cls(json.loads(made)["ARN"])

    def delete(self, account_id: str, region_name: str) -> None:
        backend = secretsmanager_backends[account_id][region_name]
        backend.delete_secret(self.arn, None, force_delete_without_recovery=True)


class Stack:
    """The template at moto's."""

    def __init__(self, moto: Moto) -> None:
        self.moto, self.formation = moto, moto.client("cloudformation")
        subnets = moto.client("ec2").describe_subnets()["Subnets"]
        self.asked = {
            "Vpc": subnets[0]["VpcId"],
            "Subnets": ",".join(each["SubnetId"] for each in subnets),
            "Bucket": "bucket",
            "Code": "code.tar.gz",
            "CodeSha256": code_of_ours().sha256,
        }

    def create(self, name: str, **more: str) -> None:
        self.formation.create_stack(StackName=name, **self._described(more))

    def update(self, name: str, **more: str) -> None:
        self.formation.update_stack(StackName=name, **self._described(more))

    def _described(self, more: dict[str, str]) -> dict[str, Any]:
        values = {**self.asked, **more}
        pairs = [{"ParameterKey": k, "ParameterValue": v} for k, v in values.items()]
        text = TEMPLATE.read_text()
        return {"TemplateBody": text, "Parameters": pairs, "Capabilities": ["CAPABILITY_IAM"]}

    def machines(self, name: str, role: str) -> list[dict[str, Any]]:
        return self.moto.machines_of(stack=name, role=role)

    def script(self, name: str, role: str) -> str:
        """What machines of a role are given to run."""
        return self.moto.start_script(self.machines(name, role)[0]["InstanceId"])


@pytest.fixture
def stack(moto: Moto, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    monkeypatch.setitem(parsing.get_model_map(), "AWS::SecretsManager::Secret", Secret)
    made = Stack(moto)
    yield made
    for each in made.formation.describe_stacks()["Stacks"]:
        made.formation.delete_stack(StackName=each["StackName"])


def left(moto: Moto) -> dict[str, list[str]]:
    """All that costs money or holds rights, whoever has made it."""
    roles = moto.client("iam").list_roles()["Roles"]
    secrets = moto.client("secretsmanager").list_secrets()["SecretList"]
    logs = moto.client("logs").describe_log_groups()["logGroups"]
    groups = moto.client("ec2").describe_security_groups()["SecurityGroups"]
    return {
        **moto.everything(),
        "roles": [each["RoleName"] for each in roles],
        "secrets": [each["Name"] for each in secrets],
        "logs": [each["logGroupName"] for each in logs],
        "security groups": [each["GroupName"] for each in groups],
    }


def test_a129_a_stack_is_created_updated_and_deleted(moto: Moto, stack: Stack) -> None:
    """With another one present, of which nothing changes."""
    before = left(moto)
    stack.create("one", Workers="2", SpotPrice="0.12")
    stack.create("two", Workers="1", WorkerType="c5.large")
    assert [len(stack.machines("one", role)) for role in ("head", "worker")] == [1, 2]
    scaling = moto.client("autoscaling")

    def group(name: str) -> dict[str, Any]:
        groups = scaling.describe_auto_scaling_groups(AutoScalingGroupNames=[f"{name}-workers"])
        return dict(groups["AutoScalingGroups"][0])

    distribution = group("one")["MixedInstancesPolicy"]["InstancesDistribution"]
    assert distribution["SpotMaxPrice"] == "0.12"
    assert str(distribution["OnDemandPercentageAboveBaseCapacity"]) == "0"
    distribution = group("two")["MixedInstancesPolicy"]["InstancesDistribution"]
    assert "SpotMaxPrice" not in distribution
    assert str(distribution["OnDemandPercentageAboveBaseCapacity"]) == "100"
    logs = moto.client("logs").describe_log_groups(logGroupNamePrefix="/evo/one/")["logGroups"]
    assert {each["logGroupName"]: each["retentionInDays"] for each in logs} == {
        "/evo/one/head": 7,
        "/evo/one/workers": 7,
    }
    (head,) = stack.machines("one", "head")
    other = stack.machines("two", "worker")
    stack.update("one", Workers="4", SpotPrice="0.12")
    assert len(stack.machines("one", "worker")) == 4
    assert [each["InstanceId"] for each in stack.machines("one", "head")] == [head["InstanceId"]]
    stack.formation.delete_stack(StackName="one")
    assert stack.machines("one", "head") == stack.machines("one", "worker") == []
    assert stack.machines("two", "worker") == other
    stack.formation.delete_stack(StackName="two")
    assert left(moto) == before


def test_its_scripts_pass_shellcheck_and_hold_no_secret(stack: Stack, tmp_path: Path) -> None:
    stack.create("one", Config="lander hidden_sizes=[32,32]", MongoUrlParameter="/ann/mongo")
    (head,) = stack.machines("one", "head")
    for role in ("head", "worker"):
        text = stack.script("one", role)
        assert len(text.encode()) < SCRIPTS.most_bytes and "xxxxxxxx" not in text
        assert "${AWS" not in text and "0.0.0.0" not in text
        assert re.search(r"^PASSWORD='arn:aws:secretsmanager:.*'$", text, re.MULTILINE)
        if (shellcheck := shutil.which("shellcheck", path=PATH)) is not None:
            (tmp_path / role).write_text(text)
            done = subprocess.run([shellcheck, tmp_path / role], capture_output=True, check=False)
            assert done.returncode == 0, done.stdout.decode()
    assert f"HEAD='{head['PrivateIpAddress']}'\n" in stack.script("one", "worker")
    values = stack.script("one", "head").partition("WORKERS=${")[0]
    values = values.replace("/opt/evo", str(tmp_path))
    shown = subprocess.run(
        ["/bin/bash", "-c", f"{values}\nprintf '%s\\n' \"${{CONFIG[@]}}\""],
        capture_output=True,
        check=True,
        text=True,
    )
    assert shown.stdout.splitlines() == ["lander", "hidden_sizes=[32,32]"]
    assert "/ann/mongo" in values and "/ann/mongo" not in stack.script("one", "worker")


@pytest.mark.slow
@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no git checkout")
@pytest.mark.skipif(not HAS_PROC, reason="no /proc")
def test_a129_a_stack_runs_the_suite_and_ends_its_machines(stack: Stack) -> None:
    with Cloud() as cloud:
        (cloud.bucket / "code.tar.gz").write_bytes(code_of_ours().data)
        config = " ".join(setting(**SPHERE))
        stack.create("one", Config=f"sphere {config}", Workers="1", WorkersPerMachine="2")
        head = Machine(cloud, "head", stack.script("one", "head"))
        script = re.sub(r"(?m)^HEAD='.*'$", "HEAD=127.0.0.1", stack.script("one", "worker"))
        worker = Machine(cloud, "worker", script)
        wait_until(lambda: head.text("ended"), lambda: head.log + worker.log, 100)
        expected = run_here("sphere", evaluator="local", **SPHERE)
        results = cloud.bucket / "runs" / "stacks" / "one"
        assert expected.info["theta sha256"] in (results / "head.txt").read_text()
        assert (results / "state.txt").read_text() == "done\n"
        assert (results / "runs" / "store.sqlite").exists()
        calls = head.text("calls")
        none = "--min-size 0 --max-size 0 --desired-capacity 0"
        assert f"update-auto-scaling-group --auto-scaling-group-name one-workers {none}" in calls
        assert "put-scheduled-update-group-action --region eu-west-1" in calls
        assert '"message": "' in calls and expected.info["theta sha256"] in calls
        assert "2 workers for 127.0.0.1" in worker.log and worker.text("ended") == ""
