"""AWS as moto plays it on 127.0.0.1, with its faults mended and what it only pretends made real."""

import base64
import json
import logging
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import moto.ec2.models.launch_templates as templates
import moto.s3.models as s3_models
import moto.ssm.models as ssm_models
import pytest
from botocore.loaders import create_loader
from click.testing import CliRunner, Result
from moto.moto_api._internal import moto_api_backend
from moto.server import ThreadedMotoServer
from moto.ssm.exceptions import SSMException

from cluster import bundle as bundles
from cluster import launch as launch_script
from cluster import manage as manage_script
from cluster.providers import CloudPlan
from cluster.providers.aws import AwsProvider
from cluster.providers.aws.session import Aws
from cluster.providers.aws.setup import AwsAccount

REGION = "eu-west-1"
BUCKET = f"evo-clusters-123456789012-{REGION}"
WRITES = (
    *("Create", "Put", "Run", "Update", "Delete", "Terminate", "Authorize", "Revoke", "Set"),
    *("Add", "Remove", "Send"),
)
MODELS = create_loader()
PLAIN_VERSION = templates.LaunchTemplate.create_version
PLAIN_SEND = ssm_models.SimpleSystemManagerBackend.send_command
PLAIN_PERMISSION = s3_models.FakeBucket.get_permission
MAX_OUTPUT = 24_000  # characters of a command's output that AWS hands on: the first ones
# What runs commands on a machine, or the environment that they find there, played by this one.
There = Callable[[str], subprocess.CompletedProcess[str]] | dict[str, str]


class Moto:
    """A server, and this process as a user of it."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url, self.folder = url, folder
        self.calls: list[str] = []  # operations, in order
        self.machines: dict[str, There] = {}  # those that take commands
        self._fault: tuple[int, str, BaseException] | None = None
        self._clients: dict[tuple[str, str], Any] = {}

    def client(self, service: str, region: str = REGION) -> Any:
        """A client of the test's own, whose calls are not noted."""
        key = service, region
        if key not in self._clients:
            self._clients[key] = boto3.Session().client(service, region_name=region)
        return self._clients[key]

    @property
    def writes(self) -> list[str]:
        """The operations that changed something."""
        return [name for name in self.calls if name.startswith(WRITES)]

    @contextmanager
    def fault(self, number: int, when: str, error: BaseException) -> Iterator[None]:
        """Raise an error at a write, counted from 0 and from now.

        Args:
            when: "before" it is made, or "after" it.
        """
        self.calls.clear()
        self._fault = number, when, error
        try:
            yield
        finally:
            self._fault = None

    def note(self, operation: str, when: str) -> None:
        """Called before and after each call of the launcher's."""
        if when == "before":
            self.calls.append(operation)
        if self._fault and operation.startswith(WRITES):
            number, moment, error = self._fault
            if (len(self.writes) - 1, when) == (number, moment):
                self._fault = None
                raise error

    def start_script(self, instance: str) -> str:
        """What a machine was given to run."""
        answer = self.client("ec2").describe_instance_attribute(
            InstanceId=instance, Attribute="userData"
        )
        return base64.b64decode(answer["UserData"]["Value"]).decode()

    def machines_of(self, **tags: str) -> list[dict[str, Any]]:
        """The machines that run and have these tags of ours."""
        filters = [{"Name": f"tag:evo:{key}", "Values": [value]} for key, value in tags.items()]
        states = {"Name": "instance-state-name", "Values": ["pending", "running"]}
        answer = self.client("ec2").describe_instances(Filters=[*filters, states])
        return [each for found in answer["Reservations"] for each in found["Instances"]]

    def group(self, name: str) -> dict[str, Any]:
        """The group of a cluster's workers."""
        answer = self.client("autoscaling").describe_auto_scaling_groups(
            AutoScalingGroupNames=[f"evo-ann-{name}"]
        )
        (found,) = answer["AutoScalingGroups"]
        return dict(found)

    def template(self, name: str, version: str = "$Latest") -> dict[str, Any]:
        """How machines of workers of a cluster are made."""
        answer = self.client("ec2").describe_launch_template_versions(
            LaunchTemplateName=f"evo-ann-{name}", Versions=[version]
        )
        (found,) = answer["LaunchTemplateVersions"]
        return dict(found["LaunchTemplateData"])

    def secrets(self) -> list[str]:
        """The parameters that are secret; AWS has so many others that the first page is theirs."""
        pages = self.client("ssm").get_paginator("describe_parameters")
        wanted = [{"Key": "Type", "Values": ["SecureString"]}]
        found = [page["Parameters"] for page in pages.paginate(ParameterFilters=wanted)]
        return [each["Name"] for page in found for each in page]

    def everything(self) -> dict[str, list[str]]:
        """All that could cost money or hold a secret, whatever its tags and names."""
        ec2, scaling = self.client("ec2"), self.client("autoscaling")
        groups = scaling.describe_auto_scaling_groups()["AutoScalingGroups"]
        templates = ec2.describe_launch_templates()["LaunchTemplates"]
        contents = self.client("s3").list_objects_v2(Bucket=BUCKET).get("Contents", [])
        return {
            "machines": [each["InstanceId"] for each in self.machines_of()],
            "groups": [each["AutoScalingGroupName"] for each in groups],
            "templates": [each["LaunchTemplateName"] for each in templates],
            "parameters": [name for name in self.secrets() if "clusters" in name],
            "bundles": [each["Key"] for each in contents if each["Key"].startswith("code/")],
        }


NOTHING: dict[str, list[str]] = {
    kind: [] for kind in ("machines", "groups", "templates", "parameters", "bundles")
}


