"""A run on several machines, all of it in our hands: head, servers, relays and workers."""

import gc
import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import redis
from hosts import Host
from processes import Child, DataServer

from cluster.clients import WorkerClient
from cluster.keys import Keys
from cluster.redis_server import ServerError, connect
from cluster.relay import Relay
from es.openai_es import OpenAIES
from evolution.evaluation import Evaluator, LocalEvaluator
from evolution.loop import Generation, History, evolve
from evolution.noise import NoiseTable
from evolution.problem import Problem, choose_problem
from evolution.redis_evaluator import RedisEvaluator
from evolution.seeding import Seeding
from evolution.worker import serve
from store.checkpoint import Checkpoints

KEYS = Keys()
POP_SIZE, EPISODES, EVAL_EPISODES = 16, 2, 3
ROWS = POP_SIZE + EVAL_EPISODES  # of a generation
CHECKPOINT_EVERY = 4  # generations
RETRY_SECONDS = 0.5  # of a worker whose server is away
ENDLESS = 10_000_000


def problem_named(name: str) -> Problem:
    """sphere, or a lander that falls for a while."""
    linear = {"hidden_sizes": []}
    if name == "sphere":
        return choose_problem(env_name="Sphere-v0", policy_kwargs=linear)
    return choose_problem(
        env_name="LunarLanderContinuous-v3",
        engine="gymnasium",
        policy_kwargs=linear,
        max_steps=60,
    )


class Task:
    """What is evolved: the same whoever evaluates it, and whatever happens to them."""

    def __init__(self, name: str, overlap: int, noise: NoiseTable) -> None:
        self.name, self.overlap, self.noise = name, overlap, noise
        self.problem = problem_named(name)
        self._thetas: list[str] = []
        self._alone = self._generations_alone()

    def strategy(self) -> OpenAIES:
        dim = self.problem.make_policy().num_params
        theta = np.random.default_rng(1).normal(0, 0.1, dim).astype(np.float32)
        return OpenAIES(theta, self.noise, pop_size=POP_SIZE, sigma=0.1, lr=0.02)

    def play(
        self, strategy: OpenAIES, evaluator: Evaluator, history: History
    ) -> Iterator[Generation]:
        return evolve(
            strategy,
            evaluator,
            generations=ENDLESS,
            episodes=EPISODES,
            eval_episodes=EVAL_EPISODES,
            seeding=Seeding(5),
            history=history,
            overlap=self.overlap,
        )

    def theta(self, generation: int) -> str:
        """What the parameters must be: what one process finds alone."""
        while len(self._thetas) <= generation:
            self._thetas.append(next(self._alone))
        return self._thetas[generation]

    def _generations_alone(self) -> Iterator[str]:
        with LocalEvaluator(self.problem, self.noise) as evaluator:
            for generation in self.play(self.strategy(), evaluator, History()):
                yield digest(generation)


def digest(generation: Generation) -> str:
    return hashlib.sha256(generation.theta.tobytes()).hexdigest()


