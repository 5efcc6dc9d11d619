"""What several test files need: a world of their own, a server, workers, noise, waiting."""

import gc
import multiprocessing
import os
import secrets
import signal
import time
from collections.abc import Callable, Iterator
from multiprocessing.context import ForkProcess
from typing import TYPE_CHECKING

import numpy as np
import pytest
from commands import Place
from stores import TestDatabase, end_server
from stores import connect as connect_store

from cluster.clients import WorkerClient
from cluster.keys import Keys, workers_alive
from cluster.redis_server import Server, connect, start_server
from evolution.evaluation import Part
from evolution.noise import NoiseTable
from evolution.population import Dense, Mirrored, Population, Repeated
from evolution.worker import serve
from store.embedded.start import embedded_url

if TYPE_CHECKING:
    from aws_moto import Moto
    from fake_cloud import Cloud
    from ibm_stub import IbmStub

    from cluster.providers.aws import AwsProvider
    from cluster.providers.ibm import IbmProvider

FORK = multiprocessing.get_context("fork")
WAIT_SECONDS = 30.0

WaitFor = Callable[[Callable[[], object]], None]


@pytest.fixture(scope="session", autouse=True)
def own_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep tests away from the developer's servers, settings and runs; let Ctrl-C work."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in the background of a script
        signal.signal(signal.SIGINT, signal.default_int_handler)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("EVO_REDIS", "MONGO_URL", "EVO_SETTINGS"):
            patch.delenv(name, raising=False)
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
        patch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("runtime")))
        patch.setenv("EVO_RUNS", str(tmp_path_factory.mktemp("runs")))
        yield


@pytest.fixture(scope="session")
def noise() -> Iterator[NoiseTable]:
    """A table for small policies."""
    with NoiseTable(200_000, 7) as table:
        yield table


