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

from cluster.keys import Keys, head_status, workers_alive
from cluster.redis_server import connect
from cluster.wire import unpack

pytestmark = pytest.mark.slow  # whole programs, which take seconds to start
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
IDLE = "2 workers alive, 0 of them in the run"
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
        self.has_workers(2)
        self._endless: Command | None = None

    def experiment(self, name: str, **config: object) -> Command:
        return self.start(EXPERIMENT, "with", name, *setting(**config))

    def endless(self) -> Command:
        """An experiment under way, which goes on until it is killed."""
        if self._endless is None:
            self._endless = self.experiment("sphere", **ENDLESS)
            self._endless.says("generation 1/")
        return self._endless

    def posted_tasks(self) -> set[str]:
        """The keys of the tasks that the run has out; none between two generations."""
        tasks = Keys().task(str(self.posted_run()))
        return {name.decode() for name in connect(self.url).scan_iter(tasks)}

    def stop_with_task(self) -> bool:
        """Stop the endless experiment; if that hits it between two tasks, let it go on."""
        head = self.endless()
        head.send(signal.SIGSTOP)
        os.waitpid(head.process.pid, os.WUNTRACED)  # it may still run when the signal was sent
        if not self.posted_tasks():
            head.send(signal.SIGCONT)
            return False
        return True

    def kill_endless(self) -> None:
        """Be without one, as if it had never tidied up."""
        if self._endless is not None:
            self._endless.send(signal.SIGKILL)
            self._endless.end()
            self._endless = None

    def posted_run(self) -> str | None:
        """The id of the run that workers are told to serve."""
        posted = connect(self.url).get(Keys().run)
        return unpack(posted)["run"] if posted else None

    def generation(self) -> int:
        """How far the head says that it is; -1 while it does not."""
        status = head_status(connect(self.url), Keys())
        return status["generation"] if status else -1


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with Site() as site:
        yield site


def digest(printed: str) -> str:
    return re.findall(r"^theta sha256 (\w+)$", printed, re.MULTILINE)[0]


def expected(name: str, config: dict[str, object]) -> str:
    """What any number of workers must find: what one process finds alone."""
    return run_here(name, evaluator="local", **config).info["theta sha256"]


def test_a070_a074_three_terminals_workers_first(site: Site) -> None:
    site.kill_endless()
    printed = site.experiment("sphere", **SPHERE).succeed()
    assert digest(printed) == expected("sphere", SPHERE)
    run = max(site.runs.glob("[0-9]*"), key=lambda folder: int(folder.name))
    fitness = record(run, "metrics")["current fitness"]["values"]
    assert fitness == sorted(fitness)
    server = connect(site.url)
    wait_until(lambda: not any(w["doing"] for w in workers_alive(server, Keys())), site.workers)
    kept = [name for name in server.scan_iter("*") if b":worker:" not in name]
    assert kept == []
    assert site.run(HEAD, "status").split("\n")[:2] == ["no head at work", IDLE]
    assert site.workers.err.count("waiting: no server") == 1


def test_status_of_an_experiment_under_way(site: Site) -> None:
    head, server = site.endless(), connect(site.url)
    wait_until(lambda: all(w["doing"] for w in workers_alive(server, Keys())), site.workers)
    wait_until(lambda: site.generation() > 1, head)
    shown = site.run(HEAD, "status")
    assert site.posted_run() in shown
    assert f"process {head.process.pid}" in shown
    (number, rate) = re.findall(r"^generation (\d+), ([\d,]+) steps/s$", shown, re.MULTILINE)[0]
    assert int(number) > 1
    assert int(rate.replace(",", "")) > 0
    assert "2 workers alive, 2 of them in the run" in shown


def test_a007_second_head_is_refused(site: Site) -> None:
    first = site.endless()
    runs = sorted(site.runs.iterdir())
    second = site.experiment("sphere", **SPHERE)
    assert second.end() == 1
    assert f"process {first.process.pid}" in complaint(second.err)
    assert sorted(site.runs.iterdir()) == runs
    assert first.process.poll() is None


def test_a072_flush_in_mid_run_costs_time_alone(site: Site) -> None:
    """A user's mistake: should nothing come any more, the head posts everything again."""
    head, number = site.endless(), site.generation()
    site.run(HEAD, "flush")
    wait_until(lambda: site.generation() > number + 1, head)
    assert head.process.poll() is None


