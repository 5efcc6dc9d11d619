"""Many schedules of faults against runs of every shape: python tests/faults/matrix.py

Each run must give the bits that one process finds alone, count every evaluation once, never hang
and leave nothing behind. `--seed S --schedules 1` sees a schedule again.
"""

import argparse
import contextlib
import itertools
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from hosts import Host, network, why_not
from nemesis import Nemesis, Report, kinds_for, schedule
from world import Task, World

from evolution.noise import NoiseTable

WORKERS, RELAYS = (1, 2, 3, 8), (0, 1, 2)
KINDS_OF_RUN = list(itertools.product(("sphere", "lander"), (0, 1)))  # task, overlap
CALM_GENERATIONS = 30
WANTED = {"kill worker": 5, "kill relay": 5, "kill redis": 8, "kill machine": 8, "partition": 5}

Shape = tuple[int, int]  # workers, relays


class Matrix:
    """All runs so far."""

    def __init__(self, noise: NoiseTable) -> None:
        self._tasks = {each: Task(*each, noise) for each in KINDS_OF_RUN}
        self._recoveries = defaultdict[str, list[float]](list)
        self._faults = Counter[str]()
        self._reports = defaultdict[Shape, list[Report]](list)
        self._calm = defaultdict[tuple[str, Shape], list[Report]](list)
        self.failures: list[str] = []

    def torment(self, seed: int, shape: Shape, count: int) -> None:
        """A run with a schedule of faults; each second schedule on hosts, if there can be some."""
        workers, relays = shape
        on_hosts = seed % 2 == 1 and not why_not()
        task = self._tasks[KINDS_OF_RUN[(seed // 2 + workers + relays) % len(KINDS_OF_RUN)]]
        strikes = schedule(seed, kinds_for(relays, on_hosts), count)
        report = self._run(task, shape, seed, strikes, on_hosts)
        if report is not None:
            self._faults.update(fault.kind for strike in strikes for fault in strike.faults)
            self._reports[shape].append(report)
            for kind, found in report.recoveries.items():
                self._recoveries[kind] += found

    def watch(self, name: str, shape: Shape) -> None:
        """A run to which nothing happens."""
        report = self._run(self._tasks[name, 0], shape, 0, [], False)
        if report is not None:
            self._calm[name, shape].append(report)

    def _run(
        self, task: Task, shape: Shape, seed: int, strikes: Sequence, on_hosts: bool
    ) -> Report | None:
        began = time.monotonic()
        where = f"seed {seed}, {task.name}, overlap {task.overlap}, {shape[0]} workers,"
        where += f" {shape[1]} relays{', on hosts' if on_hosts else ''}"
        with _folder() as folder, _hosts(on_hosts, folder, seed) as hosts:
            try:
                with World(folder, task, *shape, hosts) as world:
                    report = Nemesis(world, seed, strikes).run(calm=CALM_GENERATIONS)
            except AssertionError as error:
                self.failures.append(where)
                print(f"FAILED {where}: {error}", *error.__notes__, sep="\n", flush=True)
                return None
        spent = time.monotonic() - began
        print(f"{where}: {report.generations} generations, {spent:.0f} s", flush=True)
        return report

    def show(self) -> None:
        """The tables."""
        print(
            "\n| fault | times | measured alone | recovery p50 s | p95 s | max s | wanted p95 s |"
        )
        print("|---|---|---|---|---|---|---|")
        for kind in sorted(self._faults):
            found = sorted(self._recoveries[kind])
            wanted = next((str(s) for name, s in WANTED.items() if kind.startswith(name)), "")
            figures = [f"{_quantile(found, q):.2f}" for q in (0.5, 0.95, 1)] if found else [""] * 3
            cells = [kind, str(self._faults[kind]), str(len(found)), *figures, wanted]
            print(f"| {' | '.join(cells)} |")
        print("\n| workers | relays | runs | generations | wasted evaluations with faults |")
        print("|---|---|---|---|---|")
        for (workers, relays), reports in sorted(self._reports.items()):
            generations = sum(each.generations for each in reports)
            print(f"| {workers} | {relays} | {len(reports)} | {generations} | {_wasted(reports)} |")
        print("\n| without faults | workers | relays | generations | wasted evaluations |")
        print("|---|---|---|---|---|")
        for (name, (workers, relays)), reports in sorted(self._calm.items()):
            generations = sum(each.generations for each in reports)
            print(f"| {name} | {workers} | {relays} | {generations} | {_wasted(reports)} |")
        runs = sum(map(len, self._reports.values()))
        print(f"\n{runs} runs passed, {len(self.failures)} failed: {self.failures}", flush=True)


def _quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, round(share * (len(ordered) - 1)))]


def _wasted(reports: Sequence[Report]) -> str:
    skipped = sum(each.skipped for each in reports)
    in_all = skipped + sum(each.used for each in reports)
    return f"{100 * skipped / in_all:.2f} %"


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
    options.add_argument("--seed", type=int, default=1, help="the first")
    options.add_argument("--schedules", type=int, default=50)
    options.add_argument("--faults", type=int, default=6, help="in each")
    options.add_argument("--minutes", type=float, default=float("inf"), help="begin no run later")
    chosen = options.parse_args()
    end = time.monotonic() + 60 * chosen.minutes
    shapes = list(itertools.product(WORKERS, RELAYS))
    with NoiseTable(200_000, 7) as noise:
        matrix = Matrix(noise)
        for name, shape in itertools.product(("sphere", "lander"), shapes):
            matrix.watch(name, shape)
        seeds = range(chosen.seed, chosen.seed + chosen.schedules)
        for seed, shape in itertools.product(seeds, shapes):
            if time.monotonic() < end:
                matrix.torment(seed, shape, chosen.faults)
        matrix.show()
    sys.exit(bool(matrix.failures))


if __name__ == "__main__":
    main()
