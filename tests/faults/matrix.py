"""Many schedules of faults against runs of every shape: python tests/faults/matrix.py

Each run must give the bits that one process finds alone, count every evaluation once, never hang
and leave nothing behind. `--seed S --schedules 1` sees a schedule again. With `--log FILE` a run
that has passed already is not done again, and several processes may share it:

    python tests/faults/matrix.py --log FILE --seed 1 --schedules 25 &
    python tests/faults/matrix.py --log FILE --seed 26 --schedules 25
    python tests/faults/matrix.py --log FILE --schedules 0    # the tables of all
"""

import argparse
import contextlib
import itertools
import json
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from hosts import Host, network, why_not
from nemesis import Nemesis, Strike, kinds_for, schedule
from world import Task, World

from evolution.noise import NoiseTable

WORKERS, RELAYS = (1, 2, 3, 8), (0, 1, 2)
KINDS_OF_RUN = list(itertools.product(("sphere", "lander"), (0, 1)))  # task, overlap
WARM_UP, CALM_GENERATIONS = 5, 30  # before the first strike, and of a run without any
CALM = 0  # the seed of a run to which nothing happens
WANTED = {"kill worker": 5, "kill relay": 5, "kill redis": 8, "kill machine": 8, "partition": 5}

Shape = tuple[int, int]  # workers, relays


@dataclass
class Entry:
    """A run, and what came of it."""

    seed: int
    task: str
    overlap: int
    workers: int
    relays: int
    on_hosts: bool
    passed: bool = False
    seconds: float = 0.0
    generations: int = 0
    used: int = 0
    skipped: int = 0
    faults: list[str] = field(default_factory=list)
    recoveries: dict[str, list[float]] = field(default_factory=dict)

    @property
    def key(self) -> tuple[int, str, int, int]:
        return self.seed, self.task, self.workers, self.relays

    def __str__(self) -> str:
        where = f"seed {self.seed}, {self.task}, overlap {self.overlap}, {self.workers} workers,"
        return where + f" {self.relays} relays{', on hosts' if self.on_hosts else ''}"


