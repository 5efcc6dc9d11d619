"""What the tests of booted clusters have in common: a cluster `one`, its machines, its end."""

import contextlib
import json

from aws_moto import NOTHING
from booting import Booted
from commands import ROOT, wait_until
from fake_cloud import Cloud
from network import why_not

from cluster.keys import Keys, workers_alive
from cluster.redis_server import connect

REASON = why_not() or ("" if (ROOT / ".git").exists() else "no git checkout")
LAUNCH = ("--name=one", "-y", "--committed-only")


def head_of(cloud: Cloud) -> Booted:
    (found,) = cloud.moto.machines_of(cluster="one", role="head")
    return cloud.machine(found["InstanceId"])


def workers_of(cloud: Cloud) -> list[Booted]:
    found = cloud.moto.machines_of(cluster="one", role="worker")
    return [cloud.machine(each["InstanceId"]) for each in found]


def have_work(cloud: Cloud, number: int) -> None:
    """Wait until there are so many machines of two workers, and the head has heard of all."""
    assert len(workers_of(cloud)) == number
    top = head_of(cloud).root
    (note,) = (top / "opt/evo/run").glob("*/server.json")
    url = json.loads(note.read_text())["url"].replace("unix://", f"unix://{top}")
    with contextlib.closing(connect(url)) as server:

        def heard_of() -> int:
            return sum(each["workers"] for each in workers_alive(server, Keys()))

        wait_until(lambda: heard_of() == 2 * number, cloud)


def is_gone(cloud: Cloud) -> None:
    """Wait until all machines have ended; nothing else is left either."""
    wait_until(lambda: cloud.is_empty, cloud)
    left = cloud.moto.everything()
    assert left == NOTHING, left
