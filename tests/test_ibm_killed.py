"""A launcher that is killed by kill -9, at every call that changes something: nothing stays."""

import signal
from collections.abc import Iterator

import pytest
from aws_moto import Moto, manage
from ibm_account import forget_runs, keys, put
from ibm_stub import IbmStub
from victims import Victim

from cluster import launch as launch_script
from cluster import manage as manage_script
from cluster.providers.ibm import IbmProvider, launch
from cluster.providers.ibm.session import Ibm
from cluster.providers.ibm.setup import IbmAccount

pytestmark = pytest.mark.slow
MONGO = "mongodb+srv://ann:secret@db.example.org/sacred"
IBM = "--provider=ibm"
LAUNCH = ("launch", "--name=one", "--size=2", "--config=sphere", "-y", IBM)
MAKES = [*["Put"] * 4, *["POST /instances"] * 3]
ENDS = [*["DELETE"] * 3, *["Delete"] * 4]
USES_AGAIN = ["Delete", *["Put"] * 4, *["actions", "reinitialize"] * 3]


@pytest.fixture(autouse=True)
def one_at_a_time(
    ibm_cloud: IbmStub, moto: Moto, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """A launch makes its calls in the same order each time, and finds its run at its end."""
    monkeypatch.setenv("MONGO_URL", MONGO)
    monkeypatch.setattr(launch, "AT_ONCE", 1)
    monkeypatch.setattr(launch_script, "check_config", lambda *_: None)  # asks nothing of IBM
    monkeypatch.setattr(IbmProvider, "attend", lambda *_: "done")
    yield
    forget_runs(moto)
    if ibm_cloud.instances or keys(moto):
        manage("kill", "one", "-y", IBM)


def kinds(writes: list[str]) -> list[str]:
    """What calls do, whatever machine they are about."""
    made = [each.rpartition("/")[2] if "/instances/" in each else each for each in writes]
    return [
        "DELETE" if each.startswith("DELETE") else k for each, k in zip(writes, made, strict=True)
    ]


def killed(number: int, when: str) -> Victim:
    victim = Victim(launch_script, LAUNCH, number, when)
    assert (victim.code, len(victim.writes)) == (-signal.SIGKILL, number + 1), victim.writes
    return victim


def test_a125_whenever_the_launcher_is_killed_kill_ends_all_there_is(
    ibm_cloud: IbmStub, moto: Moto
) -> None:
    """At each call that makes something, and while it removes what there is."""
    whole = Victim(launch_script, LAUNCH, 0, "never")
    assert whole.code == 0 and kinds(whole.writes) == [*MAKES, *ENDS]
    assert ibm_cloud.instances == {} and keys(moto) == []
    killed(0, "before")
    assert manage("kill", "one", "-y", IBM).exit_code == 1  # there is nothing
    for number in (*range(len(MAKES)), len(MAKES) + 1, len(MAKES) + 4):
        killed(number, "after")
        assert ibm_cloud.instances or keys(moto)
        assert manage("kill", "one", "-y", IBM).exit_code == 0
        assert ibm_cloud.instances == {} and keys(moto) == []


def test_a125_also_when_machines_are_used_again(ibm_cloud: IbmStub, moto: Moto) -> None:
    for number in (5, 6, 9):
        assert Victim(launch_script, (*LAUNCH, "--keep-vms"), 0, "never").code == 0
        put(moto, "runs/ann/one/state.txt", "done\n")
        assert kinds(killed(number, "after").writes) == USES_AGAIN[: number + 1]
        assert manage("kill", "one", "-y", IBM).exit_code == 0
        assert ibm_cloud.instances == {} and keys(moto) == []
        forget_runs(moto)


def test_a125_whenever_a_set_up_is_killed_teardown_removes_all_there_is(
    ibm_cloud: IbmStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVO_OWNER", "zoe")
    before = set(ibm_cloud.groups)
    for number in range(3):
        victim = Victim(manage_script, ("setup", IBM), number, "after")
        assert victim.code == -signal.SIGKILL
        assert "removed security group evo-zoe" in manage("teardown", "-y", IBM).output
        assert set(ibm_cloud.groups) == before
    assert Victim(manage_script, ("setup", IBM), 3, "after").code == 0
    account = IbmAccount("zoe", Ibm())
    assert account.missing() == [] and account.teardown()
