"""Which of Nevergrad's optimizers can serve: tries all, and writes nevergrad_es/tools.csv.

    python benchmarks/nevergrad_tools.py FOUND.jsonl [--seconds 280] [--only CMA DE]

Each is tried in processes of its own, which end it if it does not end by itself: on a sphere with
few parameters for some generations, twice, from the same seed, in two programs of which one goes
back to a state on the way; then with many parameters; then told that there is no noise. FOUND.jsonl
keeps what was found; what is in it is not tried again, so the work can be done in portions. When
all is in it, the table is written.
"""

import argparse
import contextlib
import csv
import gc
import importlib
import json
import multiprocessing
import os
import random
import resource
import subprocess
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from evolution.evaluation import Evaluations
from nevergrad_es.registry import registry
from nevergrad_es.strategy import NevergradStrategy
from nevergrad_es.tools import FOUND as TABLE
from nevergrad_es.tools import NOISY, REFUSED, SERVES, SMALL, UNREPEATABLE, ToolError

SEED = 7
LIMIT = 10.0  # seconds of CPU for one trial, and …
PATIENCE = 6 * LIMIT  # … on the clock
Trial = tuple[int, int, int, bool]
TRIALS: dict[str, Trial] = {  # parameters, candidates of a generation, generations, noisy
    "few": (10, 20, 15, True),
    "many": (400, 24, 3, True),
    "without noise": (10, 20, 15, False),
}
SAME_SEED = "few"  # the trial that the other program does as well
MEANINGS = {  # of errors that need a word
    "only 0-dimensional arrays can be converted": "its metamodel needs a NumPy before 2.4",
}
FORK = multiprocessing.get_context("fork")
Found = dict[str, Any]


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("found", type=Path)
    options.add_argument("--seconds", type=float, default=float("inf"), help="of this portion")
    options.add_argument("--only", nargs="*", help="of these names")
    options.add_argument("--again", action="store_true", help=argparse.SUPPRESS)
    chosen = options.parse_args()
    with contextlib.suppress(ImportError):  # here once, else in every child
        importlib.import_module("cma")
    gc.freeze()  # children look for garbage among their own objects alone
    if chosen.again:
        answer_forever()
        return
    names = sorted(chosen.only or registry)
    found = read(chosen.found)
    try_out([name for name in names if name not in found], chosen.found, chosen.seconds)
    found = read(chosen.found)
    print(f"{len(found)} of {len(registry)} tried")
    if set(found) >= set(registry):
        write_table(found)


def read(path: Path) -> dict[str, Found]:
    """What was found so far, by name."""
    lines = path.read_text().splitlines() if path.exists() else []
    return {found["tool"]: found for found in map(json.loads, lines)}


def try_out(names: list[str], path: Path, seconds: float) -> None:
    """Try some tools, and write down what was found of each."""
    end = time.monotonic() + seconds
    command = [sys.executable, __file__, os.devnull, "--again"]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as other, path.open("a") as file:
        assert other.stdin is not None
        assert other.stdout is not None
        for name in names:
            if time.monotonic() > end:
                break
            found: Found = {"tool": name, SAME_SEED: tried(name, SAME_SEED)}
            if "error" not in found[SAME_SEED]:
                other.stdin.write(f"{name}\n")
                other.stdin.flush()
                found |= {trial: tried(name, trial) for trial in TRIALS if trial != SAME_SEED}
                found["again"] = json.loads(other.stdout.readline())
            file.write(json.dumps(found) + "\n")
            file.flush()
        other.stdin.close()


def answer_forever() -> None:
    """The other program: one name a line, one answer a line."""
    for line in sys.stdin:
        answer = tried(line.rstrip("\n"), SAME_SEED, turning_back=True)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def tried(name: str, trial: str, turning_back: bool = False) -> Found:
    """One trial in a process of its own."""
    ours, theirs = FORK.Pipe(duplex=False)
    process = FORK.Process(target=in_child, args=(theirs, name, trial, turning_back))
    process.start()
    theirs.close()
    found: Found = {"error": f"it did not end within {LIMIT:.0f} seconds"}
    if ours.poll(PATIENCE):
        try:
            found = ours.recv()
        except EOFError:  # ended by the limit on CPU time, or by a crash
            process.join()
            if process.exitcode not in (-9, -24):
                found = {"error": f"it ended its process, with exit code {process.exitcode}"}
    process.kill()  # threads of a tool would keep it
    process.join()
    return found