class World:
    """All the processes of a run; a context manager."""

    def __init__(
        self, folder: Path, task: Task, workers: int, relays: int, hosts: Sequence[Host] = ()
    ) -> None:
        """A run of which nothing has begun.

        Args:
            folder: of short path; all files will be in it.
            relays: machines, each with a server, a relay and its share of the workers; none: the
                workers talk to the head's server.
            hosts: the first for the head, the others for the machines; none: all are here.
        """
        self.folder, self.task, self.hosts = folder, task, list(hosts)
        self.shape = f"{task.name}, overlap {task.overlap}, {workers} workers, {relays} relays"
        self._relay_count = relays
        home = self.hosts[0] if self.hosts else None
        self.server = self._server("redis", home)
        self.machines = [
            self._server(f"machine-redis-{i}", self._host(i), far=False) for i in range(relays)
        ]
        self.head = self._child("head", self._lead, home)
        self.relays = [
            self._child(f"relay-{i}", lambda i=i: self._relay(i), self._host(i))
            for i in range(relays)
        ]
        self.workers = [
            self._child(f"worker-{i}", lambda i=i: self._work(i), self._host(i))
            for i in range(workers)
        ]
        self.journal = Journal(folder / "journal")
        self._parent = os.getpid()

    @property
    def children(self) -> list[Child]:
        return [self.server, *self.machines, *self.relays, *self.workers, self.head]

    def _host(self, number: int) -> Host | None:
        """That of a machine, or of a worker."""
        others = self.hosts[1:]
        count = self._relay_count or len(others)
        return others[number % count % len(others)] if others else None

    def _server(self, name: str, host: Host | None, far: bool = True) -> DataServer:
        if host is None:
            return DataServer(name, self.folder)
        return DataServer(name, self.folder, host.address if far else None, host.enter)

    def _child(self, name: str, work: Any, host: Host | None) -> Child:
        if host is None:
            return Child(name, self.folder, work)
        return Child(name, self.folder, work, host.enter)

    @property
    def _url(self) -> str:
        """Of the head's server, as machines know it."""
        return self.server.tcp_url if self.hosts else self.server.url

    # --- what the processes do

    def _lead(self) -> None:
        gc.freeze()
        checkpoints, history = Checkpoints(self.folder / "checkpoints"), History()
        strategy = self.task.strategy()
        if checkpoints.numbers():
            _, state = checkpoints.newest()
            strategy.restore(state["strategy"])
            history.restore(state["history"])
        run_id = f"run-{os.getpid()}"
        self.journal.write({"resumed": history.next_generation, "run": run_id})
        server = connect_patiently(self.server.url)
        noise = self.task.noise
        problem = self.task.problem
        with RedisEvaluator(server, problem, noise, run_id=run_id, min_seconds=0.0) as evaluator:
            for generation in self.task.play(strategy, evaluator, history):
                self.journal.write(entry(generation))
                if history.next_generation % CHECKPOINT_EVERY == 0:
                    state = {"strategy": strategy.state(), "history": history.state()}
                    checkpoints.save(history.next_generation, state)
                if self.is_told("enough"):
                    evaluator.discard()
                    return

    def _relay(self, number: int) -> None:
        gc.freeze()
        above, below = (connect_patiently(url) for url in (self._url, self.machines[number].url))
        Relay(above, below, f"machine-{number}", KEYS).run(self._goes_on)

    def _work(self, number: int) -> None:
        gc.freeze()
        url = self.machines[number % len(self.machines)].url if self.machines else self._url
        name = f"worker-{number}-{os.getpid()}"
        while self._goes_on():
            try:
                serve(WorkerClient(connect(url), name, KEYS), self._goes_on)
            except (redis.RedisError, ServerError):
                time.sleep(RETRY_SECONDS)

    def _goes_on(self) -> bool:
        return not self.is_told("over") and os.getppid() == self._parent

    # --- what is said to them

    def tell(self, word: str) -> None:
        """Say ``enough`` to the head, or ``over`` to all others."""
        (self.folder / word).touch()

    def is_told(self, word: str) -> bool:
        return (self.folder / word).exists()

    def __enter__(self) -> "World":
        self.task.theta(0)  # what that imports, the processes have
        for server in (self.server, *self.machines):
            server.start()
        for server in (self.server, *self.machines):
            server.wait_until_up()
        for child in (*self.relays, *self.workers, self.head):
            child.start()
        return self

    def __exit__(self, *_: object) -> None:
        for child in reversed(self.children):
            child.end()


def connect_patiently(url: str) -> redis.Redis:
    """A server may be dead at the moment."""
    while True:
        try:
            return connect(url)
        except ServerError:
            time.sleep(0.1)


def entry(generation: Generation) -> dict[str, Any]:
    """What is noted of a generation."""
    results = list(generation.results())
    return {
        "generation": generation.number,
        "theta": digest(generation),
        "rows": len(generation.population.fitness) + len(generation.current.fitness),
        "valid": [[r.generation, r.kind, r.candidate] for r in results if r.valid],
        "rejected": generation.metrics["messages rejected"],
        "skipped": generation.metrics["results skipped"],
    }


class Journal:
    """A file of what the head has done, which outlives it; read while it grows."""

    def __init__(self, path: Path) -> None:
        self._path, self._read = path, 0
        self.entries: list[dict[str, Any]] = []

    def write(self, said: dict[str, Any]) -> None:
        with open(self._path, "ab", buffering=0) as file:
            file.write(json.dumps({**said, "at": time.monotonic()}).encode() + b"\n")

    def read(self) -> None:
        """Take in what is new."""
        if not self._path.exists():
            return
        with open(self._path, "rb") as file:
            file.seek(self._read)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._read += len(whole)
        self.entries += [json.loads(line) for line in whole.splitlines()]

    @property
    def generations(self) -> list[dict[str, Any]]:
        """All that ended, also those that a resumed head did again."""
        return [each for each in self.entries if "theta" in each]

    def lasting(self) -> list[dict[str, Any]]:
        """What a recorder keeps: a head that goes on replaces what it does again.

        Raises:
            AssertionError: a gap, or a repetition that nothing explains.
        """
        kept: list[dict[str, Any]] = []
        for each in self.entries:
            if "resumed" in each:
                assert each["resumed"] <= len(kept), f"resumed after a gap: {each}"
                del kept[each["resumed"] :]
            else:
                assert each["generation"] == len(kept), f"{each['generation']} is not the next"
                kept.append(each)
        return kept


def ledger(entries: Sequence[dict[str, Any]]) -> Counter[tuple[int, str, int]]:
    """How often each evaluation was counted."""
    return Counter((g, kind, number) for each in entries for g, kind, number in each["valid"])
