"""Who may use a server: SCRAM-SHA-256 (RFC 7677) with the password of its note.

The password itself never goes over the connection; both sides prove that they know it.
"""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Mapping
from typing import Any

from store.embedded.mongo_errors import MongoError

MECHANISM = "SCRAM-SHA-256"
USER = "evo"
ITERATIONS = 4096  # the least that clients accept; the password is random, so no more is needed
CONVERSATION = 1


class Credentials:
    """What a server keeps of a password."""

    def __init__(self, password: str) -> None:
        self.salt = secrets.token_bytes(16)
        salted = hashlib.pbkdf2_hmac("sha256", password.encode(), self.salt, ITERATIONS)
        self.stored_key = hashlib.sha256(_sign(salted, b"Client Key")).digest()
        self.server_key = _sign(salted, b"Server Key")


class Login:
    """The way of one connection from a stranger to a user."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials
        self._begun: tuple[str, str] | None = None  # what client and server have said first
        self._proven = False
        self.done = False

    def start(self, command: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to ``saslStart``.

        Raises:
            MongoError: 18, with the reason.
        """
        if command.get("mechanism") != MECHANISM:
            raise MongoError(18, f"use {MECHANISM} here, not {command.get('mechanism')!r}")
        header, _, first = _text(command).partition(",,")
        nonce = _fields(first).get("r")
        if header != "n" or _fields(first).get("n") != USER or not nonce:
            raise MongoError(18, "Authentication failed.")
        salt = base64.b64encode(self._credentials.salt).decode()
        answer = f"r={nonce}{secrets.token_hex(16)},s={salt},i={ITERATIONS}"
        self._begun, self._proven = (first, answer), False
        return _reply(answer, False)

    def go_on(self, command: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to ``saslContinue``; the last one is empty.

        Raises:
            MongoError: 18, with the reason.
        """
        if self._proven:
            self.done = True
            return _reply("", True)
        begun, self._begun = self._begun, None
        last = _text(command)
        unproven, _, proof = last.rpartition(",p=")
        if begun is None or _fields(last).get("r") != _fields(begun[1])["r"]:
            raise MongoError(18, "Authentication failed.")
        signed = ",".join((*begun, unproven)).encode()
        signature = _sign(self._credentials.stored_key, signed)
        try:
            given = base64.b64decode(proof, validate=True)
        except ValueError as error:
            raise MongoError(18, "Authentication failed.") from error
        key = bytes(a ^ b for a, b in zip(signature, given, strict=False))
        if not hmac.compare_digest(hashlib.sha256(key).digest(), self._credentials.stored_key):
            raise MongoError(18, "Authentication failed.")
        self._proven = True
        proof_of_ours = base64.b64encode(_sign(self._credentials.server_key, signed)).decode()
        return _reply(f"v={proof_of_ours}", False)


def _sign(key: bytes, text: bytes) -> bytes:
    return hmac.digest(key, text, "sha256")


def _text(command: Mapping[str, Any]) -> str:
    payload = command.get("payload")
    if not isinstance(payload, bytes):
        raise MongoError(18, "Authentication failed.")
    return payload.decode("utf-8", "replace")


def _fields(text: str) -> dict[str, str]:
    """r=nonce,s=salt,… by letter."""
    return {part[0]: part[2:] for part in text.split(",") if part[1:2] == "="}


def _reply(text: str, done: bool) -> dict[str, Any]:
    return {"conversationId": CONVERSATION, "done": done, "payload": text.encode(), "ok": 1.0}
