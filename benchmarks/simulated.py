"""Workers that only pretend to work: thousands of them in a few processes, alone or behind relays.

Towards the head's server they behave as `evolution.worker` and `cluster.relay` do: they take their
share of tickets, fetch each task once per machine, say again and again what they hold, and push
signed answers, a machine those of its workers merged. How long an episode lasts, and what it
returns, is drawn from a list of lengths that were measured on LunarLanderContinuous-v3.
"""

import contextlib
import heapq
import itertools
import json
import multiprocessing
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import redis

from cluster.clients import WorkerClient
from cluster.keys import BEAT_SECONDS, WORKER_SECONDS, Keys, who, workers_alive
from cluster.merging import merged
from cluster.redis_server import connect
from cluster.relay import SAY_SECONDS, gather_seconds
from cluster.tickets import Ticket, cut, parse_ticket
from cluster.wire import pack
from evolution.answers import Layout
from evolution.exchange.messages import Rows, task_parts

FORK = multiprocessing.get_context("fork")
PROCESSES = 2  # that play all of them

# Steps of candidates of the config `lander`, two episodes each: 64 quantiles of many candidates, of
# generations 0 to 4 (three seeds) and of generations 40 to 69 (seed 1)
UNTRAINED, IN_TRAINING = "untrained", "in training"
_LENGTHS_UNTRAINED = """
    106, 111, 114, 115, 116, 118, 119, 120, 122, 124, 126, 126, 128, 130, 131, 132, 133, 134,
    136, 137, 137, 139, 140, 141, 142, 143, 144, 144, 145, 146, 147, 147, 148, 149, 150, 151,
    152, 153, 155, 156, 157, 160, 161, 164, 165, 166, 168, 170, 172, 175, 178, 182, 187, 191,
    198, 209, 220, 227, 239, 256, 277, 308, 355, 462
"""
_LENGTHS_IN_TRAINING = """
    70, 87, 101, 113, 118, 125, 131, 135, 141, 147, 151, 156, 161, 166, 171, 178, 185, 191,
    198, 204, 209, 214, 218, 223, 229, 234, 239, 245, 249, 255, 261, 267, 271, 276, 283, 291,
    296, 305, 312, 318, 327, 337, 350, 358, 371, 380, 389, 402, 412, 428, 444, 465, 489, 519,
    547, 577, 632, 727, 827, 1000, 1000, 1000, 1000, 1000
"""
LENGTHS = {
    UNTRAINED: np.array(_LENGTHS_UNTRAINED.replace(",", " ").split(), np.int32),
    IN_TRAINING: np.array(_LENGTHS_IN_TRAINING.replace(",", " ").split(), np.int32),
}


@dataclass(frozen=True)
class Crowd:
    """How many there are, and how long they take."""

    machines: int
    workers: int = 1  # of each machine; 1: they talk to the head's server themselves
    seconds_per_step: float = 0.0  # 0: they answer at once
    lengths: str = IN_TRAINING


@contextlib.contextmanager
def simulated(url: str, crowd: Crowd) -> Iterator[None]:
    """Have them at work at a server."""
    share, more = divmod(crowd.machines, PROCESSES)
    counts = [share + (number < more) for number in range(PROCESSES)]
    firsts = itertools.accumulate(counts, initial=0)
    plans = [
        (url, crowd, range(a, a + n), os.getpid())
        for a, n in zip(firsts, counts, strict=False)
        if n
    ]
    processes = [FORK.Process(target=_play, args=plan) for plan in plans]
    for process in processes:
        process.start()
    try:
        with contextlib.closing(connect(url)) as server:
            while len(workers_alive(server, Keys())) < crowd.machines:
                time.sleep(0.01)
        yield
    finally:
        for process in processes:
            process.kill()
            process.join()


def _play(url: str, crowd: Crowd, numbers: range, parent: int) -> None:
    players = _Players(connect(url), crowd, numbers)
    while os.getppid() == parent:
        players.go_on()


