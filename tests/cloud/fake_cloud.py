"""A cloud on this machine: what moto says of machines is made true.

Each machine that moto lists is booted with its start script, rights, and security groups; each that
moto ends is switched off. What machines do by themselves, moto hears of.
"""

import datetime
import hashlib
import json
import logging
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from aws_moto import REGION, Moto, playing_aws
from booting import Booted
from commands import ROOT, wait_until
from metadata import Facts, metadata_service
from moto.autoscaling.models import AutoScalingBackend, autoscaling_backends
from moto.ec2.models import EC2Backend, ec2_backends
from moto.iam.models import iam_backends
from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from moto.sts.models import sts_backends
from network import AWS, METADATA, PORTS, Network, Rule
from rights import ACCOUNT, allowed, enforced
from werkzeug.serving import make_server

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.1
SESSION_SECONDS = 6 * 3600
AGENT = "ssm:UpdateInstanceInformation"  # the right without which a machine takes no commands
PLAIN_RUN = EC2Backend.run_instances
PLAIN_SCHEDULE = AutoScalingBackend.put_scheduled_update_group_action


class Cloud:
    """Machines that run, as moto has them."""

    def __init__(self, moto: Moto, network: Network, folder: Path) -> None:
        self.moto, self.network = moto, network
        self.machines: dict[str, Booted] = {}
        self.facts: dict[str, Facts] = {}  # by address
        self.failure: BaseException | None = None
        self._folder = folder
        wanted = subprocess.check_output(["git", "-C", ROOT, "show", "HEAD:requirements.txt"])
        self._installed = hashlib.sha256(wanted).hexdigest()
        self._ec2 = ec2_backends[ACCOUNT][REGION]
        self._scaling = autoscaling_backends[ACCOUNT][REGION]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    # --- for tests

    def machine(self, instance: str) -> Booted:
        """A machine, as soon as it runs."""
        return wait_until(lambda: self._check() or self.machines.get(instance), self, 60)

    @property
    def is_empty(self) -> bool:
        """True if there is no machine, neither one that runs nor one that is to."""
        self._check()
        return not self._running() and not self.machines

    def _check(self) -> None:
        """Tell the test if this has failed: it would wait in vain."""
        assert self.failure is None, self.failure

    def take_back(self, instance: str) -> None:
        """Tell a spot machine that it will be ended; the cloud does that two minutes later."""
        then = datetime.datetime.now(datetime.UTC) + datetime.timedelta(minutes=2)
        said = {"action": "terminate", "time": then.strftime("%FT%TZ")}
        values = self.facts[self.machines[instance].address].values
        values["spot/instance-action"] = json.dumps(said)

    def __repr__(self) -> str:
        """What all machines say, to be shown when a test fails."""
        texts = [f"{name}\n{each.log()}" for name, each in list(self.machines.items())]
        return "\n".join([*texts, repr(self.failure)])

    # --- making it so

    def start(self) -> None:
        self._thread.start()

    def _watch(self) -> None:
        while not self._stop.wait(LOOK_SECONDS):
            try:
                self._look()
            except Exception as error:
                log.exception("the cloud has failed")
                self.failure = error
                return

    def _look(self) -> None:
        self._keep_appointments()
        there = self._running()
        for name, machine in list(self.machines.items()):
            if machine.has_ended and name in there:
                self._has_ended(there.pop(name))
            if name not in there:
                self._switch_off(name)
        for name, instance in there.items():
            if name not in self.machines:
                self._boot(instance)
            if name not in self.moto.machines and self._may_take_commands(instance):
                self.moto.machines[name] = self.machines[name].run
        self.network.let_in(self._rules(there))

    def _running(self) -> dict[str, Any]:
        """The machines that moto has."""
        return {
            each.id: each
            for reservation in list(self._ec2.reservations.values())
            for each in list(reservation.instances)
            if each.state == "running"
        }

    def _keep_appointments(self) -> None:
        """Do what groups are scheduled for."""
        for key, action in list(self._scaling.scheduled_actions.items()):
            if datetime.datetime.fromisoformat(str(action.start_time)).timestamp() > time.time():
                continue
            del self._scaling.scheduled_actions[key]
            group = self._scaling.autoscaling_groups.get(action.auto_scaling_group_name)
            if group is not None:
                group.min_size, group.max_size = action.min_size, action.max_size
                group.set_desired_capacity(action.desired_capacity)

    def _has_ended(self, instance: Any) -> None:
        """It has shut itself down."""
        if instance.instance_initiated_shutdown_behavior == "terminate":
            self._ec2.terminate_instances([instance.id])
            self._scaling.notify_terminate_instances([instance.id])
        else:
            instance.stop()

    def _boot(self, instance: Any) -> None:
        address = instance.private_ip
        values = {
            "instance-id": instance.id,
            "local-ipv4": address,
            "placement/region": REGION,
            "placement/availability-zone": instance.availability_zone,
        }
        needs_token = instance.metadata_options.http_tokens == "required"
        self.facts[address] = Facts(values, needs_token, lambda: self._credentials(instance))
        script = instance.user_data.decode() if instance.user_data else ""
        folder = self._folder / instance.id
        wanted = {"address": address, "script": script, "installed": self._installed}
        self.machines[instance.id] = Booted(self.network, folder, instance.id, **wanted)

    def _may_take_commands(self, instance: Any) -> bool:
        """Its role may come after its start."""
        role = self._role(instance)
        return role is not None and allowed(_policies(role), AGENT, "*", {})

    def _switch_off(self, name: str) -> None:
        machine = self.machines.pop(name)
        self.moto.machines.pop(name, None)
        machine.end()
        self.facts.pop(machine.address, None)

    def _rules(self, there: dict[str, Any]) -> Iterator[Rule]:
        """What the security groups of all machines let in."""
        members: dict[str, list[str]] = {}
        for name, machine in self.machines.items():
            for group in there[name].security_groups:
                members.setdefault(group.id, []).append(machine.address)
        for name, machine in self.machines.items():
            for group in there[name].security_groups:
                for rule in group.ingress_rules:
                    ranges = [rule.ip_range["CidrIp"]] if rule.ip_range.get("CidrIp") else []
                    sources = [*members.get(rule.source_group.get("GroupId"), []), *ranges]
                    ports = None if rule.from_port is None else (rule.from_port, rule.to_port)
                    if sources:
                        yield Rule(machine.wire, tuple(sorted(sources)), rule.ip_protocol, ports)

    # --- rights

    def _role(self, instance: Any) -> Any:
        """The role of a machine's profile; None if it has none."""
        held = self._ec2.iam_instance_profile_associations.get(instance.id)
        roles = held.iam_instance_profile.roles if held else []
        return roles[0] if roles else None

    def _credentials(self, instance: Any) -> tuple[str, dict[str, Any]] | None:
        if (role := self._role(instance)) is None:
            return None
        made = sts_backends[ACCOUNT]["aws"].assume_role(
            REGION, instance.id, role.arn, "", SESSION_SECONDS, ""
        )
        now = datetime.datetime.now(datetime.UTC)
        return role.name, {
            "Code": "Success",
            "Type": "AWS-HMAC",
            "AccessKeyId": made.access_key_id,
            "SecretAccessKey": made.secret_access_key,
            "Token": made.session_token,
            "LastUpdated": now.strftime("%FT%TZ"),
            "Expiration": made.expiration.strftime("%FT%TZ"),
        }

    # --- the end

    def end(self) -> None:
        """Switch off all there is."""
        self._stop.set()
        self._thread.join()
        for name in list(self.machines):
            self._switch_off(name)
        self._check()


