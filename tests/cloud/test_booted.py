"""Clusters on AWS whose machines are booted: what they do, and what they may not."""

import signal

import pytest
from aws_moto import manage
from booting import Booted
from clusters import LAUNCH, REASON, have_work, head_of, is_gone, workers_of
from commands import Command, Place, run_here, setting, wait_until
from fake_cloud import Cloud

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(REASON), reason=REASON)]
LANDER = {"num_generations": 20, "noise_size": 200_000, "seed": 7, "pop_size": 32}
LANDER |= {"final_episodes": 3}


def pause(head: Booted, what: signal.Signals) -> None:
    """Stop the experiment where it is, or let it go on."""
    assert head.run(f"kill -{what.name[3:]} $(cat /opt/evo/experiment.pid)").returncode == 0


def test_a122_a_cluster_from_setup_to_its_end(
    cloud: Cloud, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run is paused while machines come and go, so that it does not end before they do."""
    monkeypatch.setenv("EVO_OWNER", "zoe")
    place.env["EVO_OWNER"] = "zoe"
    assert "role evo-zoe-eu-west-1-head" in manage("setup").output
    config = " ".join(["lander", *setting(**LANDER)])
    words = ("--size=2", "--workers_per_machine=2", "--price=0.1", f"--config={config}")
    assert "one, head 172.31." in place.run("cluster/launch.py", "launch", *LAUNCH, *words)
    follower = place.start("cluster/manage.py", "tail", "one", "--follow")
    head = head_of(cloud)
    wait_until(lambda: "generation 1/20" in head.log(), cloud)
    pause(head, signal.SIGSTOP)
    have_work(cloud, 2)
    assert "2 of 2 t3.2xlarge, spot, at most $0.1" in manage("list").output
    assert "generation 1/20" in manage("tail", "one").output
    change_machines(cloud)
    pause(head, signal.SIGCONT)
    is_gone(cloud)
    assert "no clusters" in manage("list").output
    check_result(follower, manage("tail", "one", "-n", "100").output)
    assert "removed role" in manage("teardown", "-y").output


def change_machines(cloud: Cloud) -> None:
    """More, fewer, and one that is taken back."""
    assert "4 machines" in manage("resize", "one", "4").output
    have_work(cloud, 4)
    assert "2 workers for 172.31." in manage("tail", "one", "--node=3").output
    assert "1 machines" in manage("resize", "one", "1").output
    have_work(cloud, 1)
    (machine,) = workers_of(cloud)
    cloud.take_back(machine.name)
    wait_until(lambda: "its workers take no more work" in machine.log(), cloud)
    cloud.moto.client("ec2").terminate_instances(InstanceIds=[machine.name])
    have_work(cloud, 1)
    assert machine.has_ended and [each.name for each in workers_of(cloud)] != [machine.name]


def check_result(follower: Command, stored: str) -> None:
    """The run has given the bits that it gives on one machine, and all of its words were told."""
    expected = run_here("lander", evaluator="local", **LANDER)
    assert f"theta sha256 {expected.info['theta sha256']}\n" in stored
    assert " done\n" in stored
    told = follower.succeed().splitlines()
    assert [line for line in told if line.startswith("generation ")] == [
        line for line in stored.splitlines() if line.startswith("generation ")
    ]
    assert told[-1] == stored.splitlines()[-1]
