"""A relay between the head and the workers of a machine changes nothing but the traffic."""

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest
import redis
from conftest import FORK, Crew, WaitFor
from test_evaluators import PROBLEMS, Stage, check

from cluster import relay as relay_module
from cluster.clients import HeadClient, WorkerClient
from cluster.keys import Keys, flush, workers_alive
from cluster.redis_server import Server, connect, start_server
from cluster.relay import Relay
from cluster.tickets import cut
from evolution import redis_evaluator
from evolution.evaluation import Part
from evolution.exchange import lookout
from evolution.noise import NoiseTable

KEYS = Keys()
LOOK_SECONDS = lookout.LOOK_SECONDS  # in earnest


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look around often."""
    monkeypatch.setattr(redis_evaluator, "TICK", 0.02)
    monkeypatch.setattr(lookout, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(lookout, "COPY_SECONDS", 1e6)


class Machine:
    """A server with a relay and workers, as on a machine of its own."""

    def __init__(self, above: str, name: str, wait_for: WaitFor) -> None:
        self.above, self.name, self._wait_for = above, name, wait_for
        self.server = start_server()
        self.db = connect(self.server.url)
        self.crew = Crew(self.server.url, wait_for, name)
        self.relay = FORK.Process()

    def start_relay(self) -> None:
        """Start a relay, or another one, and wait until the head's server has heard of it."""
        above = connect(self.above)
        above.delete(KEYS.worker(self.name))
        parent = os.getpid()

        def work() -> None:
            relay = Relay(connect(self.above), connect(self.server.url), self.name, KEYS)
            relay.run(lambda: os.getppid() == parent)

        self.relay = FORK.Process(target=work)
        self.relay.start()
        self._wait_for(lambda: above.exists(KEYS.worker(self.name)))

    def kill(self) -> None:
        """End relay and workers."""
        self.crew.end()
        if self.relay.pid:
            self.relay.kill()
            self.relay.join()


@pytest.fixture
def machines(
    server: Server, crew: Crew, wait_for: WaitFor
) -> Iterator[Callable[[int, int], list[Machine]]]:
    """Make machines with workers."""
    made: list[Machine] = []

    def make(count: int, workers: int) -> list[Machine]:
        for _ in range(count):
            machine = Machine(server.url, f"machine-{len(made)}", wait_for)
            made.append(machine)
            machine.start_relay()
            machine.crew.start(workers)
        return made

    yield make
    crew.end()
    for machine in made:
        machine.kill()
    for machine in made:  # not before: what was forked holds the servers
        machine.server.close()


@pytest.fixture
def stage(
    crew: Crew,
    noise: NoiseTable,
    make_task: Callable[[int, int, NoiseTable], list[Part]],
) -> Stage:
    return Stage(crew, noise, make_task)


@pytest.fixture
def master(server: Server) -> redis.Redis:
    return connect(server.url)


def post_tickets(master: redis.Redis) -> None:
    """A run with eight tickets, for nobody to work at."""
    head = HeadClient(master, "run", KEYS)
    head.lead()
    head.post_run({})
    head.add_task(0, {"share": 2})
    head.post(0, cut("run", 0, range(8), 1))


@pytest.mark.parametrize("relays", [1, 2])
def test_a078_workers_behind_relays_give_the_same_bits(
    relays: int, stage: Stage, machines: Callable[[int, int], Sequence[Machine]]
) -> None:
    machines(relays, 2)
    stage.crew.start(relays - 1)  # and one that talks to the head's server itself
    problem = PROBLEMS["sphere"]()
    tasks = [stage.reference(problem, seed) for seed in range(4)]
    seen = set[int]()
    with stage.head(problem) as evaluator:
        for _ in range(20):
            for task, right in tasks:
                got = evaluator.evaluate(task)
                check(got, right)
                seen |= set(np.concatenate([part.worker for part in got]).tolist())
                assert evaluator.metrics()["messages rejected"] == 0
    assert len(seen) > relays


def test_a078_relays_behind_a_relay_give_the_same_bits(
    stage: Stage, machines: Callable[[int, int], list[Machine]], wait_for: WaitFor
) -> None:
    """What serves a machine serves a room full of machines as well."""
    (room,) = machines(1, 0)
    inner = Machine(room.server.url, "inner", wait_for)
    try:
        inner.start_relay()
        inner.crew.start(2)
        problem = PROBLEMS["sphere"]()
        tasks = [stage.reference(problem, seed) for seed in range(4)]
        with stage.head(problem) as evaluator:
            for _ in range(10):
                for task, right in tasks:
                    check(evaluator.evaluate(task), right)
                    assert evaluator.metrics()["messages rejected"] == 0
    finally:
        inner.kill()
        inner.server.close()