@pytest.fixture
def wait_for() -> WaitFor:
    """Wait until a condition holds; the test fails if it does not come to hold."""

    def wait(condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + WAIT_SECONDS
        while not condition():
            assert time.monotonic() < deadline, "what was waited for did not happen"
            time.sleep(0.002)

    return wait


@pytest.fixture
def server() -> Iterator[Server]:
    """A redis-compatible server of this test's own."""
    with start_server() as running:
        yield running


class Crew:
    """Worker processes at a server; each is a fork, so it knows what this process has set up."""

    def __init__(self, url: str, wait: WaitFor, name: str = "worker") -> None:
        self.url, self.wait, self._name = url, wait, name
        self.processes: list[ForkProcess] = []

    def start(self, count: int = 1, prepare: Callable[[], None] = lambda: None) -> None:
        """Start workers and wait until the server has heard of them.

        Args:
            prepare: called in each new process before it works.
        """
        for _ in range(count):
            number = len(self.processes)
            name = f"{self._name}-{number}"
            process = FORK.Process(target=_work, args=(self.url, name, os.getpid(), prepare))
            process.start()
            self.processes.append(process)
        server = connect(self.url)
        living = {f"{self._name}-{i}" for i, each in enumerate(self.processes) if each.is_alive()}
        self.wait(lambda: living <= {w["name"] for w in workers_alive(server, Keys())})

    def end(self) -> None:
        """Kill those that are left."""
        for process in self.processes:
            process.kill()
            process.join()


def _work(url: str, name: str, parent: int, prepare: Callable[[], None]) -> None:
    gc.freeze()  # what the parent made is the parent's to end: its pools have no threads here
    prepare()
    client = WorkerClient(connect(url), name, Keys())
    serve(client, lambda: os.getppid() == parent)


@pytest.fixture
def crew(server: Server, wait_for: WaitFor) -> Iterator[Crew]:
    """Workers of this test's own; none until ``start``."""
    made = Crew(server.url, wait_for)
    yield made
    made.end()


@pytest.fixture
def make_task() -> Callable[..., list[Part]]:
    """A task of three parts that differ in kind, group and number of episodes."""

    def make(dim: int, seed: int, noise: NoiseTable) -> list[Part]:
        rng = np.random.default_rng(seed)
        centre = rng.normal(0, 0.5, dim).astype(np.float32)
        populations: tuple[Population, ...] = (
            Mirrored(centre, 0.3, noise.sample(rng, 5, dim)),
            Repeated(centre, 3),
            Dense(rng.normal(0, 0.5, (4, dim)).astype(np.float32)),
        )
        episodes = (2, 1, 3)
        return [
            Part(p, rng.integers(0, 2**31, (len(p) // p.group, count)))
            for p, count in zip(populations, episodes, strict=True)
        ]

    return make


@pytest.fixture(scope="session")
def embedded_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of an embedded store that all tests share; each takes a database of its own."""
    file = tmp_path_factory.mktemp("store") / "store.sqlite"
    yield embedded_url(file)
    end_server(file)


# A MongoDB on which tests may make databases of their own and drop them.
MONGODB = os.environ.get("MONGO_URL_TEST")


@pytest.fixture(params=["embedded", "mongodb"] if MONGODB else ["embedded"])
def store_address(request: pytest.FixtureRequest, embedded_store: str) -> str:
    """The URL of every kind of store: the embedded one, and MONGO_URL_TEST if that is set."""
    return str(MONGODB if request.param == "mongodb" else embedded_store)


@pytest.fixture
def database(store_address: str) -> Iterator[TestDatabase]:
    """An empty database of every kind of store."""
    name = "test-" + secrets.token_hex(6)
    with connect_store(store_address) as client:
        yield client[name]
        client.drop_database(name)


@pytest.fixture(scope="session")
def make_store(embedded_store: str) -> Iterator[Callable[[], TestDatabase]]:
    """Make an empty store for runs."""
    with connect_store(embedded_store) as client:
        yield lambda: client["runs-" + secrets.token_hex(6)]


@pytest.fixture(scope="module")
def store(make_store: Callable[[], TestDatabase]) -> TestDatabase:
    """A store of this test file's own."""
    return make_store()


@pytest.fixture(scope="module")
def moto(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Moto]":
    """AWS, played on this machine, with an account that was set up."""
    from aws_moto import playing_aws

    with playing_aws(tmp_path_factory.mktemp("aws")) as moto:
        yield moto


@pytest.fixture
def aws(moto: "Moto") -> "Iterator[AwsProvider]":
    """The provider of the account's owner; at the end nothing of a cluster is left."""
    from cluster.providers.aws import AwsProvider
    from cluster.providers.aws.session import Aws

    made = AwsProvider("ann", Aws())
    yield made
    for each in made.list():
        made.destroy(each.name)
    assert not any(moto.everything().values())


@pytest.fixture(scope="module")
def ibm_cloud(moto: "Moto") -> "Iterator[IbmStub]":
    """IBM Cloud, played on this machine, with an account that was set up."""
    from ibm_account import playing_ibm_account

    with playing_ibm_account(moto) as stub:
        yield stub


@pytest.fixture
def ibm(ibm_cloud: "IbmStub", moto: "Moto") -> "Iterator[IbmProvider]":
    """The provider of the account's owner; at the end nothing of a cluster is left."""
    from ibm_account import forget_runs

    from cluster.providers.ibm import IbmProvider
    from cluster.providers.ibm.session import Ibm

    made = IbmProvider("ann", Ibm())
    yield made
    for each in made.list():
        made.destroy(each.name)
    assert ibm_cloud.instances == {}
    forget_runs(moto)


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Cloud]":
    """One whose machines run, for the tests in cloud/."""
    from fake_cloud import booting_cloud

    with booting_cloud(tmp_path_factory.mktemp("cloud")) as cloud:
        yield cloud


@pytest.fixture
def place() -> Iterator[Place]:
    """A machine of a user's own."""
    with Place() as place:
        yield place
