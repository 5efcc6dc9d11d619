"""The fake cloud itself: it refuses what AWS would refuse. Needs neither root nor machines."""

import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from metadata import TOKEN, Facts, metadata_service
from network import Rule
from rights import allowed

PUT = {"Effect": "Allow", "Action": ["s3:PutObject", "s3:Get*"], "Resource": "arn:aws:s3:::a/b/*"}
OWN = {
    "Effect": "Allow",
    "Action": "ec2:DeleteLaunchTemplate",
    "Resource": "*",
    "Condition": {"StringEquals": {"aws:ResourceTag/evo:owner": "ann"}},
}


@pytest.mark.parametrize(
    ("action", "resource", "tags", "expected"),
    [
        ("s3:PutObject", "arn:aws:s3:::a/b/c/d", {}, True),
        ("s3:GetObject", "arn:aws:s3:::a/b/c", {}, True),
        ("s3:DeleteObject", "arn:aws:s3:::a/b/c", {}, False),
        ("s3:PutObject", "arn:aws:s3:::a/c", {}, False),
        ("s3:PutObject", "arn:aws:s3:::a/b/secret", {}, False),
        ("ec2:DeleteLaunchTemplate", "lt-1", {"evo:owner": "ann"}, True),
        ("ec2:DeleteLaunchTemplate", "lt-1", {"evo:owner": "bob"}, False),
        ("ec2:DeleteLaunchTemplate", "lt-1", {}, False),
    ],
)
def test_rights_are_those_of_the_policies(
    action: str, resource: str, tags: dict[str, str], expected: bool
) -> None:
    forbidden = {"Effect": "Deny", "Action": "s3:*", "Resource": "*/secret"}
    policies: list[dict[str, Any]] = [{"Statement": [PUT, OWN]}, {"Statement": forbidden}]
    assert allowed(policies, action, resource, tags) == expected
    assert not allowed([], action, resource, tags)


def test_a_condition_that_is_not_understood_is_no_leave() -> None:
    strange = {**PUT, "Condition": {"Bool": {"aws:SecureTransport": "true"}}}
    with pytest.raises(NotImplementedError, match="condition Bool on aws:SecureTransport"):
        allowed([{"Statement": [strange]}], "s3:PutObject", "arn:aws:s3:::a/b/c", {})


@pytest.fixture
def facts() -> Iterator[dict[str, Facts]]:
    """The facts of a machine at this one's address; one of them says where to ask."""
    known: dict[str, Facts] = {}
    server = metadata_service(("127.0.0.1", 0), known)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    where = {"where": f"http://127.0.0.1:{server.server_port}/latest/", "instance-id": "i-1"}
    known["127.0.0.1"] = Facts(where, True, lambda: ("role", {"AccessKeyId": "a"}))
    yield known
    server.shutdown()
    server.server_close()


def ask(facts: Facts, path: str, method: str = "GET", **headers: str) -> tuple[int, str]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(f"{facts.values['where']}{path}", headers=named, method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_metadata_need_a_token_where_it_is_required(facts: dict[str, Facts]) -> None:
    me, path = facts["127.0.0.1"], "meta-data/instance-id"
    header = TOKEN.replace("-", "_")
    assert ask(me, path) == (401, "")
    assert ask(me, path, **{header: "guessed"})[0] == 401
    assert ask(me, "api/token", "PUT")[0] == 400
    seconds = {f"{header}_ttl_seconds": "60"}
    assert ask(me, "api/token", "PUT", **seconds, X_Forwarded_For="10.0.0.1")[0] == 403
    status, token = ask(me, "api/token", "PUT", **seconds)
    assert status == 200 and ask(me, path, **{header: token}) == (200, "i-1")
    role = "meta-data/iam/security-credentials/"
    assert ask(me, role, **{header: token}) == (200, "role")
    assert ask(me, f"{role}role", **{header: token}) == (200, '{"AccessKeyId": "a"}')
    assert ask(me, f"{role}other", **{header: token})[0] == 404
    assert ask(me, "meta-data/spot/instance-action", **{header: token})[0] == 404
    me.needs_token = False
    assert ask(me, path) == (200, "i-1")
    del facts["127.0.0.1"]
    assert ask(me, path)[0] == 404


def test_a_rule_names_wire_sources_and_ports() -> None:
    assert str(Rule("v1", ("10.0.0.1", "10.0.0.2"), "tcp", (6379, 6379))) == (
        'oifname "v1" ip saddr { 10.0.0.1, 10.0.0.2 } tcp dport 6379-6379 accept'
    )
    assert str(Rule("v1", ("10.0.0.0/8",), "-1", None)) == (
        'oifname "v1" ip saddr { 10.0.0.0/8 } accept'
    )