def plan(name: str = "", **more: Any) -> CloudPlan:
    """A plan that can be launched."""
    values = {"config": ("sphere",), "nodes": 2, "hours": 3.0, "cpus_per_node": 2}
    return CloudPlan(name, "es", **{**values, **more})


def launched(aws: AwsProvider, name: str, **more: Any) -> None:
    aws.create(aws.check(plan(name, **more)))


def manage(*words: str) -> Result:
    """Run cluster/manage.py in this process."""
    return CliRunner().invoke(manage_script.cli, words)


def launch(*words: str, **more: Any) -> Result:
    """Run cluster/launch.py launch in this process."""
    return CliRunner().invoke(launch_script.cli, ["launch", *words], **more)


def mend(patch: pytest.MonkeyPatch, machines: dict[str, There], folder: Path) -> None:
    """Mend moto where it stands in the way, and let commands that are sent really run."""

    def user_data(version: Any) -> Any:
        # the second version of a template has another kind of text, which its groups do not take
        text = version.data.get("UserData")
        made = templates.Base64EncodedString
        return text if text is None or isinstance(text, made) else made(text)

    def create_version(template: Any, data: dict[str, Any], description: str) -> Any:
        # it would take nothing over from the version that a new one is to be made of
        before = template.versions[-1].data if template.versions else {}
        return PLAIN_VERSION(template, {**before, **data}, description)

    def get_permission(bucket: Any, action: str, resource: str) -> Any:
        # it speaks plain HTTP, and would take a condition on TLS for none at all
        kept, said = bucket.policy, json.loads(bucket.policy or '{"Statement": []}')
        said["Statement"] = [each for each in said["Statement"] if "Condition" not in each]
        bucket.policy = json.dumps(said).encode() if said["Statement"] else None
        try:
            return PLAIN_PERMISSION(bucket, action, resource)
        finally:
            bucket.policy = kept

    def send_command(backend: Any, **asked: Any) -> Any:
        wanted = set(asked["instance_ids"])
        if unknown := wanted - set(machines):
            raise SSMException("InvalidInstanceId", f"these take no commands: {unknown}")
        made = PLAIN_SEND(backend, **asked)  # without targets, it sends it to all there are
        for each in made.invocations:
            if each["InstanceId"] in wanted:
                there = machines[each["InstanceId"]]
                _run_there(each, "\n".join(asked["parameters"]["commands"]), there, folder)
        return made

    patch.setattr(templates.LaunchTemplateVersion, "user_data", property(user_data))
    patch.setattr(templates.LaunchTemplate, "create_version", create_version)
    patch.setattr(s3_models.FakeBucket, "get_permission", get_permission)
    patch.setattr(ssm_models.SimpleSystemManagerBackend, "send_command", send_command)


def _run_there(invocation: dict[str, Any], text: str, there: There, folder: Path) -> None:
    done = _play(text, there, folder) if isinstance(there, dict) else there(text)
    invocation.update(
        Status="Failed" if done.returncode else "Success",
        ResponseCode=done.returncode,
        StandardOutputContent=done.stdout[:MAX_OUTPUT],
        StandardErrorContent=done.stderr[:MAX_OUTPUT],
    )


def _play(text: str, env: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    """A machine's /opt/evo is a folder here."""
    return subprocess.run(
        ["/bin/bash", "-c", text.replace("/opt/evo", env["EVO"])],
        env={**os.environ, **env},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def watch(patch: pytest.MonkeyPatch, moto: Moto) -> None:
    """Note every call of `Aws`, before it is made."""
    plain: Callable[[Aws, str], Any] = Aws.__getattr__

    def noted(aws: Aws, service: str) -> Any:
        known = service in aws.__dict__.get("_clients", {})
        client = plain(aws, service)
        if not known:
            for when in ("before", "after"):
                client.meta.events.register(
                    f"{when}-call", lambda model, when=when, **_: moto.note(model.name, when)
                )
        return client

    patch.setattr(Aws, "__getattr__", noted)


@contextmanager
def playing_aws(folder: Path, code: Path | None = None) -> Iterator[Moto]:
    """Play AWS, for this process and those it starts, with an account that was set up.

    Args:
        code: what launches put into their bundle; None: something small.
    """
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    url = "http://{}:{}".format(*server.get_host_and_port())
    moto = Moto(url, folder)
    empty = folder / "empty"
    empty.touch()
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("AWS_", "EVO_AWS"))]:
            patch.delenv(name)
        for name, value in {
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_CONFIG_FILE": str(empty),
            "AWS_SHARED_CREDENTIALS_FILE": str(empty),
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_DEFAULT_REGION": REGION,
            "EVO_OWNER": "ann",
        }.items():
            patch.setenv(name, value)
        # reading these takes longer than all that is asked
        patch.setattr("botocore.session.create_loader", lambda *_: MODELS)
        patch.setattr(bundles, "ROOT", code or _repository(folder / "code"))
        mend(patch, moto.machines, folder)
        watch(patch, moto)
        try:
            account = AwsAccount("ann", Aws())
            account.create_bucket(None)
            account.setup()
            yield moto
        finally:
            server.stop()
            moto_api_backend.reset()  # what a test has left is no other file's affair


def _repository(folder: Path) -> Path:
    """Something to put into a bundle."""
    folder.mkdir()
    (folder / "hello.py").write_text("hello = 1\n")
    commit(folder)
    return folder


def commit(folder: Path) -> None:
    """Commit all that is in a folder, as its first commit."""
    me = ["-c", "user.name=ann", "-c", "user.email=ann@example.org"]
    for words in (["init", "-q"], ["add", "."], [*me, "commit", "-qm", "Begin"]):
        subprocess.run(["git", "-C", str(folder), *words], check=True)
