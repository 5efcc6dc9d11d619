"""Server, workers and experiment in terminals of their own: who may come, go and be replaced."""

import os
import re
import signal
from collections.abc import Iterator

import pytest
import redis
from commands import (
    EXPERIMENT,
    HEAD,
    WORKER,
    Command,
    Place,
    complaint,
    record,
    run_here,
    setting,
    wait_until,
)

from cluster.clients import Keys
from cluster.redis_server import connect
from cluster.wire import unpack

SPHERE = {"num_generations": 4, "noise_size": 100_000, "seed": 5}
HANGING = """
import os, pathlib, signal
import gymnasium as gym

class Hanging(gym.Env):
    observation_space = gym.spaces.Box(-1, 1, (2,))
    action_space = gym.spaces.Box(-1, 1, (1,))

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        return self.np_random.random(2, "float32"), {}

    def step(self, action):
        folder = pathlib.Path(__file__).parent
        try:
            os.rename(folder / "hang", folder / f"hung-{os.getpid()}")  # one process can
        except FileNotFoundError:
            return self.np_random.random(2, "float32"), -float(action[0]) ** 2, True, False, {}
        signal.pause()

gym.register("Hanging-v0", Hanging)
"""
CARTPOLE = {
    **{"num_generations": 3, "pop_size": 8, "num_episodes": 2, "noise_size": 50_000, "seed": 6},
    **{"eval_episodes": 2, "final_episodes": 3},
}
ENDLESS = {"num_generations": 10_000_000, "noise_size": 100_000}
PICK_UP_SECONDS = 10  # two are promised on a machine that is not busy


class Site(Place):
    """A place with two workers, started before there was a server for them, and a server."""

    def __init__(self) -> None:
        super().__init__()
        (self.folder / "hanging.py").write_text(HANGING)
        self.env["PYTHONPATH"] = str(self.folder)
        self.workers = self.start(WORKER, "start-workers", "--num_workers=2")
        self.workers.says("waiting: no server")
        self.run_server = self.server()
        wait_until(lambda: "2 workers alive" in self.status(), self.workers)

    def status(self) -> str:
        return self.run(HEAD, "status")

    def redis(self, database: int = 0) -> redis.Redis:
        return redis.Redis.from_url(f"{self.url}&db={database}")

    def experiment(self, name: str, **config: object) -> Command:
        return self.start(EXPERIMENT, "with", name, *setting(**config))

    def posted_run(self) -> str | None:
        """The id of the run that workers are told to serve."""
        posted = self.redis().get(Keys().run)
        return unpack(posted)["run"] if posted else None


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with Site() as site:
        yield site


@pytest.fixture
def endless(site: Site) -> Iterator[Command]:
    """An experiment under way at the site; killed at the end if it still runs."""
    head = site.experiment("sphere", **ENDLESS)
    head.says("generation ", times=2)
    yield head
    head.process.kill()
    head.process.wait()


def digest(printed: str) -> str:
    return re.findall(r"^theta sha256 (\w+)$", printed, re.MULTILINE)[0]


def generation(site: Site) -> int:
    return int(re.findall(r"^generation (\d+),", site.status(), re.MULTILINE)[0])


def expected(name: str, config: dict[str, object]) -> str:
    """What any number of workers must find: what one process finds alone."""
    return run_here(name, evaluator="local", **config).info["theta sha256"]


def test_a070_a074_three_terminals_workers_first(site: Site) -> None:
    printed = site.experiment("sphere", **SPHERE).succeed()
    assert digest(printed) == expected("sphere", SPHERE)
    run = max(site.runs.glob("[0-9]*"), key=lambda folder: int(folder.name))
    fitness = record(run, "metrics")["current fitness"]["values"]
    assert fitness == sorted(fitness)
    kept = {name.decode() for name in site.redis().scan_iter("*")}
    assert {name.rpartition(":")[0] for name in kept} <= {Keys().worker("").rstrip(":")}
    wait_until(lambda: "no head at work\n2 workers alive, 0 of them" in site.status(), kept)
    assert site.workers.err.count("waiting: no server") == 1


def test_status_and_a_second_head(site: Site, endless: Command) -> None:
    wait_until(lambda: "2 workers alive, 2 of them in the run" in site.status(), endless)
    shown = site.status()
    assert site.posted_run() in shown
    assert f"process {endless.process.pid}" in shown
    assert generation(site) > 1
    assert float(re.findall(r"([\d,]+) steps/s", shown)[0].replace(",", "")) > 0

    runs = sorted(site.runs.iterdir())
    second = site.experiment("sphere", **SPHERE)
    assert second.end() == 1
    assert f"process {endless.process.pid}" in complaint(second.err)
    assert sorted(site.runs.iterdir()) == runs
    assert endless.process.poll() is None


