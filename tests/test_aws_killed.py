"""A launcher that is killed by kill -9, at every call that changes something: nothing stays."""

import io
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from multiprocessing.context import ForkProcess
from typing import Any
from urllib.parse import parse_qs

import pytest
from aws_moto import NOTHING, WRITES, Moto, manage
from click.testing import CliRunner
from moto.server import DomainDispatcherApplication

from cluster import launch as launch_script
from cluster import manage as manage_script
from cluster.providers.aws.session import Aws
from cluster.providers.aws.setup import AwsAccount

pytestmark = pytest.mark.slow
FORK = multiprocessing.get_context("fork")
MONGO = "mongodb+srv://ann:secret@db.example.org/sacred"
LAUNCH = ("launch", "--name=one", "--size=2", "--config=sphere", "-y")
WRITES_OF_A_LAUNCH = 7
PLAIN: Callable[..., Iterable[bytes]] = DomainDispatcherApplication.__call__


class Victim:
    """One of our scripts in a process of its own, that is killed at a call to AWS."""

    def __init__(self, script: Any, words: tuple[str, ...], number: int, when: str) -> None:
        """Run it to its end.

        Args:
            number: of the write, from 0, at which it is killed.
            when: "before" AWS does what it asks for, or "after"; "never".
        """
        self.writes: list[str] = []
        self._at = number, when
        self._process: ForkProcess = FORK.Process(target=_run, args=(script, words))
        with _answering(self._answer):
            self._process.start()
            self._process.join()
        self.code = self._process.exitcode

    def _answer(self, app: Any, environ: dict[str, Any], begin: Any) -> Iterable[bytes]:
        write = _operation(environ).startswith(WRITES)
        if write:
            self.writes.append(_operation(environ))
        here = len(self.writes) - 1
        if write and self._at == (here, "before"):
            self._kill()
            begin("503 Service Unavailable", [])
            return []
        answer = list(PLAIN(app, environ, begin))
        if write and self._at == (here, "after"):
            self._kill()
        return answer

    def _kill(self) -> None:
        assert self._process.pid
        os.kill(self._process.pid, signal.SIGKILL)
        os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)


def _run(script: Any, words: tuple[str, ...]) -> None:
    result = CliRunner().invoke(script.cli, words)
    os._exit(result.exit_code)


@contextmanager
def _answering(answer: Callable[..., Iterable[bytes]]) -> Iterator[None]:
    """Have something else answer in the place of AWS."""

    def instead(app: Any, environ: dict[str, Any], begin: Any) -> Iterable[bytes]:
        return answer(app, environ, begin)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DomainDispatcherApplication, "__call__", instead)
        yield


def _operation(environ: dict[str, Any]) -> str:
    """What a call asks for, such as RunInstances; of S3: such as Put."""
    if target := environ.get("HTTP_X_AMZ_TARGET"):
        return str(target).rpartition(".")[2]
    if "/s3/aws4_request" in environ.get("HTTP_AUTHORIZATION", ""):
        return str(environ["REQUEST_METHOD"]).capitalize()
    if not isinstance(environ["wsgi.input"], io.BytesIO):
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
    body = environ["wsgi.input"].getvalue()
    return parse_qs(body.decode()).get("Action", [""])[0]


def test_a125_whenever_the_launcher_is_killed_kill_ends_all_there_is(
    moto: Moto, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MONGO_URL", MONGO)
    monkeypatch.setattr(launch_script, "check_config", lambda *_: None)  # asks nothing of AWS
    for number in range(WRITES_OF_A_LAUNCH):
        for when in ("before", "after"):
            victim = Victim(launch_script, LAUNCH, number, when)
            assert (victim.code, len(victim.writes)) == (-signal.SIGKILL, number + 1)
            there = (number, when) != (0, "before")
            assert manage("kill", "one", "-y").exit_code == (0 if there else 1)
            assert moto.everything() == NOTHING
    whole = Victim(launch_script, LAUNCH, 0, "never")
    assert whole.code == 0 and len(whole.writes) == WRITES_OF_A_LAUNCH, whole.writes
    assert manage("kill", "one", "-y").exit_code == 0
    assert moto.everything() == NOTHING


def test_a125_whenever_a_set_up_is_killed_teardown_removes_all_there_is(
    moto: Moto, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVO_OWNER", "zoe")
    whole = Victim(manage_script, ("setup",), 0, "never")
    assert whole.code == 0 and len(whole.writes) >= 10
    assert manage("teardown", "-y").output.count("removed") == 4
    for number in range(len(whole.writes)):
        victim = Victim(manage_script, ("setup",), number, "after")
        assert victim.code == -signal.SIGKILL, victim.writes
        assert "removed" in manage("teardown", "-y").output
        assert _of_zoe(moto) == []
    account = AwsAccount("zoe", Aws())
    assert Victim(manage_script, ("setup",), 0, "never").code == 0 and account.missing() == []
    assert account.teardown()


def _of_zoe(moto: Moto) -> list[str]:
    """What is left of her set-up."""
    iam, ssm = moto.client("iam"), moto.client("ssm")
    groups = moto.client("ec2").describe_security_groups()["SecurityGroups"]
    left = [
        *(each["RoleName"] for each in iam.list_roles()["Roles"]),
        *(e["InstanceProfileName"] for e in iam.list_instance_profiles()["InstanceProfiles"]),
        *(each["GroupName"] for each in groups),
        *(each["Name"] for each in ssm.describe_parameters()["Parameters"]),
    ]
    return [name for name in left if "zoe" in name]