def in_child(answers: Any, name: str, trial: str, turning_back: bool) -> None:
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_CPU, (int(LIMIT), int(LIMIT) + 1))
    null = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):  # some tools talk a lot
        os.dup2(null, descriptor)
    started = time.process_time()
    try:
        found = run(name, TRIALS[trial], turning_back)
    except ToolError as error:
        found = {"error": str(error)}
    found["seconds"] = round(time.process_time() - started, 3)
    found["threads"] = threading.active_count() - 1
    answers.send(found)


def run(name: str, trial: Trial, turning_back: bool) -> Found:
    """Use the whole budget; returns a digest of all candidates, and how it ended."""
    generations = trial[2]
    if turning_back:
        np.random.seed(3)  # noqa: NPY002
        random.seed(3)
    strategy, rng = start(name, trial), np.random.default_rng(SEED)
    first = -float(np.square(strategy.theta).sum())
    for number in range(generations):
        for _ in range(5 if turning_back else 0):
            np.random.random()  # noqa: NPY002
            random.random()
        evaluate(strategy, rng)
        if turning_back and number == generations // 2:
            state = strategy.state()
            strategy = start(name, trial)
            strategy.restore(state)
    last = -float(np.square(strategy.theta).sum())
    digest = strategy.state()["digest"]
    return {"digest": digest, "theta": strategy.theta.tobytes().hex()[:64], "gain": last / first}


def start(name: str, trial: Trial) -> NevergradStrategy:
    dim, pop_size, generations, noisy = trial
    settings: dict[str, Any] = {"pop_size": pop_size, "generations": generations, "sigma": 0.3}
    theta, rng = np.ones(dim, np.float32), np.random.default_rng(SEED)
    return NevergradStrategy(theta, rng, tool=name, noisy=noisy, **settings)


def evaluate(strategy: NevergradStrategy, rng: np.random.Generator) -> None:
    """Ask and tell one generation."""
    (population,) = strategy.ask(rng)
    fitness = -np.square(population.values).sum(axis=1, dtype=np.float32)
    ones = np.ones(len(fitness), np.int64)
    strategy.tell([population], [Evaluations(fitness, ones, ones, ones.astype(np.float32), 1)])


# --- the table


def write_table(found: dict[str, Found]) -> None:
    rows = [(name, *verdict(name, found[name])) for name in sorted(found, key=str.lower)]
    with TABLE.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([("tool", "verdict", "only", "reason"), *rows])
    print(f"wrote {TABLE}: {dict(Counter(verdict for _, verdict, *_ in rows))}")


def verdict(name: str, found: Found) -> tuple[str, str, str]:
    """What the trials say of a tool, what limits it, and the reasons."""
    few = found["few"]
    reasons = list(refusals(name, found))
    if reasons:
        return REFUSED, "", reasons[0]
    again = found["again"]
    verdict, only = SERVES, {}
    if (few["digest"], few["theta"]) != (again.get("digest"), again.get("theta")):
        verdict, reasons = UNREPEATABLE, ["equal seeds and returns lead to other candidates"]
    for limit, trial in ((SMALL, "many"), (NOISY, "without noise")):
        if "error" in found[trial] or found[trial]["threads"]:
            only[limit] = f"else it fails: {plain(found[trial])}"
    return verdict, " ".join(only), "; ".join(dict.fromkeys([*reasons, *only.values()]))


def refusals(name: str, found: Found) -> Iterator[str]:
    """Reasons not to let it serve at all."""
    few = found["few"]
    cls = registry[name]
    threads = "error" not in few and few["threads"]
    if getattr(cls, "recast", False) or threads:
        yield "it runs in a thread of its own, which waits for each result alone"
    if getattr(cls, "no_parallelization", False) or "parallelization" in few.get("error", ""):
        yield "it is made for one candidate at a time"
    if "error" in few:
        yield plain(few)
    again = found.get("again", {}).get("error", "")
    if again and "other candidates" not in again:
        yield plain(found["again"])


def plain(found: Found) -> str:
    """An error without what is known anyway."""
    error = str(found.get("error", "it runs in a thread of its own"))
    for words, meaning in MEANINGS.items():
        if words in error:
            return meaning
    _, failed, reason = error.removesuffix("; choose another").partition(" cannot ")
    if failed:
        error = reason.partition(": ")[2]
    elif error.startswith("tool="):
        error = f"it {error.partition(' ')[2]}"
    return " ".join(error.split())[:120]


if __name__ == "__main__":
    main()
