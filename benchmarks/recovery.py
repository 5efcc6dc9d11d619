"""How long a run stands still when something is killed, and how long until all is as before.

    python benchmarks/recovery.py [--quick] [--json FILE]

A head in this process evaluates the sphere without end, at a server of its own, on two machines:
`es/worker.py workers`, each with a relay, a server and two workers. Again and again something is
killed in mid-task. *Stall* is the time from there to the end of the task that was on its way;
*whole* the time until both machines say again that two workers are able. All results are compared
with those of one process.
"""

import contextlib
import logging
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import redis
from common import ROOT, machine, parser, show, write_json

from cluster.keys import Keys, workers_alive
from cluster.redis_server import Server, ServerError, connect, start_server
from cluster.server_config import Listening
from evolution.evaluation import LocalEvaluator, Part
from evolution.noise import NoiseTable
from evolution.population import Mirrored
from evolution.problem import Problem, choose_problem
from evolution.redis_evaluator import RedisEvaluator

WANTED = {  # seconds, p95
    **{"worker": 5, "relay": 5, "machine's server": 8, "head's server": 8},
    **{"worker, stopped": 5, "relay, stopped": 5},
}
PASSWORD = "of this benchmark alone"
MACHINES, WORKERS = 2, 2
STOPPED_SECONDS = 2.0
DEADLINE = 60.0
KEYS = Keys()


def main() -> None:
    chosen = parser(__doc__).parse_args()
    logging.disable(logging.WARNING)  # what the head says of its losses
    print(machine())
    kills = 3 if chosen.quick else 20
    problem = choose_problem(env_name="Sphere-v0", policy_kwargs={"hidden_sizes": []})
    rng = random.Random(1)
    with contextlib.ExitStack() as stack:
        noise = stack.enter_context(NoiseTable(100_000, 1))
        site = Site(stack)
        head = Head(site.server.url, problem, noise)
        stack.callback(head.end)
        site.wait_until_whole()
        rows = [measure(site, head, what, kills, rng) for what in WANTED]
    show(f"seconds to recover, {kills} kills each, {head.tasks} tasks, all as in one process", rows)
    write_json(chosen.json, rows)


def measure(site: "Site", head: "Head", what: str, kills: int, rng: random.Random) -> dict:
    stalls, wholes = [], []
    for _ in range(kills):
        site.wait_until_whole()
        time.sleep(rng.uniform(0.2, 1.0))  # anywhere in a task, and in anybody's heartbeat
        stall, whole = recover(site, head, what, rng)
        stalls.append(stall)
        wholes.append(whole)
    row = {"killed": what}
    for name, seconds in (("stall", stalls), ("whole", wholes)):
        row |= {f"{name} p50": statistics.median(seconds), f"{name} p95": _p95(seconds)}
    return row | {"wanted p95": WANTED[what]}


def recover(site: "Site", head: "Head", what: str, rng: random.Random) -> tuple[float, float]:
    """Kill something; the seconds until the task has ended, and until all are back."""
    pid = site.victim(what, rng)
    under_way, killed = head.tasks, time.monotonic()
    waker = threading.Timer(STOPPED_SECONDS, os.kill, (pid, signal.SIGCONT))
    if stopped := what.endswith("stopped"):
        os.kill(pid, signal.SIGSTOP)
        waker.start()
    else:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: head.tasks > under_way)
    stall = time.monotonic() - killed
    wait_until(lambda: site.is_whole(without=0 if stopped else pid))
    whole = time.monotonic() - killed
    if stopped:
        waker.join()
    return stall, whole


class Head(threading.Thread):
    """Evaluates the same task again and again."""

    def __init__(self, url: str, problem: Problem, noise: NoiseTable) -> None:
        super().__init__()
        self._url, self._problem, self._noise = url, problem, noise
        self._over = threading.Event()
        self.tasks = 0
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        rng = np.random.default_rng(1)
        dim = self._problem.make_policy().num_params
        population = Mirrored(np.zeros(dim, np.float32), 0.1, self._noise.sample(rng, 500, dim))
        task = [Part(population, rng.integers(0, 2**30, (500, 5)))]
        with LocalEvaluator(self._problem, self._noise) as local:
            (right,) = local.evaluate(task)
        server = connect(self._url)
        with RedisEvaluator(server, self._problem, self._noise, run_id="bench") as evaluator:
            while not self._over.is_set():
                (got,) = evaluator.evaluate(task)
                if got.fitness.tobytes() != right.fitness.tobytes():
                    raise SystemExit("the result is another one")
                self.tasks += 1

    def end(self) -> None:
        self._over.set()
        self.join()


class Site:
    """The head's server and the machines, all processes of ours."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        listening = Listening(port=port, worker_password=PASSWORD)
        self.server: Server = stack.enter_context(start_server(listening))
        self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/tmp")))
        self._machines = [stack.enter_context(self._machine(port)) for _ in range(MACHINES)]

    @contextlib.contextmanager
    def _machine(self, port: int) -> Iterator[int]:
        place = ["--master_host=127.0.0.1", f"--master_port={port}", f"--num_workers={WORKERS}"]
        log = (self._folder / "log").open("a")
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "es" / "worker.py"), "workers", *place, "--preload="],
            env={**os.environ, "EVO_REDIS_PASSWORD": PASSWORD, "TMPDIR": str(self._folder)},
            stderr=log,
        )
        try:
            yield process.pid
        finally:
            process.terminate()
            process.wait()
            log.close()

    def is_whole(self, without: int = 0) -> bool:
        """All workers are able, and nobody is said to be the process ``without``."""
        try:
            said = workers_alive(connect(self.server.url), KEYS)
            if sum(each["workers"] for each in said) != MACHINES * WORKERS:
                return False
            return without not in {each["pid"] for each in [*said, *self._workers()]}
        except (redis.RedisError, ServerError):
            return False

    def wait_until_whole(self) -> None:
        wait_until(self.is_whole)

    def victim(self, what: str, rng: random.Random) -> int:
        """The process to kill."""
        if what == "head's server":
            return int(connect(self.server.url).info("server")["process_id"])
        if what == "machine's server":
            server = rng.choice(self._servers())
            return int(server.info("server")["process_id"])
        if what.startswith("relay"):
            return rng.choice(workers_alive(connect(self.server.url), KEYS))["pid"]
        return rng.choice(self._workers())["pid"]

    def _workers(self) -> list[dict]:
        return [each for server in self._servers() for each in workers_alive(server, KEYS)]

    def _servers(self) -> list[redis.Redis]:
        found = []
        for config in sorted(self._folder.glob("evo-redis-*/config")):
            words = dict(line.split(" ", 1) for line in config.read_text().splitlines())
            path = words["unixsocket"].strip('"')
            found.append(connect(f"unix://{path}?password={words['requirepass']}"))
        return found


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"not recovered after {DEADLINE:.0f} s")
        time.sleep(0.01)


def _p95(seconds: list[float]) -> float:
    return float(np.quantile(seconds, 0.95))


if __name__ == "__main__":
    main()
