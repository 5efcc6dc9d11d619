"""Faults by a seeded schedule, and what must hold whatever they are."""

import contextlib
import functools
import os
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import numpy as np
import redis
from mangler import Mangler
from processes import Child, DataServer
from world import KEYS, ROWS, World, ledger

PATIENCE = 10.0  # of the head, see evolution.exchange.lookout
SLACK = 25.0  # seconds beyond it, on a machine that others use too
END_SECONDS = 15.0  # for all to leave when they are told to
PUMP_SECONDS = 0.004
LOG_LINES = 30  # of each process, shown with a failure

KILLS = (
    *("kill worker", "kill relay", "kill machine redis", "kill head"),
    *("kill redis, data lost", "kill redis, data kept"),
)
STOPS = ("stop worker", "stop relay", "stop machine redis", "stop redis", "stop head")
MESSAGES = (
    *("duplicate", "drop", "reorder", "truncate", "flip", "stale", "foreign", "nan"),
    "canary",
)
LINKS = ("partition", "slow link", "lossy link")
LASTS = {"stop": (0.2, 4.0), "partition": (0.5, 6.0), "slow": (1.0, 3.0), "lossy": (1.0, 3.0)}


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong."""

    kind: str
    target: int  # which of those that it can happen to; they are counted through
    seconds: float = 0.0  # until it is healed, if it does not heal by itself

    def __str__(self) -> str:
        return f"{self.kind} {self.target}" + (f" for {self.seconds:.1f} s" if self.seconds else "")


@dataclass(frozen=True)
class Strike:
    """Faults that happen together, some time after all was well."""

    pause: float
    faults: tuple[Fault, ...]

    def __str__(self) -> str:
        return " with ".join(map(str, self.faults))


def kinds_for(relays: int, hosts: bool) -> list[str]:
    """What can happen to such a world."""
    kinds = [*KILLS, *STOPS, *MESSAGES, *(LINKS if hosts else ())]
    return [kind for kind in kinds if relays or not ("relay" in kind or "machine" in kind)]


def schedule(seed: int, kinds: Sequence[str], count: int = 0) -> list[Strike]:
    """The strikes that belong to a seed.

    Args:
        count: how many faults; 0: each kind once, one at a time, in an order of the seed's.
    """
    rng = np.random.default_rng([seed, 1])
    if not count:
        return [_strike(rng, [kind]) for kind in rng.permutation(kinds).tolist()]
    strikes = []
    while count > 0:
        together = min(count, int(rng.choice([1, 2, 3], p=[0.7, 0.2, 0.1])))
        strikes.append(_strike(rng, rng.choice(kinds, together, replace=False).tolist()))
        count -= together
    return strikes


def _strike(rng: np.random.Generator, kinds: Sequence[str]) -> Strike:
    faults = []
    for kind in kinds:
        low, high = LASTS.get(kind.split()[0], (0.0, 0.0))
        target, seconds = int(rng.integers(100)), round(float(rng.uniform(low, high)), 2)
        faults.append(Fault(kind, target, seconds))
    return Strike(round(float(rng.uniform(0, 0.4)), 3), tuple(faults))


@dataclass
class Report:
    """What came of a schedule."""

    generations: int = 0
    pace: float = 0.0  # seconds of a generation when nothing is wrong
    recoveries: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    used: int = 0
    skipped: int = 0
    rejected: int = 0


class Nemesis:
    """Torments a world by a schedule and judges how it bears that."""

    def __init__(self, world: World, seed: int, strikes: Sequence[Strike]) -> None:
        self.world, self.seed, self.strikes = world, seed, strikes
        self._rng = np.random.default_rng([seed, 2])
        self._struck: list[tuple[datetime, Strike]] = []
        self._song = world.folder / "song"
        self._mangler = Mangler(world.server.db, self._song, self._rng)
        self._calm = time.monotonic()  # since when nothing is wrong by our doing
        self._sure_to_come = 0  # bad messages that nobody was killed with
        self.report = Report()

    def run(self, calm: int = 3) -> Report:
        """All strikes, the end, and the verdict.

        Args:
            calm: generations before the first strike.
        Raises:
            AssertionError: something that must hold does not; the notes say what had happened.
        """
        try:
            self._await_generations(calm)
            for strike in self.strikes:
                self._pump(strike.pause)
                self._do(strike)
            self._measure_pace()
            self._finish()
            self._judge()
        except BaseException as error:
            error.add_note(self._story())
            raise
        return self.report

    def _story(self) -> str:
        """What is needed to understand a failure, and to see it again."""
        lines = [f"seed {self.seed}, {self.world.shape}, {self._ended()} generations; struck:"]
        lines += [f"  {when:%T} {strike}" for when, strike in self._struck]
        lines += [f"{child.name} is {child.state()}" for child in self.world.children]
        self.world.head.say_where_it_is()
        time.sleep(0.2)
        for child in self.world.children:
            said = child.log.read_text() if child.log.exists() else ""
            lines += [f"{child.name}:", *said.splitlines()[-LOG_LINES:]]
        return "\n".join(lines)

    # --- time

    def _pump(self, seconds: float = 0.0) -> None:
        """Look after everything, for a while."""
        until = time.monotonic() + seconds
        while True:
            for child in self.world.children:
                child.look_after()
                assert child.code is None, f"{child.name} ended by itself: {child.code}"
            self.world.journal.read()
            if time.monotonic() >= until:
                return
            time.sleep(PUMP_SECONDS)

    def _ended(self) -> int:
        return len(self.world.journal.generations)

    def _await_generations(self, count: int) -> float:
        """Wait for so many more; returns when the last of them ended."""
        self._pump()
        wanted = self._ended() + count
        while self._ended() < wanted:
            self._pump(PUMP_SECONDS)
            last = max([self._calm, *(each["at"] for each in self.world.journal.entries[-1:])])
            assert time.monotonic() - last < PATIENCE + SLACK, "no generation ends any more"
        return self.world.journal.generations[wanted - 1]["at"]

    # --- strikes

    def _do(self, strike: Strike) -> None:
        self._struck.append((datetime.now(), strike))
        healers: list[tuple[float, Callable[[], None]]] = []
        struck, bad = time.monotonic(), self._mangler.bad
        for fault in strike.faults:
            heal = self._begin(fault)
            healers.append((struck + fault.seconds, heal))
        for when, heal in sorted(healers, key=lambda each: each[0]):
            self._pump(max(0.0, when - time.monotonic()))
            heal()
        self._calm = time.monotonic()
        after = 2 + self.world.task.overlap
        ended = self._await_generations(after)
        if not {fault.kind for fault in strike.faults} & {*KILLS, *LINKS}:
            self._sure_to_come += self._mangler.bad - bad
        if len(strike.faults) == 1:
            kind = strike.faults[0].kind
            self.report.recoveries[kind].append(ended - self._calm)

    def _begin(self, fault: Fault) -> Callable[[], None]:
        """Let it happen; returns what heals it."""
        if fault.kind in MESSAGES:
            self._mangle(fault)
            return lambda: None
        if fault.kind in LINKS:
            return self._worsen_link(fault)
        verb, what = fault.kind.split(" ", 1)
        victim = self._victim(what.partition(",")[0], fault.target)
        if verb == "stop":
            victim.stop()
            return victim.go_on
        if what.startswith("redis"):
            server = self.world.server
            with contextlib.suppress(redis.RedisError):  # it may be dead already
                server.keep() if what.endswith("kept") else server.lose()
        else:
            victim.kill()
        return lambda: None

    def _victim(self, what: str, number: int) -> Child:
        world = self.world
        of: dict[str, Sequence[Child]] = {
            **{"head": [world.head], "redis": [world.server], "worker": world.workers},
            **{"relay": world.relays, "machine redis": world.machines},
        }
        return of[what][number % len(of[what])]

    def _worsen_link(self, fault: Fault) -> Callable[[], None]:
        hosts = self.world.hosts[1:]
        link = hosts[fault.target % len(hosts)].link
        state = {
            "partition": {"down": True},
            "slow link": {"delay": 0.1, "jitter": 0.05},
            "lossy link": {"loss": 0.1},
        }[fault.kind]
        link.be(**state)
        return link.be

    def _mangle(self, fault: Fault) -> None:
        """At the head's list, or at the one of a machine."""
        places = [(self.world.server.db, self.world.head)]
        places += [
            (server.db, relay)
            for server, relay in zip(self.world.machines, self.world.relays, strict=True)
        ]
        with contextlib.suppress(redis.RedisError):  # if the server is away there is no message
            if fault.kind == "canary":
                machines = [server.db for server in self.world.machines]
                self._mangler.sing(self.world.server.db, machines)
            else:
                db, reader = places[fault.target % len(places)]
                self._mangler.spoil(fault.kind, db, reader)

    # --- the end

    def _measure_pace(self) -> None:
        ends = [each["at"] for each in self.world.journal.generations]
        self.report.pace = float(np.median(np.diff(ends)))
        usual = (2 + self.world.task.overlap) * self.report.pace
        for found in self.report.recoveries.values():
            found[:] = [max(0.0, seconds - usual) for seconds in found]

    def _finish(self) -> None:
        world = self.world
        world.tell("enough")
        self._await_end([world.head])
        self._await(lambda: all(map(_has_no_run, world.machines)))
        world.tell("over")
        self._await_end([*world.workers, *world.relays])
        world.journal.read()

    def _await_end(self, children: Sequence[Child]) -> None:
        self._await(lambda: all(child.code is not None for child in children))
        assert {child.code for child in children} <= {0}, [(c.name, c.code) for c in children]

    def _await(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE + END_SECONDS
        while not condition():
            for child in self.world.children:
                child.look_after()
            assert time.monotonic() < deadline, "not all left when they were told to"
            time.sleep(PUMP_SECONDS)

    # --- the verdict

    def _judge(self) -> None:
        journal, report = self.world.journal, self.report
        for each in journal.generations:
            number = each["generation"]
            assert each["theta"] == self.world.task.theta(number), f"generation {number} differs"
            assert each["rows"] == ROWS
        kept = journal.lasting()
        self._judge_ledger(kept)
        report.generations = len(kept)
        report.used = ROWS * len(kept)
        report.skipped = int(sum(each["skipped"] for each in kept))
        report.rejected = int(sum(each["rejected"] for each in journal.generations))
        self._judge_rejected()
        assert not self._song.exists(), "a canary was executed"
        self._judge_leftovers()

    def _judge_ledger(self, kept: Sequence[dict]) -> None:
        counted = ledger(kept)
        told = {key: times for key, times in counted.items() if key[0] < len(kept)}
        assert len(told) == ROWS * len(kept), "an evaluation was not counted"
        assert set(told.values()) <= {1}, "an evaluation was counted twice"

    def _judge_rejected(self) -> None:
        """All that were bad; but some may have been lost with a process that was killed."""
        alone = all(len(strike.faults) == 1 for strike in self.strikes)
        kinds = {fault.kind for strike in self.strikes for fault in strike.faults}
        if alone and not kinds & {*KILLS, *LINKS}:
            assert self.report.rejected >= self._mangler.bad, "a bad message was not rejected"
        assert self.report.rejected or not self._sure_to_come, "no bad message was rejected"
        if alone and kinds <= {*MESSAGES} - {"stale"}:
            assert self.report.rejected == self._mangler.bad, "a good message was rejected"

    def _judge_leftovers(self) -> None:
        for server in (self.world.server, *self.world.machines):
            lasting = [name for name in server.db.scan_iter("*") if server.db.ttl(name) < 0]
            assert lasting == [], f"left in {server.name}: {lasting}"
            # those of workers that were killed end by themselves
            self._await(functools.partial(_has_no_workers, server.db))
        for child in (self.world.server, *self.world.machines):
            child.end()
        left = _children_of(os.getpid()) - {host.link.process.pid for host in self.world.hosts}
        assert not left & set(_named(self.world.folder)), "a process has outlived its run"


def _has_no_run(server: DataServer) -> bool:
    """False too if it was killed last and is not there again."""
    try:
        return not server.db.exists(KEYS.run)
    except redis.ConnectionError:
        return False


def _has_no_workers(server: redis.Redis) -> bool:
    return set(server.scan_iter(KEYS.worker())) <= {KEYS.worker("canary").encode()}


def _children_of(pid: int) -> set[int]:
    """Processes; needs /proc."""
    tasks = Path(f"/proc/{pid}/task")
    words = [(task / "children").read_text() for task in tasks.iterdir()] if tasks.exists() else []
    return {int(each) for word in words for each in word.split()}


def _named(folder: Path) -> set[int]:
    """Processes that hold files of ``folder`` open."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            held = [os.readlink(file) for file in (entry / "fd").iterdir()]
            if any(name.startswith(str(folder)) for name in held):
                found.add(int(entry.name))
    return found
