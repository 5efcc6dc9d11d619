"""How long a run's loop waits for what it logs while the store is there, gone, or silent.

    python benchmarks/waits.py [--quick] [--json FILE]

A small population of landers learns, with a policy of 64-64 neurons saved every fifth generation,
a heartbeat and a checkpoint every second. One row for each call: `record` (all metrics and, when
due, the policy), `settle` (the state, and the checkpoint), `log_scalar` and `add_artifact` (both
inside `record`), and `beat`, which runs beside the loop except for checkpoints. The store is an
embedded server:

| store | means |
|---|---|
| fine | it answers |
| gone | its process was killed after a quarter of the time, and stays away |
| silent | its process was stopped after a quarter of the time: connections stay, nothing answers |
"""

import _thread
import os
import signal
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common import Row, machine, parser, show, write_json
from sacred.run import Run

from es.experiment import ex
from store import keeper
from store.embedded.note import running_server
from store.embedded.start import embedded_url
from store.keeper import RunKeeper
from store.location import MONGO_VARIABLE, RUNS_VARIABLE
from store.recorder import SacredRecorder
from store.server import stop

CALLS = (
    (SacredRecorder, "record"),
    (RunKeeper, "settle"),
    (Run, "log_scalar"),
    (Run, "add_artifact"),
    (RunKeeper, "beat"),
)
HARM = {"fine": None, "gone": signal.SIGKILL, "silent": signal.SIGSTOP}
CONFIG = {
    **{"seed": 3, "evaluator": "local", "stop_fitness": None, "num_generations": 100_000},
    **{"num_serializations": 20_000, "checkpoint_every": 1.0, "final_episodes": 2},
    **{"hidden_sizes": [64, 64], "pop_size": 4, "num_episodes": 1, "eval_episodes": 1},
}


def main() -> None:
    chosen = parser(__doc__).parse_args()
    print(machine())
    keeper.BEAT_SECONDS = 1.0
    waits: defaultdict[str, list[float]] = defaultdict(list)
    for owner, name in CALLS:
        watch(owner, name, waits)
    rows = []
    for store, harm in HARM.items():
        waits.clear()
        ex.observers.clear()  # of the run before
        run_for(8 if chosen.quick else 30, harm)
        rows += [row(store, name, waits[name]) for _, name in CALLS]
    show("what the loop waits, in milliseconds", rows)
    write_json(chosen.json, rows)


def watch(owner: type, name: str, waits: dict[str, list[float]]) -> None:
    """Note how long each call of a method takes."""
    method = getattr(owner, name)

    def timed(*args: Any, **kwargs: Any) -> Any:
        started = time.perf_counter()
        try:
            return method(*args, **kwargs)
        finally:
            waits[name].append(time.perf_counter() - started)

    setattr(owner, name, timed)


def run_for(seconds: float, harm: signal.Signals | None) -> None:
    """Let the lander learn for so long, and do harm to its store after a quarter of that."""
    with tempfile.TemporaryDirectory(prefix="evo-bench-") as folder:
        file = Path(folder) / "store.sqlite"
        os.environ |= {RUNS_VARIABLE: folder, MONGO_VARIABLE: embedded_url(file)}
        note = running_server(file)
        assert note is not None
        timers = [at(seconds, _thread.interrupt_main)]
        if harm is not None:
            timers.append(at(seconds / 4, lambda: os.kill(note.pid, harm)))
            timers.append(at(seconds + 0.5, lambda: restore(file, note.pid, harm)))
        try:
            ex.run(named_configs=["lander"], config_updates=CONFIG)
        except KeyboardInterrupt:
            pass
        finally:
            for timer in timers:
                timer.join()
            stop.main(["--file", str(file)], standalone_mode=False)


def at(seconds: float, work: Callable[[], Any]) -> threading.Timer:
    """Do something later."""
    timer = threading.Timer(seconds, work)
    timer.start()
    return timer


def restore(file: Path, pid: int, harm: signal.Signals) -> None:
    """Let the store answer again, so that the run can end."""
    if harm == signal.SIGSTOP:
        os.kill(pid, signal.SIGCONT)
    else:
        embedded_url(file)


def row(store: str, call: str, waits: list[float]) -> Row:
    found = 1e3 * np.array(waits)
    return {
        "task": f"{store}: {call}",
        "calls": len(found),
        "median": round(float(np.median(found)), 3),
        "at_99.9_percent": round(float(np.quantile(found, 0.999)), 3),
        "longest": round(float(found.max()), 3),
    }


if __name__ == "__main__":
    main()