class Matrix:
    """All runs so far."""

    def __init__(self, noise: NoiseTable, log: Path | None) -> None:
        self._tasks = {each: Task(*each, noise) for each in KINDS_OF_RUN}
        self._log = log
        if log is not None:
            log.parent.mkdir(parents=True, exist_ok=True)
        lines = log.read_text().splitlines() if log and log.exists() else []
        known = [Entry(**json.loads(line)) for line in lines]
        self._entries = {each.key: each for each in known}  # of one that was repeated the last

    def torment(self, seed: int, shape: Shape, count: int) -> None:
        """A run with a schedule of faults; each second schedule on hosts, if there can be some."""
        workers, relays = shape
        on_hosts = seed % 2 == 1 and not why_not()
        name, overlap = KINDS_OF_RUN[(seed // 2 + workers + relays) % len(KINDS_OF_RUN)]
        strikes = schedule(seed, kinds_for(relays, on_hosts), count)
        self._run(Entry(seed, name, overlap, workers, relays, on_hosts), strikes)

    def watch(self, name: str, shape: Shape) -> None:
        """A run to which nothing happens."""
        self._run(Entry(CALM, name, 0, *shape, on_hosts=False), [])

    def _run(self, entry: Entry, strikes: Sequence[Strike]) -> None:
        if entry.key in self._entries and self._entries[entry.key].passed:
            return
        began = time.monotonic()
        task = self._tasks[entry.task, entry.overlap]
        shape = entry.workers, entry.relays
        with _folder() as folder, _hosts(entry.on_hosts, folder, entry.seed) as hosts:
            try:
                with World(folder, task, *shape, hosts) as world:
                    calm = WARM_UP if strikes else CALM_GENERATIONS
                    report = Nemesis(world, entry.seed, strikes).run(calm)
                entry.passed, entry.recoveries = True, dict(report.recoveries)
                entry.generations, entry.used = report.generations, report.used
                entry.skipped = report.skipped
            except AssertionError as error:
                print(f"FAILED {entry}: {error}", *error.__notes__, sep="\n", flush=True)
        entry.faults = [fault.kind for strike in strikes for fault in strike.faults]
        entry.seconds = round(time.monotonic() - began, 1)
        print(f"{entry}: {entry.generations} generations, {entry.seconds:.0f} s", flush=True)
        self._entries[entry.key] = entry
        if self._log is not None:
            with self._log.open("a") as log:
                log.write(json.dumps(asdict(entry)) + "\n")

    @property
    def failures(self) -> list[str]:
        return [str(each) for each in self._entries.values() if not each.passed]

    def show(self) -> None:
        """The tables."""
        passed = [each for each in self._entries.values() if each.passed]
        tormented = [each for each in passed if each.seed != CALM]
        show_faults(tormented)
        show_shapes("workers", tormented, "with faults", lambda each: f"{each.workers}")
        calm = [each for each in passed if each.seed == CALM]
        show_shapes("without faults", calm, "", lambda each: f"{each.task} {each.workers}")
        print(f"\n{len(tormented)} runs passed, {len(self.failures)} failed: {self.failures}")


def show_faults(entries: Sequence[Entry]) -> None:
    """How often each fault struck, and how long it took until the run went on."""
    struck = Counter(kind for entry in entries for kind in entry.faults)
    recoveries = defaultdict[str, list[float]](list)
    for entry in entries:
        for kind, found in entry.recoveries.items():
            recoveries[kind] += found
    print("\n| fault | times | measured alone | recovery p50 s | p95 s | max s | wanted p95 s |")
    print("|---|---|---|---|---|---|---|")
    for kind in sorted(struck):
        found = sorted(recoveries[kind])
        wanted = next((str(s) for name, s in WANTED.items() if kind.startswith(name)), "")
        figures = [f"{_quantile(found, q):.2f}" for q in (0.5, 0.95, 1)] if found else [""] * 3
        cells = [kind, str(struck[kind]), str(len(found)), *figures, wanted]
        print(f"| {' | '.join(cells)} |")


def show_shapes(
    title: str, entries: Sequence[Entry], when: str, row_of: Callable[[Entry], str]
) -> None:
    """What share of the evaluations was done for nothing."""
    rows = defaultdict[tuple[str, int], list[Entry]](list)
    for entry in sorted(entries, key=lambda each: (each.task * (not when), each.workers)):
        rows[row_of(entry), entry.relays].append(entry)
    print(f"\n| {title} | relays | runs | generations | wasted evaluations {when} |")
    print("|---|---|---|---|---|")
    for (row, relays), found in rows.items():
        generations = sum(each.generations for each in found)
        skipped = sum(each.skipped for each in found)
        share = 100 * skipped / (skipped + sum(each.used for each in found))
        print(f"| {row} | {relays} | {len(found)} | {generations} | {share:.2f} % |")


def _quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, round(share * (len(ordered) - 1)))]


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="evo-n-", dir="/tmp") as name:
        yield Path(name)


@contextlib.contextmanager
def _hosts(wanted: bool, folder: Path, seed: int) -> Iterator[list[Host]]:
    if not wanted:
        yield []
        return
    with network(3, folder, seed) as hosts:
        yield hosts


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--seed", type=int, default=1, help="the first; with 1 also calm runs")
    options.add_argument("--schedules", type=int, default=50)
    options.add_argument("--faults", type=int, default=6, help="in each")
    options.add_argument("--minutes", type=float, default=float("inf"), help="begin no run later")
    options.add_argument("--log", type=Path, help="a file that remembers the runs")
    chosen = options.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # hosts and folders go with the run
    end = time.monotonic() + 60 * chosen.minutes
    shapes = list(itertools.product(WORKERS, RELAYS))
    with NoiseTable(200_000, 7) as noise:
        matrix = Matrix(noise, chosen.log)
        seeds = range(chosen.seed, chosen.seed + chosen.schedules)
        for seed, shape in itertools.product(seeds, shapes):
            if time.monotonic() < end:
                matrix.torment(seed, shape, chosen.faults)
        if chosen.seed == 1:
            for name, shape in itertools.product(("sphere", "lander"), shapes):
                matrix.watch(name, shape)
        matrix.show()
    sys.exit(bool(matrix.failures))


if __name__ == "__main__":
    main()
