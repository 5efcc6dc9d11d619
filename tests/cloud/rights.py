"""Who may do what on the fake AWS: policies are held against what a call is about.

moto checks who calls and that the call is signed, but knows of few services what a call is about,
and takes no account of conditions.
"""

import fnmatch
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from moto.autoscaling.models import autoscaling_backends
from moto.core.authorization import enable_iam_authentication
from moto.ec2.models import ec2_backends
from moto.iam.access_control import IAMPolicy, IAMRequestBase

ACCOUNT = "123456789012"
Tags = dict[str, str]


@contextmanager
def enforced() -> Iterator[None]:
    """Refuse calls that nobody has allowed."""

    def check(request: Any, resource: str) -> None:
        if request._action == "sts:GetCallerIdentity":
            return
        about, tags = _about(request, resource)
        policies = [IAMPolicy(each)._policy_json for each in request._access_key.collect_policies()]
        if not allowed(policies, request._action, about, tags):
            request._raise_access_denied()

    with pytest.MonkeyPatch.context() as patch, enable_iam_authentication():
        patch.setattr(IAMRequestBase, "check_action_permitted", check)
        yield


def allowed(policies: list[dict[str, Any]], action: str, resource: str, tags: Tags) -> bool:
    """True if a statement allows it and none forbids it.

    Args:
        resource: its name, as policies have it; "*": the call is about nothing in particular.
        tags: of the resource.
    """
    effects = {
        statement["Effect"]
        for policy in policies
        for statement in _listed(policy["Statement"])
        if _covers(statement["Action"], action)
        and _covers(statement["Resource"], resource)
        and _holds(statement.get("Condition", {}), tags)
    }
    return effects == {"Allow"}


def _listed(what: Any) -> list[Any]:
    return what if isinstance(what, list) else [what]


def _covers(patterns: Any, text: str) -> bool:
    return any(fnmatch.fnmatchcase(text, pattern) for pattern in _listed(patterns))


def _holds(conditions: dict[str, dict[str, Any]], tags: Tags) -> bool:
    for kind, wanted in conditions.items():
        for key, values in wanted.items():
            where, _, tag = key.partition("/")
            if (kind, where) != ("StringEquals", "aws:ResourceTag"):
                raise NotImplementedError(f"condition {kind} on {key}")
            if tags.get(tag) not in _listed(values):
                return False
    return True


# --- what a call is about


def _about(request: Any, resource: str) -> tuple[str, Tags]:
    """The name and the tags of what a call is about."""
    service, region = request._service, request._region
    place = f"arn:aws:{service}:{region}:{ACCOUNT}"
    if service == "ssm":
        asked = json.loads(request._body or b"{}")
        return (f"{place}:parameter{asked['Name']}", {}) if "Name" in asked else (resource, {})
    asked = {key: values[0] for key, values in request._data.items() if values}
    if service == "ec2":
        return _about_machines(place, asked, ec2_backends[ACCOUNT][region], resource)
    if service == "autoscaling" and "AutoScalingGroupName" in asked:
        groups = autoscaling_backends[ACCOUNT][region].autoscaling_groups
        found = groups.get(asked["AutoScalingGroupName"])
        return (str(found.arn), {}) if found else (resource, {})
    return resource, {}


def _about_machines(place: str, asked: dict[str, str], ec2: Any, resource: str) -> tuple[str, Tags]:
    for each in ec2.launch_templates.values():
        if each.id == asked.get("LaunchTemplateId") or each.name == asked.get("LaunchTemplateName"):
            tags = {tag["key"]: tag["value"] for tag in each.get_tags()}
            return f"{place}:launch-template/{each.id}", tags
    if "InstanceId.1" in asked:
        return f"{place}:instance/{asked['InstanceId.1']}", {}
    return resource, {}