def test_a071_workers_go_on_with_another_experiment(site: Site, endless: Command) -> None:
    """The head is killed in mid-generation; the next has another environment and network."""
    old = site.posted_run()
    endless.signal(signal.SIGKILL)
    endless.end()
    head = site.experiment("cartpole", **CARTPOLE)
    new = wait_until(lambda: (run := site.posted_run()) != old and run, head)
    serving = f"serves run {new}"
    wait_until(lambda: serving in site.workers.err, site.workers, PICK_UP_SECONDS)
    assert digest(head.succeed()) == expected("cartpole", CARTPOLE)
    assert "died" not in site.workers.err


def test_a072_flush_deletes_our_keys_alone(site: Site, endless: Command) -> None:
    foreign = {database: site.redis(database) for database in (0, 3)}
    for server in foreign.values():
        server.set("evolution", "not ours")
    endless.signal(signal.SIGKILL)
    endless.end()
    ours = {Keys().run, Keys().task(str(site.posted_run()))}

    deleted = site.run(HEAD, "flush").splitlines()
    assert {name.strip() for name in deleted[1:]} >= ours
    assert all(name.strip().startswith(Keys().prefix) for name in deleted[1:])
    assert deleted[0] == f"deleted {len(deleted) - 1} keys"
    assert not foreign[0].exists(*ours)
    for server in foreign.values():
        assert server.get("evolution") == b"not ours"
        server.delete("evolution")
    wait_until(lambda: "2 workers alive, 0 of them" in site.status(), site.workers)
    # they hold nothing of the run any more
    assert digest(site.experiment("sphere", **SPHERE).succeed()) == expected("sphere", SPHERE)


@pytest.mark.slow
def test_a072_flush_in_mid_run_costs_time_alone(site: Site, endless: Command) -> None:
    """A user's mistake: when nothing comes any more, the head posts everything again."""
    site.run(HEAD, "flush")
    endless.says("asking again for")
    number = generation(site)
    wait_until(lambda: generation(site) > number, endless)


@pytest.mark.slow
def test_a073_killed_worker_is_replaced(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """It dies with tickets in its hand; they are given out again, and nothing is lost."""
    config = {**SPHERE, "env_name": "hanging:Hanging-v0", "pop_size": 8, "eval_episodes": 2}
    (site.folder / "hang").touch()
    head = site.experiment("sphere", **config)
    (hung,) = wait_until(lambda: list(site.folder.glob("hung-*")), head)
    site.send(int(hung.name.removeprefix("hung-")), signal.SIGKILL)
    site.workers.says("died (exit code -9)")
    monkeypatch.syspath_prepend(site.folder)
    assert digest(head.succeed()) == expected("sphere", config)
    assert "asking again for" in head.err
    wait_until(lambda: "2 workers alive" in site.status(), site.workers)


def test_a074_a081_head_first_says_that_nobody_works() -> None:
    with Place() as place:
        place.server()
        head = place.start(EXPERIMENT, "with", "sphere", *setting(**SPHERE))
        head.says("no worker is here")
        place.start(WORKER, "start-workers")
        assert digest(head.succeed()) == expected("sphere", SPHERE)


def test_run_server_is_one_and_can_be_replaced() -> None:
    with Place() as place:
        first, url = place.server(), place.url
        workers = place.start(WORKER, "start-workers")
        wait_until(lambda: "1 workers alive" in place.run(HEAD, "status"), workers)
        second = place.start(HEAD, "run-server")
        assert second.end() == 1
        assert f"process {first.process.pid}" in complaint(second.err)
        assert place.url == url

        third = place.start(HEAD, "run-server", "--stop")
        third.says("server ready")
        assert first.end() == 0
        assert place.url != url
        assert "password" not in first.out + third.out + workers.err
        wait_until(lambda: "1 workers alive" in place.run(HEAD, "status"), workers)


def test_run_server_is_found_dead_or_alive() -> None:
    """What a killed one has written down is no server, whoever has its process id now."""
    with Place() as place:
        first = place.server()
        first.signal(signal.SIGKILL)
        first.end()
        wait_until(lambda: not list(place.temporary.glob("evo-*")), first)
        (note,) = place.runtime.glob("*/server.json")
        note.write_text(re.sub(r'"pid": \d+', f'"pid": {os.getpid()}', note.read_text()))
        status = place.start(HEAD, "status")
        assert status.end() == 1
        assert "no server" in complaint(status.err)
        place.server()
        assert "0 workers alive" in place.run(HEAD, "status")


def test_run_server_ends_when_its_server_dies() -> None:
    with Place() as place:
        server = place.server()
        client = connect(place.url)
        place.send(client.info("server")["process_id"], signal.SIGKILL)
        assert server.end() == 1
        assert "ended by itself" in complaint(server.err)
        assert not list(place.temporary.iterdir()) + list(place.runtime.iterdir())