def test_run_and_task_are_fetched_once_per_machine(
    stage: Stage, machines: Callable[[int, int], Sequence[Machine]], master: redis.Redis
) -> None:
    """Eight workers behind one relay, and a theta of 400 kB."""
    (machine,) = machines(1, 8)
    size = 100_000
    head = HeadClient(master, "run", KEYS)
    head.lead()
    head.post_run({"problem": "none of a worker's"})
    before = _sent(master)
    head.add_task(0, {"theta": np.zeros(size, np.float32), "share": 4})
    head.post(0, cut("run", 0, range(64), 1))
    below = connect(machine.server.url)
    machine.crew.wait(lambda: below.exists(KEYS.task("run", 0)))
    machine.crew.wait(lambda: not below.llen(KEYS.tickets) or below.llen(KEYS.tickets) > 8)
    assert 4 * size <= _sent(master) - before < 5 * size


def test_what_several_tasks_need_is_fetched_once_per_machine(
    machines: Callable[[int, int], Sequence[Machine]], master: redis.Redis, wait_for: WaitFor
) -> None:
    """And is gone when no task needs it, also after a relay that was killed."""
    (machine,) = machines(1, 0)
    head, values = HeadClient(master, "run", KEYS), np.zeros(100_000, np.float32)
    head.lead()
    head.post_run({"problem": "none of a worker's"})
    worker, below = WorkerClient(machine.db, "w", KEYS), machine.db
    before = _sent(master)

    def post(number: int, *names: str) -> None:
        head.add_task(number, {"share": 4}, {name: lambda: values for name in names})
        head.post(number, cut("run", number, range(1), 1))
        wait_for(lambda: below.llen(KEYS.tickets))
        below.delete(KEYS.tickets)
        head.end_task(number)
        wait_for(lambda: not below.exists(KEYS.task("run", number)))

    for number in range(3):
        post(number, "long")
    assert 4 * len(values) <= _sent(master) - before < 5 * len(values)
    assert worker.run_spec("run") is not None
    assert np.array_equal(worker.supply("run", "long"), values)
    post(3, "other")
    assert below.keys(KEYS.supply("run")) == [KEYS.supply("run", "other").encode()]
    assert machine.relay.pid is not None
    os.kill(machine.relay.pid, signal.SIGKILL)
    machine.relay.join()
    machine.start_relay()
    wait_for(lambda: not below.keys(KEYS.supply("run")))


def _sent(db: redis.Redis) -> int:
    return int(db.info("stats")["total_net_output_bytes"])


def test_what_a_machine_has_taken_is_claimed_before_a_head_has_looked_twice(
    machines: Callable[[int, int], Sequence[Machine]], master: redis.Redis, wait_for: WaitFor
) -> None:
    (machine,) = machines(1, 0)
    head = HeadClient(master, "run", KEYS)
    head.lead()
    head.post_run({})
    delays = []
    for number in range(10):
        head.add_task(number, {"share": 2})
        head.post(number, cut("run", number, range(3), 3))
        wait_for(lambda: not master.llen(KEYS.tickets))
        started, claimed = time.monotonic(), set[int]()
        while claimed != {0, 1, 2}:
            (said,) = workers_alive(master, KEYS)
            claimed = {first for task, first, count in said["holds"] if task == number}
        delays.append(time.monotonic() - started)
        machine.db.delete(KEYS.tickets)
        head.end_task(number)
    assert sorted(delays)[-2] < LOOK_SECONDS


def test_a076_a_lone_result_is_there_within_50_ms(
    machines: Callable[[int, int], Sequence[Machine]], master: redis.Redis
) -> None:
    (machine,) = machines(1, 0)
    head = HeadClient(master, "run", KEYS)
    head.lead()
    head.post_run({})
    head.add_task(0, {"share": 2})
    head.post(0, cut("run", 0, range(200), 1))
    worker = WorkerClient(machine.db, "w", KEYS)
    worker.say("")
    first = worker.take(5)
    assert first is not None
    assert worker.run_spec("run") is not None
    delays = []
    for number in range(50):
        started = time.perf_counter()
        worker.push("run", {"number": number})
        (data,) = head.results(5)
        delays.append(time.perf_counter() - started)
        assert head.read(data)["number"] == number
    assert np.median(delays) < 0.05


def test_a076_results_go_up_many_at_a_time(
    machines: Callable[[int, int], Sequence[Machine]], master: redis.Redis
) -> None:
    (machine,) = machines(1, 0)
    head = HeadClient(master, "run", KEYS)
    head.lead()
    head.post_run({})
    head.add_task(0, {"share": 2})
    head.post(0, cut("run", 0, range(8), 1))
    worker = WorkerClient(machine.db, "w", KEYS)
    assert worker.take(5) is not None
    assert worker.run_spec("run") is not None
    before = master.info("commandstats")["cmdstat_rpush"]["calls"]
    for number in range(2000):
        worker.push("run", {"number": number})
    got: list[int] = []
    while len(got) < 2000:
        got += [head.read(data)["number"] for data in head.results(5)]
    assert got == list(range(2000))
    assert master.info("commandstats")["cmdstat_rpush"]["calls"] - before < 400


