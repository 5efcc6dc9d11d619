"""IBM's VPC API and its tokens, played on 127.0.0.1 in the shapes of its OpenAPI description.

It refuses what the real one refuses: no token, a wrong version, unknown things, names that are
taken or malformed, machines that are not stopped, a security group in use.
"""

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jwt

KEY = "a-key"
TOKEN = jwt.encode({"iat": int(time.time()), "exp": 4_000_000_000}, "x" * 32)  # its kind is read
NAME = re.compile(r"[a-z]|[a-z][-a-z0-9]*[a-z0-9]")
MAX_USER_DATA = 65_536
VPC = {"id": "r010-vpc", "name": "vpc"}
SUBNETS = {
    "subnet-1": {"public_gateway": {"id": "r010-gateway", "name": "gateway"}},
    "subnet-2": {},
}
IMAGES = {
    "ibm-ubuntu-22-04-5-minimal-amd64-4": "2026-09-01T00:00:00Z",
    "ibm-ubuntu-24-04-2-minimal-amd64-1": "2026-05-01T00:00:00Z",
    "ibm-ubuntu-24-04-3-minimal-amd64-2": "2026-08-01T00:00:00Z",
    "ibm-ubuntu-24-04-3-minimal-s390x-9": "2026-10-01T00:00:00Z",
}
PROFILES = {"cx2-2x4": (2, 4), "cx2-4x8": (4, 8), "cx2-8x16": (8, 16), "cx2-16x32": (16, 32)}


