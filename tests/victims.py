"""Scripts of ours, killed by kill -9 at a call by which they change something in a cloud."""

import io
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from multiprocessing.context import ForkProcess
from typing import Any, TypeVar
from urllib.parse import parse_qs

import pytest
from aws_moto import WRITES
from click.testing import CliRunner
from ibm_stub import IbmStub, RefusedError
from moto.server import DomainDispatcherApplication

FORK = multiprocessing.get_context("fork")
PLAIN_AWS: Callable[..., Iterable[bytes]] = DomainDispatcherApplication.__call__
PLAIN_IBM: Callable[..., Any] = IbmStub.answer

T = TypeVar("T")


class Victim:
    """One of our scripts in a process of its own, that is killed at a call to AWS or IBM."""

    def __init__(self, script: Any, words: tuple[str, ...], number: int, when: str) -> None:
        """Run it to its end.

        Args:
            number: of the write, from 0, at which it is killed.
            when: "before" the cloud does what it asks for, or "after"; "never".
        """
        self.writes: list[str] = []
        self._at = number, when
        self._process: ForkProcess = FORK.Process(target=_run, args=(script, words))
        with _asking(self):
            self._process.start()
            self._process.join()
        self.code = self._process.exitcode

    def write(self, call: str, answer: Callable[[], T], refuse: Callable[[], T]) -> T:
        """Answer one of its calls, unless it is killed before."""
        self.writes.append(call)
        here = len(self.writes) - 1
        if self._at == (here, "before"):
            self._kill()
            return refuse()
        answered = answer()
        if self._at == (here, "after"):
            self._kill()
        return answered

    def _kill(self) -> None:
        assert self._process.pid
        os.kill(self._process.pid, signal.SIGKILL)
        os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)


def _run(script: Any, words: tuple[str, ...]) -> None:
    result = CliRunner().invoke(script.cli, words)
    os._exit(result.exit_code)


@contextmanager
def _asking(victim: Victim) -> Iterator[None]:
    """Have the clouds that tests play tell a victim of all that it changes."""

    def aws(app: Any, environ: dict[str, Any], begin: Any) -> Iterable[bytes]:
        def refuse() -> list[bytes]:
            begin("503 Service Unavailable", [])
            return []

        def answer() -> list[bytes]:
            return list(PLAIN_AWS(app, environ, begin))

        call = _operation(environ)
        return victim.write(call, answer, refuse) if call.startswith(WRITES) else answer()

    def ibm(stub: IbmStub, method: str, path: str, *asked: Any) -> Any:
        def refuse() -> Any:
            raise RefusedError(503, "gone", "nobody is there to hear it")

        def answer() -> Any:
            return PLAIN_IBM(stub, method, path, *asked)

        return answer() if method == "GET" else victim.write(f"{method} {path}", answer, refuse)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DomainDispatcherApplication, "__call__", aws)
        patch.setattr(IbmStub, "answer", ibm)
        yield


def _operation(environ: dict[str, Any]) -> str:
    """What a call to AWS asks for, such as RunInstances; to object storage: such as Put."""
    if target := environ.get("HTTP_X_AMZ_TARGET"):
        return str(target).rpartition(".")[2]
    if "/s3/aws4_request" in environ.get("HTTP_AUTHORIZATION", ""):
        return str(environ["REQUEST_METHOD"]).capitalize()
    if not isinstance(environ["wsgi.input"], io.BytesIO):
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
    body = environ["wsgi.input"].getvalue()
    return parse_qs(body.decode()).get("Action", [""])[0]