def test_a072_a_flush_above_empties_the_machine_within_two_seconds(
    machines: Callable[[int, int], Sequence[Machine]], master: redis.Redis, wait_for: WaitFor
) -> None:
    (machine,) = machines(1, 0)
    post_tickets(master)
    wait_for(lambda: machine.db.llen(KEYS.tickets))
    flush(master, KEYS)
    started = time.monotonic()
    wait_for(lambda: not machine.db.keys())
    assert time.monotonic() - started < 2


def test_a_run_that_was_over_when_the_next_relay_came_leaves_nothing(
    machines: Callable[[int, int], Sequence[Machine]], master: redis.Redis, wait_for: WaitFor
) -> None:
    (machine,) = machines(1, 0)
    post_tickets(master)
    wait_for(lambda: machine.db.llen(KEYS.tickets))
    assert machine.relay.pid is not None
    os.kill(machine.relay.pid, signal.SIGKILL)
    machine.relay.join()
    flush(master, KEYS)
    assert machine.db.exists(KEYS.run, KEYS.tickets, KEYS.task("run", 0)) == 3
    machine.start_relay()
    wait_for(lambda: not machine.db.keys())


def test_what_could_not_go_up_does_not_stay_for_ever(
    machines: Callable[[int, int], Sequence[Machine]], master: redis.Redis, wait_for: WaitFor
) -> None:
    (machine,) = machines(1, 0)
    below = machine.db
    post_tickets(master)
    wait_for(lambda: below.llen(KEYS.tickets))
    master.execute_command("ACL", "SETUSER", "default", "-rpush")
    below.rpush(KEYS.results("run"), b"an answer")
    wait_for(lambda: int(below.ttl(KEYS.results("run"))) > 0)
    master.execute_command("ACL", "SETUSER", "default", "+rpush")
    wait_for(lambda: master.llen(KEYS.results("run")))


def test_a073_a_killed_relay_is_replaced(
    stage: Stage, machines: Callable[[int, int], Sequence[Machine]]
) -> None:
    (machine,) = machines(1, 2)
    problem = PROBLEMS["sphere"]()
    tasks = [stage.reference(problem, seed) for seed in range(6)]
    with stage.head(problem) as evaluator:
        for number, (task, right) in enumerate(tasks):
            if number % 2:
                assert machine.relay.pid is not None
                os.kill(machine.relay.pid, signal.SIGKILL)
                machine.relay.join()
                machine.start_relay()
            check(evaluator.evaluate(task), right)


def test_a073_a_machines_server_that_has_lost_everything_is_filled_again(
    stage: Stage, machines: Callable[[int, int], Sequence[Machine]]
) -> None:
    (machine,) = machines(1, 1)
    problem = PROBLEMS["sphere"]()
    tasks = [stage.reference(problem, seed) for seed in range(4)]
    with stage.head(problem) as evaluator:
        for task, right in tasks:
            check(evaluator.evaluate(task), right)
            flush(machine.db, KEYS)
            machine.crew.wait(lambda: [w["doing"] for w in workers_alive(machine.db, KEYS)] == [""])


def test_a071_a_new_run_reaches_workers_behind_a_relay(
    stage: Stage, machines: Callable[[int, int], Sequence[Machine]]
) -> None:
    """With another task, policy and noise; the relay must not go on with the first."""
    machines(1, 1)
    for name in ("sphere", "recurrent", "sphere"):
        problem = PROBLEMS[name]()
        task, right = stage.reference(problem)
        with stage.head(problem, f"run-{name}-{time.monotonic_ns()}") as evaluator:
            check(evaluator.evaluate(task), right)


def test_a_relay_waits_for_servers_that_are_away(
    machines: Callable[[int, int], Sequence[Machine]],
    stage: Stage,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(relay_module, "RETRY_SECONDS", 0.02)
    (machine,) = machines(1, 1)
    above = connect(machine.above)
    pid = int(above.info("server")["process_id"])
    os.kill(pid, signal.SIGSTOP)
    os.kill(pid, signal.SIGCONT)
    problem = PROBLEMS["sphere"]()
    task, right = stage.reference(problem)
    with stage.head(problem) as evaluator:
        above.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        check(evaluator.evaluate(task), right)
    assert machine.relay.is_alive()
    assert [each["name"] for each in workers_alive(above, KEYS)] == ["machine-0"]