class RefusedError(Exception):
    """An answer of the API that is no good one."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


class IbmStub:
    """The state of one account in one region."""

    def __init__(self) -> None:
        self.instances: dict[str, dict[str, Any]] = {}
        self.user_data: dict[str, str] = {}
        self.groups: dict[str, dict[str, Any]] = {}
        self.calls: list[str] = []  # those that change something
        self.page = 2  # items on a page at most
        self.fault: Callable[[str], None] = lambda call: None  # may raise, before a call
        self._lock, self._number = threading.RLock(), 0

    def named(self, name: str) -> dict[str, Any]:
        """A machine by its name."""
        (found,) = [each for each in self.instances.values() if each["name"] == name]
        return found

    @property
    def names(self) -> list[str]:
        return sorted(each["name"] for each in self.instances.values())

    # --- the calls

    def answer(self, method: str, path: str, asked: dict[str, str], body: Any) -> Any:
        """The answer to a call; None is no content."""
        if asked.get("generation") != "2" or not re.fullmatch(r"\d{4}-\d\d-\d\d", asked["version"]):
            raise RefusedError(400, "invalid_version", "The version or generation is not valid")
        with self._lock:
            if method != "GET":
                self.fault(f"{method} {path}")
                self.calls.append(f"{method} {path}")
            for pattern, handler in self._routes().items():
                if found := re.fullmatch(pattern, path):
                    return handler(*found.groups(), asked=asked, body=body)
        raise RefusedError(404, "not_found", f"no such call: {method} {path}")

    def _routes(self) -> dict[str, Callable[..., Any]]:
        return {
            "/instances": self._instances,
            "/instances/([^/]+)": self._instance,
            "/instances/([^/]+)/actions": self._action,
            "/instances/([^/]+)/reinitialize": self._reinitialize,
            "/instance/profiles": lambda asked, body: {"profiles": [_profile(p) for p in PROFILES]},
            "/images": lambda asked, body: self._paged("images", _images(), asked),
            "/subnets": lambda asked, body: self._paged("subnets", _subnets(), asked),
            "/keys": lambda asked, body: self._paged(
                "keys", [{"id": "r010-key", "name": "ann"}], asked
            ),
            "/security_groups": self._groups,
            "/security_groups/([^/]+)": self._group,
            "/security_groups/([^/]+)/rules": self._rules,
            "/security_groups/([^/]+)/rules/([^/]+)": self._rule,
            "/security_groups/([^/]+)/targets": self._targets,
        }

    def _paged(self, kind: str, items: list[Any], asked: dict[str, str]) -> dict[str, Any]:
        """A page of a collection, with a link to the next one."""
        begin, limit = int(asked.get("start", 0)), min(int(asked.get("limit", 50)), self.page)
        made = {kind: items[begin : begin + limit], "limit": limit, "total_count": len(items)}
        if begin + limit < len(items):
            made["next"] = {"href": f"https://example.org/v1/{kind}?start={begin + limit}"}
        return made

    def _fresh(self, kind: str) -> str:
        self._number += 1
        return f"02b7-{kind}-{self._number}"

    def _instances(self, asked: dict[str, str], body: Any) -> Any:
        if body is None:
            if "start" not in asked:  # none goes between two pages
                self.instances = {k: e for k, e in self.instances.items() if "_gone" not in e}
            wanted = asked.get("vpc.id")
            found = [e for e in self.instances.values() if wanted in (None, e["vpc"]["id"])]
            return self._paged("instances", [self._seen(each) for each in found], asked)
        name, card = body["name"], body["primary_network_interface"]
        _check(
            len(name) <= 63 and NAME.fullmatch(name), "validation", f"name {name!r} is not valid"
        )
        taken = name in self.names
        _check(not taken, "validation_unique_failed", f"Provided Name ({name}) is not unique")
        self._check_known(body)
        _check(card["subnet"]["id"] in SUBNETS, "not_found", "Subnet not found")
        zone = _subnet(card["subnet"]["id"])["zone"]["name"]
        _check(zone == body["zone"]["name"], "validation", "the subnet is in another zone")
        for group in card["security_groups"]:
            _check(group["id"] in self.groups, "not_found", "Security group not found")
        number = self._fresh("instance")
        self.user_data[number] = body.get("user_data", "")
        self.instances[number] = {
            "id": number,
            "name": name,
            "status": "pending",
            "profile": {"name": body["profile"]["name"]},
            "image": body["image"],
            "vpc": VPC,
            "zone": body["zone"],
            "created_at": f"2026-10-01T00:00:{self._number:02}Z",
            "metadata_service": body["metadata_service"],
            "primary_network_interface": {
                "id": self._fresh("card"),
                "primary_ip": {"address": "0.0.0.0"},
            },
            "_groups": [each["id"] for each in card["security_groups"]],
        }
        return self._seen(self.instances[number])

    def _check_known(self, body: dict[str, Any]) -> None:
        images = {each["id"] for each in _images()}
        _check(body["image"]["id"] in images, "not_found", "Image not found")
        profile = body.get("profile", {}).get("name", "cx2-2x4")
        _check(profile in PROFILES, "not_found", "Profile not found")
        long = len(body.get("user_data", "").encode()) > MAX_USER_DATA
        _check(not long, "validation", "user_data is too long")
        for key in body.get("keys", []):
            _check(key["id"] == "r010-key", "not_found", "Key not found")

    def _seen(self, instance: dict[str, Any]) -> dict[str, Any]:
        """As it is shown; then it has moved on a little."""
        shown = {key: value for key, value in instance.items() if not key.startswith("_")}
        shown = json.loads(json.dumps(shown))
        steps = {"pending": "starting", "starting": "running", "stopping": "stopped"}
        instance["status"] = steps.get(instance["status"], instance["status"])
        if instance["status"] == "running":
            instance["primary_network_interface"]["primary_ip"]["address"] = "127.0.0.1"
        if shown["status"] == "deleting":
            instance["_gone"] = True
        return dict(shown)

    def _known(self, number: str) -> dict[str, Any]:
        if "_gone" in self.instances.get(number, {"_gone": True}):
            raise RefusedError(404, "not_found", "Instance not found")
        return self.instances[number]

    def _instance(self, number: str, asked: dict[str, str], body: Any) -> Any:
        instance = self._known(number)
        if asked["_method"] == "DELETE":
            instance["status"] = "deleting"
            return None
        return self._seen(instance)

    def _action(self, number: str, asked: dict[str, str], body: Any) -> Any:
        instance = self._known(number)
        _check(body["type"] in ("start", "stop", "reboot"), "validation", "no such action")
        instance["status"] = {"stop": "stopping"}.get(body["type"], "starting")
        return {"id": self._fresh("action"), "type": body["type"], "status": "pending"}

    def _reinitialize(self, number: str, asked: dict[str, str], body: Any) -> Any:
        instance = self._known(number)
        if instance["status"] != "stopped":
            raise RefusedError(409, "conflict", "The instance must be stopped")
        self._check_known(body)
        self.user_data[number] = body.get("user_data", "")
        instance["status"], instance["image"] = "starting", body["image"]
        return None

    def _groups(self, asked: dict[str, str], body: Any) -> Any:
        if body is None:
            found = [e for e in self.groups.values() if asked.get("vpc.id") in (None, VPC["id"])]
            return self._paged("security_groups", found, asked)
        _check(body["vpc"]["id"] == VPC["id"], "not_found", "VPC not found")
        number = self._fresh("group")
        self.groups[number] = {"id": number, "name": body["name"], "vpc": VPC, "rules": []}
        return self.groups[number]

    def _group(self, number: str, asked: dict[str, str], body: Any) -> Any:
        used = any(number in each["_groups"] for each in self.instances.values())
        if asked["_method"] == "DELETE":
            if used:
                raise RefusedError(409, "security_group_in_use", "The group has targets")
            del self.groups[number]
            return None
        return self.groups[number]

    def _rules(self, number: str, asked: dict[str, str], body: Any) -> Any:
        known = body["protocol"] in ("any", "icmp_tcp_udp", "tcp", "udp", "icmp")
        _check(known, "validation", "protocol is not valid")
        _check(body["direction"] in ("inbound", "outbound"), "validation", "direction is not valid")
        self.groups[number]["rules"].append({"id": self._fresh("rule"), **body})
        return self.groups[number]["rules"][-1]

    def _rule(self, number: str, rule: str, asked: dict[str, str], body: Any) -> Any:
        group = self.groups[number]
        group["rules"] = [each for each in group["rules"] if each["id"] != rule]

    def _targets(self, number: str, asked: dict[str, str], body: Any) -> Any:
        found = [
            {"id": each["primary_network_interface"]["id"], "resource_type": "network_interface"}
            for each in self.instances.values()
            if number in each["_groups"]
        ]
        return self._paged("targets", found, asked)


def _check(holds: object, code: str, message: str) -> None:
    if not holds:
        raise RefusedError(400, code, message)


def _profile(name: str) -> dict[str, Any]:
    cores, memory = PROFILES[name]
    return {
        "name": name,
        "vcpu_count": {"type": "fixed", "value": cores},
        "memory": {"type": "fixed", "value": memory},
        "os_architecture": {"type": "enum", "values": ["amd64"], "default": "amd64"},
    }


def _images() -> list[dict[str, Any]]:
    return [{"id": f"r010-{n}", "name": n, "created_at": t} for n, t in IMAGES.items()]


def _subnet(number: str) -> dict[str, Any]:
    zone = {"name": f"eu-de-{number[-1]}"}
    return {"id": number, "name": f"named-{number}", "vpc": VPC, "zone": zone, **SUBNETS[number]}


def _subnets() -> list[dict[str, Any]]:
    return [_subnet(number) for number in SUBNETS]


@contextmanager
def playing_ibm() -> Iterator[tuple[IbmStub, str]]:
    """A stub, and the address at which it listens."""
    stub = IbmStub()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            data, url = self.rfile.read(length), urlsplit(self.path)
            try:
                if url.path == "/identity/token":
                    status, answer = 200, _token(data)
                else:
                    status, answer = 200, self._ask(data)
            except RefusedError as error:
                status = error.status
                answer = {"errors": [{"code": error.code, "message": str(error)}]}
            said = b"" if answer is None else json.dumps(answer).encode()
            self.send_response(204 if answer is None else status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        do_POST = do_DELETE = do_GET

        def _ask(self, data: bytes) -> Any:
            if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                raise RefusedError(401, "not_authorized", "The request is not authorized")
            url = urlsplit(self.path)
            asked = {key: values[0] for key, values in parse_qs(url.query).items()}
            asked["_method"] = self.command
            body = json.loads(data) if data else None
            return stub.answer(self.command, url.path.removeprefix("/v1"), asked, body)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield stub, "http://{}:{}".format(*server.server_address[:2])
        finally:
            server.shutdown()
            thread.join()


def _token(data: bytes) -> dict[str, Any]:
    """A token for the right key, as IBM's identity service gives it."""
    asked = {key: values[0] for key, values in parse_qs(data.decode()).items()}
    if asked.get("apikey") != KEY:
        raise RefusedError(400, "BXNIM0415E", "Provided API key could not be found.")
    return {
        "access_token": TOKEN,
        "refresh_token": "not_supported",
        "token_type": "Bearer",
        "expires_in": 3600,
        "expiration": 4_000_000_000,
    }
