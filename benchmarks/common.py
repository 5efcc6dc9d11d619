"""What the benchmarks share: options, one core, timing in rounds, tables and JSON.

The machine may be busy and its speed may drift, so contenders take turns and are compared round by
round: a ratio is the median over the rounds of the ratios within a round. What stays on one core is
timed by the CPU time of all its threads, which is the time on the wall unless others use that core.
"""

import argparse
import contextlib
import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("numpy", "torch", "gymnasium", "envpool", "mujoco", "box2d", "evotorch")

Row = dict[str, Any]  # one line of a table: names to numbers or words


def parser(description: str | None) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    options = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    options.add_argument("--quick", action="store_true", help="all of it in less than a minute")
    options.add_argument("--json", type=Path, metavar="FILE", help="write the rows there as well")
    return options


def use_one_core() -> None:
    """Stay on the first core that this process may use, with one thread for BLAS and torch.

    `taskset -c 3 python benchmarks/…` chooses another core.
    """
    import torch
    from threadpoolctl import threadpool_limits

    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    threadpool_limits(1)
    torch.set_num_threads(1)


def machine() -> str:
    """The processor, the packages and the commit, in two lines."""
    versions = " ".join(f"{name} {version}" for name in PACKAGES if (version := installed(name)))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return (
        f"{_processor()}, {cores} of {os.cpu_count()} cores, {platform.system()},"
        f" commit {_commit()}"
        f"\nPython {platform.python_version()} {versions}"
    )


def cpu_seconds() -> float:
    """CPU time that this process and all its descendants have used; 0 where /proc is missing."""
    parent, used = dict[int, int](), dict[int, int]()
    for file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has just ended
            fields = file.read_text().rpartition(")")[2].split()
            pid = int(file.parent.name)
            parent[pid] = int(fields[1])
            used[pid] = sum(map(int, fields[11:15]))  # its own and its ended children's
    ours = found = {os.getpid()}
    while found:
        found = {pid for pid, of in parent.items() if of in ours} - ours
        ours |= found
    return sum(used.get(pid, 0) for pid in ours) / os.sysconf("SC_CLK_TCK")


def installed(package: str) -> str | None:
    """The version of a package, None if it is not there."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


class Rounds:
    """What contenders reached when they took turns."""

    def __init__(self) -> None:
        self._rates: dict[str, list[float]] = {}

    def add(self, name: str, rate: float) -> None:
        self._rates.setdefault(name, []).append(rate)

    def __contains__(self, name: str) -> bool:
        return name in self._rates

    def rate(self, name: str) -> float:
        """The median over the rounds."""
        return statistics.median(self._rates[name])

    def ratio(self, name: str, reference: str) -> float:
        """How many times as fast as the reference: the median of the ratios of each round."""
        pairs = zip(self._rates[name], self._rates[reference], strict=True)
        return statistics.median(one / other for one, other in pairs)


def take_turns(
    contenders: Mapping[str, Callable[[], float]],
    rounds: int,
    clock: Callable[[], float] = time.process_time,
) -> Rounds:
    """Let each do its work once per round, every other round in reverse.

    Args:
        contenders: each does its work and returns how much that was, in steps or bytes.
        clock: time.perf_counter for work that other processes do.
    """
    found = Rounds()
    for number in range(rounds):
        order = list(contenders.items())
        for name, work in order if number % 2 == 0 else reversed(order):
            started = clock()
            amount = work()
            found.add(name, amount / (clock() - started))
    return found


def show(title: str, rows: Sequence[Row]) -> None:
    """Print a table; a column is as wide as it needs to be, a row may lack some."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = [columns, *([_text(row.get(name)) for name in columns] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    print(f"\n{title}")
    for line in lines:
        cells = [
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        print("  ".join(cells).rstrip(), flush=True)


def write_json(file: Path | None, rows: Sequence[Row]) -> None:
    """Write the rows as a list of flat objects, if a file is asked for."""
    if file is not None:
        file.write_text(json.dumps(list(rows), indent=1) + "\n")


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _commit() -> str:
    def git(*arguments: str) -> str:
        command = ["git", "-C", str(ROOT), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()

    changed = " with changes" if git("status", "--porcelain") else ""
    return (git("rev-parse", "--short", "HEAD") or "unknown") + changed