def _policies(role: Any) -> list[dict[str, Any]]:
    return [json.loads(text) for text in role.policies.values()]


def _mend(patch: pytest.MonkeyPatch) -> None:
    def run_instances(backend: Any, *words: Any, **asked: Any) -> Any:
        # of a template, it would leave out what is not asked for in a call
        template = asked.get("launch_template")
        data = backend._get_template_from_args(template).data if template else {}
        for key, theirs in {
            "metadata_options": "MetadataOptions",
            "instance_initiated_shutdown_behavior": "InstanceInitiatedShutdownBehavior",
        }.items():
            asked[key] = asked.get(key) or data.get(theirs)
        made = PLAIN_RUN(backend, *words, **asked)
        if name := data.get("IamInstanceProfile", {}).get("Name"):
            for each in made.instances:
                backend.associate_iam_instance_profile(each.id, iam_instance_profile_name=name)
        return made

    def schedule(backend: Any, name: str, *words: Any, **more: Any) -> Any:
        # it would forget those of other groups that are called the same
        made = PLAIN_SCHEDULE(backend, name, *words, **more)
        actions = backend.scheduled_actions
        actions[f"{name}/{made.scheduled_action_name}"] = actions.pop(made.scheduled_action_name)
        return made

    patch.setattr(EC2Backend, "run_instances", run_instances)
    patch.setattr(AutoScalingBackend, "put_scheduled_update_group_action", schedule)


@contextmanager
def _being_admin() -> Iterator[None]:
    """Have this process, and those it starts, be somebody who may do all."""
    iam, name = iam_backends[ACCOUNT]["aws"], "admin"
    iam.create_user("us-east-1", name)
    all_of_it = {"Effect": "Allow", "Action": "*", "Resource": "*"}
    policy = {"Version": "2012-10-17", "Statement": [all_of_it]}
    iam.put_user_policy(name, "all", json.dumps(policy))
    key = iam.create_access_key(name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", key.access_key_id)
        patch.setenv("AWS_SECRET_ACCESS_KEY", key.secret_access_key)
        yield


@contextmanager
def _serving(*servers: Any) -> Iterator[None]:
    threads = [threading.Thread(target=each.serve_forever, daemon=True) for each in servers]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()


@contextmanager
def booting_cloud(folder: Path) -> Iterator[Cloud]:
    """AWS with machines that run, for this process and those it starts; nothing of it is left."""
    with (
        playing_aws(folder, ROOT) as moto,
        pytest.MonkeyPatch.context() as patch,
        Network() as network,
        enforced(),
        _being_admin(),
    ):
        _mend(patch)
        cloud = Cloud(moto, network, folder / "machines")
        app = DomainDispatcherApplication(create_backend_app)
        api = network.do(
            lambda: make_server(AWS, PORTS[AWS], app, True, request_handler=MotoRequestHandler)
        )
        metadata = network.do(metadata_service, (METADATA, PORTS[METADATA]), cloud.facts)
        with _serving(api, metadata):
            cloud.start()
            try:
                yield cloud
            finally:
                cloud.end()
