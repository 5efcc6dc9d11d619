"""Whatever happens to whom, the run gives the same bits: a short torment of everything."""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hosts import network, why_not
from nemesis import KILLS, LINKS, MESSAGES, STOPS, Nemesis, kinds_for, schedule
from world import Task, World

from evolution.noise import NoiseTable

pytestmark = pytest.mark.slow
SEED = int(os.environ.get("EVO_NEMESIS_SEED", "1"))  # another schedule, or one that failed
SPREAD = ("kill relay", "kill machine redis", "kill redis, data lost", "drop")


@pytest.fixture
def folder() -> Iterator[Path]:
    """Of short path, as sockets need it."""
    with tempfile.TemporaryDirectory(prefix="evo-n-", dir="/tmp") as name:
        yield Path(name)


@pytest.mark.parametrize(
    ("task", "overlap", "workers_relays"),
    [("sphere", 0, (3, 2)), ("lander", 1, (2, 0))],
    ids=["two relays", "no relay, overlap"],
)
def test_a073_every_fault_of_processes_and_messages(
    task: str, overlap: int, workers_relays: tuple[int, int], folder: Path, noise: NoiseTable
) -> None:
    workers, relays = workers_relays
    strikes = schedule(SEED, kinds_for(relays, hosts=False))
    with World(folder, Task(task, overlap, noise), workers, relays) as world:
        Nemesis(world, SEED, strikes).run()


@pytest.mark.skipif(bool(why_not()), reason=why_not())
def test_a073_hosts_that_lose_sight_of_each_other(folder: Path, noise: NoiseTable) -> None:
    strikes = schedule(SEED, [*LINKS, *SPREAD])
    with network(3, folder, SEED) as hosts:
        with World(folder, Task("sphere", 0, noise), 4, 2, hosts) as world:
            Nemesis(world, SEED, strikes).run()
        names = [host.namespace for host in hosts]
    shown = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True)
    assert not set(names) & set(shown.stdout.split())


def test_a_seed_gives_one_schedule() -> None:
    kinds = kinds_for(2, hosts=True)
    assert set(kinds) == {*KILLS, *STOPS, *MESSAGES, *LINKS}
    assert schedule(4, kinds) == schedule(4, kinds) != schedule(5, kinds)
    assert {fault.kind for strike in schedule(4, kinds) for fault in strike.faults} == set(kinds)
    many = schedule(6, kinds, 20)
    assert many == schedule(6, kinds, 20) != schedule(7, kinds, 20)
    assert sum(len(strike.faults) for strike in many) == 20
    assert len(many) < 20