@dataclass
class _Machine:
    name: str
    free: list[int]  # workers with nothing to do
    stock: list[Ticket] = field(default_factory=list)
    lots: dict[int, list[Ticket]] = field(default_factory=dict)  # what each worker is busy with
    answers: list[bytes] = field(default_factory=list)
    task: int = -1  # the last one that it has fetched


@dataclass(frozen=True)
class _Task:
    share: int
    group_of: np.ndarray
    steps: list[np.ndarray]  # of the rows of each piece


class _Players:
    def __init__(self, server: redis.Redis, crowd: Crowd, numbers: range) -> None:
        self._server, self._crowd, self._keys = server, crowd, Keys()
        self._machines = [_Machine(f"m-{n}", list(range(crowd.workers))) for n in numbers]
        self._hungry = dict.fromkeys(range(len(self._machines)))  # in order of their coming
        self._events: list[tuple[float, int, int, float, list[int], int]] = []
        self._client = WorkerClient(server, f"player-{numbers.start}", self._keys)
        self._run, self._key = "", b""
        self._tasks: dict[int, _Task] = {}
        self._next_beat, self._who = 0.0, who()
        self._unsent, self._went_up = set[int](), 0.0  # machines with answers
        self._fetched = 0.0  # the newest task
        self._unsaid = set[int]()  # machines that hold other tickets than they said

    def go_on(self) -> None:
        """One round: finish what is due, answer, take more, say that all live, wait."""
        now = time.monotonic()
        if now >= self._next_beat:
            self._unsaid = set(range(len(self._machines)))
            self._next_beat = now + (BEAT_SECONDS if self._crowd.workers == 1 else SAY_SECONDS)
        self._finish(now)
        self._say()
        if not self._take():
            self._wait()

    # --- answers

    def _finish(self, now: float) -> None:
        while self._events and self._events[0][0] <= now:
            _, at, worker, seconds, pieces, number = heapq.heappop(self._events)
            machine = self._machines[at]
            machine.answers.append(self._answer(machine, worker, seconds, pieces, number))
            machine.free.append(worker)
            del machine.lots[worker]
            self._unsent.add(at)
            if machine.stock:
                self._start(at, now)
            if machine.free:
                self._hungry[at] = None
        if self._unsent and (self._crowd.workers == 1 or now >= self._goes_up()):
            self._send()
            self._went_up = now

    def _goes_up(self) -> float:
        return self._went_up + gather_seconds(time.monotonic() - self._fetched)

    def _send(self) -> None:
        with self._server.pipeline(transaction=False) as pipe:
            for machine in (self._machines[at] for at in self._unsent):
                alone = self._crowd.workers == 1
                answers = machine.answers if alone else merged(machine.answers, self._key)
                pipe.rpush(self._keys.results(self._run), *answers)
                machine.answers = []
            pipe.execute()
        self._unsent.clear()

    def _answer(
        self, machine: _Machine, worker: int, seconds: float, pieces: list[int], number: int
    ) -> bytes:
        steps = np.concatenate([self._tasks[number].steps[piece] for piece in pieces])
        numbers, fitness = np.array(pieces, np.int32), steps.astype(np.float32)
        rows = Rows(numbers, fitness, steps, round(seconds, 6), 0.001, round(seconds, 6))
        name = f"{machine.name}-{worker}"
        said = {"task": number, **rows.to_fields(), "run": self._run, "worker": name}
        return pack(said, self._key)

    # --- tickets

    def _take(self) -> bool:
        """Hand tickets to whoever has nothing to do; false if there are none."""
        if not self._hungry:
            return False
        left: Any = self._server.llen(self._keys.tickets)
        if not left:
            return False
        share = max((task.share for task in self._tasks.values()), default=1)
        counts = {}
        for at in self._hungry:
            if left <= 0:
                break
            count = max(left // max(share // self._crowd.workers, 1), 1)
            counts[at] = count
            left -= count
        with self._server.pipeline(transaction=False) as pipe:
            for count in counts.values():
                pipe.lpop(self._keys.tickets, count)
            popped = pipe.execute()
        for at, tickets in zip(counts, popped, strict=True):
            self._supply(at, tickets or [])
        return any(popped)

    def _supply(self, at: int, data: list[bytes]) -> None:
        tickets = [ticket for each in data if (ticket := parse_ticket(each))]
        machine = self._machines[at]
        tickets = [ticket for ticket in tickets if self._know(ticket, machine)]
        if not tickets:
            return
        if self._crowd.workers > 1 and self._crowd.seconds_per_step:  # else they take what is there
            size = max(1, sum(t.count for t in tickets) // (4 * self._crowd.workers))
            tickets = [s for t in tickets for s in cut(t.run, t.task, t.pieces, size)]
        machine.stock += tickets
        self._start(at, time.monotonic())
        if self._crowd.workers == 1 and self._crowd.seconds_per_step:
            self._unsaid.add(at)
        if not machine.free:
            del self._hungry[at]

    def _know(self, ticket: Ticket, machine: _Machine) -> bool:
        """Fetch the run, and the task once for each machine."""
        if ticket.run != self._run:
            spec = self._client.run_spec(ticket.run)
            if spec is None:
                return False
            self._run, self._key, self._tasks = ticket.run, bytes.fromhex(spec["key"]), {}
        if ticket.task not in self._tasks:
            message = self._client.task(ticket.run, ticket.task)
            if message is None:
                return False
            layout = Layout(tuple(part.shape for part in task_parts(message)))
            lengths = LENGTHS[self._crowd.lengths]
            drawn = np.random.default_rng(ticket.task).choice(lengths, len(layout))
            steps = np.split(drawn, layout.first_rows[1:])
            self._tasks[ticket.task] = _Task(message["share"], layout.group_of, steps)
            self._tasks.pop(ticket.task - 4, None)
            self._fetched = time.monotonic()
        elif ticket.task != machine.task:
            self._server.get(self._keys.task(ticket.run, ticket.task))
        machine.task = ticket.task
        return True

    def _start(self, at: int, now: float) -> None:
        """Have the machine's free workers begin, each with its share of the stock."""
        machine = self._machines[at]
        while machine.free and machine.stock:
            first = machine.stock[0]
            count = max(len(machine.stock) // (2 * self._crowd.workers), 1)
            if self._crowd.workers == 1:
                count = len(machine.stock)
            lot = [each for each in machine.stock[:count] if each.task == first.task]
            machine.stock = machine.stock[len(lot) :]
            pieces = sorted({piece for each in lot for piece in each.pieces})
            steps = self._tasks[first.task].steps
            seconds = self._crowd.seconds_per_step * float(sum(steps[p].sum() for p in pieces))
            worker = machine.free.pop()
            machine.lots[worker] = lot
            event = now + seconds, at, worker, seconds, pieces, first.task
            heapq.heappush(self._events, event)

    # --- life

    def _say(self) -> None:
        """Say for machines that they live, and what they hold."""
        if not self._unsaid:
            return
        with self._server.pipeline(transaction=False) as pipe:
            for machine in (self._machines[at] for at in self._unsaid):
                holds = [*machine.stock, *itertools.chain(*machine.lots.values())]
                held = [[ticket.task, ticket.first, ticket.count] for ticket in holds]
                said = {"name": machine.name, **self._who, "doing": self._run, "holds": held}
                said |= {"workers": self._crowd.workers, "idle": 0}
                value = json.dumps(said)
                pipe.set(self._keys.worker(machine.name), value, ex=WORKER_SECONDS)
            pipe.execute()
        self._unsaid.clear()

    def _wait(self) -> None:
        now = time.monotonic()
        until = min(self._events[0][0] if self._events else now + 1, self._next_beat)
        if self._unsent:
            until = min(until, self._goes_up())
        if until - now < 0.001:
            return
        if not self._hungry:
            time.sleep(until - now)
            return
        popped: Any = self._server.blpop([self._keys.tickets], timeout=round(float(until - now), 3))
        if popped:
            self._supply(next(iter(self._hungry)), [popped[1]])
