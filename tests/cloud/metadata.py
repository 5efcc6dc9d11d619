"""The metadata service that machines of the fake cloud ask who they are, version 2 of it."""

import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "X-aws-ec2-metadata-token"
ROOT = "/latest/"


@dataclass
class Facts:
    """What a machine can learn of itself."""

    values: dict[str, str]  # by their paths below meta-data
    needs_token: bool
    credentials: Callable[[], tuple[str, dict[str, Any]] | None]  # of its role, with its name
    tokens: set[str] = field(default_factory=set)  # that it was given

    def answer(self, path: str) -> str | None:
        """What is at a path; None if there is nothing."""
        role = "iam/security-credentials"
        if path.rstrip("/").startswith(role):
            name, keys = self.credentials() or ("", {})
            asked = path.removeprefix(role).strip("/")
            if not asked:
                return name or None
            return json.dumps(keys) if asked == name else None
        return self.values.get(path)


def metadata_service(address: tuple[str, int], of: dict[str, Facts]) -> ThreadingHTTPServer:
    """A server that is not running yet.

    Args:
        of: the facts of each machine, by its address.
    """

    class Handler(BaseHTTPRequestHandler):
        @property
        def facts(self) -> Facts | None:
            return of.get(self.client_address[0])

        def do_PUT(self) -> None:
            seconds = self.headers.get(f"{TOKEN}-ttl-seconds", "")
            wrong = self.path != f"{ROOT}api/token" or not seconds.isdigit()
            if self.facts is None or wrong or "X-Forwarded-For" in self.headers:
                return self._say(400 if wrong else 403)
            token = secrets.token_hex(16)
            self.facts.tokens.add(token)
            return self._say(200, token)

        def do_GET(self) -> None:
            facts = self.facts
            if facts is None:
                return self._say(404)
            given = self.headers.get(TOKEN)
            if given not in facts.tokens and (given is not None or facts.needs_token):
                return self._say(401)
            said = facts.answer(self.path.removeprefix(f"{ROOT}meta-data/"))
            return self._say(404) if said is None else self._say(200, said)

        def _say(self, status: int, text: str = "") -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            """To nobody."""

    return ThreadingHTTPServer(address, Handler)
