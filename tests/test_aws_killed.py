"""A launcher that is killed by kill -9, at every call that changes something: nothing stays."""

import signal
from collections.abc import Iterator

import pytest
from aws_moto import NOTHING, Moto, manage
from victims import Victim

from cluster import launch as launch_script
from cluster import manage as manage_script
from cluster.providers.aws.session import Aws
from cluster.providers.aws.setup import AwsAccount

pytestmark = pytest.mark.slow
MONGO = "mongodb+srv://ann:secret@db.example.org/sacred"
LAUNCH = ("launch", "--name=one", "--size=2", "--config=sphere", "-y")
WRITES_OF_A_LAUNCH = 7


@pytest.fixture(autouse=True)
def nothing_stays(moto: Moto) -> Iterator[None]:
    """Also when a test fails."""
    yield
    if moto.everything() != NOTHING:
        manage("kill", "one", "-y")
    if _of_zoe(moto):
        AwsAccount("zoe", Aws()).teardown()


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
    iam = moto.client("iam")
    groups = moto.client("ec2").describe_security_groups()["SecurityGroups"]
    left = [
        *(each["RoleName"] for each in iam.list_roles()["Roles"]),
        *(e["InstanceProfileName"] for e in iam.list_instance_profiles()["InstanceProfiles"]),
        *(each["GroupName"] for each in groups),
        *moto.secrets(),
    ]
    return [name for name in left if "zoe" in name]