def test_a071_workers_go_on_with_another_experiment(site: Site) -> None:
    """The head is killed in mid-generation; the next has another environment and network."""
    site.endless()
    old = site.posted_run()
    site.kill_endless()
    head = site.experiment("cartpole", **CARTPOLE)
    new = wait_until(lambda: (run := site.posted_run()) != old and run, head)
    serving = f"serves run {new}"
    wait_until(lambda: serving in site.workers.err, site.workers, PICK_UP_SECONDS)
    assert digest(head.succeed()) == expected("cartpole", CARTPOLE)
    assert "died" not in site.workers.err


def test_a072_flush_deletes_our_keys_alone(site: Site) -> None:
    site.endless()
    foreign = {number: redis.Redis.from_url(f"{site.url}&db={number}") for number in (0, 3)}
    for server in foreign.values():
        server.set("evolution", "not ours")
    wait_until(site.stop_with_task, site.endless())
    site.kill_endless()
    ours = {Keys().run, *site.posted_tasks()}
    assert len(ours) == 2

    first, *names = site.run(HEAD, "flush").splitlines()
    assert first == f"deleted {len(names)} keys"
    assert {name.strip() for name in names} >= ours
    assert all(name.strip().startswith(Keys().prefix) for name in names)
    assert not foreign[0].exists(*ours)
    for server in foreign.values():
        assert server.get("evolution") == b"not ours"
        server.delete("evolution")
    # the workers hold nothing of the run any more, and wait
    wait_until(lambda: [w["doing"] for w in workers_alive(foreign[0], Keys())] == ["", ""], site)


def test_a073_killed_worker_is_replaced(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """It dies with tickets in its hand; they are given out again, and nothing is lost."""
    config = {**SPHERE, "env_name": "hanging:Hanging-v0", "pop_size": 8, "eval_episodes": 2}
    site.kill_endless()
    (site.folder / "hang").touch()
    head = site.experiment("sphere", **config)
    (hung,) = wait_until(lambda: list(site.folder.glob("hung-*")), head)
    site.send(int(hung.name.removeprefix("hung-")), signal.SIGKILL)
    site.workers.says("died (exit code -9)")
    monkeypatch.syspath_prepend(site.folder)
    assert digest(head.succeed()) == expected("sphere", config)
    assert "asking idle workers too" in head.err or "that were lost" in head.err
    site.has_workers(2)


def test_a074_a081_head_first_says_that_nobody_works() -> None:
    with Place() as place:
        place.server()
        head = place.start(EXPERIMENT, "with", "sphere", *setting(**SPHERE))
        head.says("no worker is here")
        place.start(WORKER, "start-workers", "--preload=")
        assert digest(head.succeed()) == expected("sphere", SPHERE)


def test_run_server_is_one_and_can_be_replaced() -> None:
    with Place() as place:
        first, url = place.server(), place.url
        workers = place.start(WORKER, "start-workers", "--preload=")
        place.has_workers(1)
        second = place.start(HEAD, "run-server")
        assert second.end() == 1
        assert f"process {first.process.pid}" in complaint(second.err)
        assert place.url == url

        third = place.start(HEAD, "run-server", "--stop")
        third.says("server ready")
        assert first.end() == 0
        assert place.url != url
        assert "password" not in first.out + third.out + workers.err
        place.has_workers(1)


def test_run_server_is_found_dead_or_alive() -> None:
    """What a killed one has written down is no server, whoever has its process id now."""
    with Place() as place:
        first = place.server()
        first.send(signal.SIGKILL)
        first.end()
        wait_until(lambda: not list(place.temporary.glob("evo-*")), first)
        (note,) = place.runtime.glob("*/server.json")
        note.write_text(re.sub(r'"pid": \d+', f'"pid": {os.getpid()}', note.read_text()))
        status = place.start(HEAD, "status")
        assert status.end() == 1
        assert "no server" in complaint(status.err)
        place.server()
        assert "0 workers alive" in place.run(HEAD, "status")


def test_a073_run_server_starts_its_server_again() -> None:
    with Place() as place:
        server, url = place.server(), place.url
        place.start(WORKER, "start-workers", "--preload=")
        place.has_workers(1)
        place.send(connect(url).info("server")["process_id"], signal.SIGKILL)
        server.says("was started again")
        assert place.url == url
        place.has_workers(1)
