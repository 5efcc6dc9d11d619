"""What recording a run costs, and what the store shows of a very long one.

    python benchmarks/recording.py [--quick] [--json FILE]

| row | means |
|---|---|
| loop | share of a lander run that its loop spends on recording, checkpoints included |
| background | CPU time of heartbeats and sending, as a share of the run |
| long series | a million points: seconds to log them, bytes of the document, points shown |

Everything goes to an embedded store in a folder of its own.
"""

import os
import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

import bson
import numpy as np
from common import Row, machine, parser, show, write_json

from es.experiment import ex
from store.keeper import RunKeeper
from store.location import RUNS_VARIABLE, find_store, runs_folder, store_file
from store.observer import SpoolingObserver
from store.recorder import SacredRecorder
from store.server import stop
from store.shipper import Shipper

POINTS_AT_ONCE = 5_000


def main() -> None:
    chosen = parser(__doc__).parse_args()
    print(machine())
    with tempfile.TemporaryDirectory(prefix="evo-bench-") as folder:
        os.environ[RUNS_VARIABLE] = folder
        try:
            rows = recording(generations=20 if chosen.quick else 80)
            rows.append(long_series(100_000 if chosen.quick else 1_000_000))
        finally:
            stop.main(["--file", str(store_file())], standalone_mode=False)
    show("recording", rows)
    write_json(chosen.json, rows)


class Clock:
    """Adds up the time of calls to methods."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock, self.seconds = clock, 0.0

    def watch(self, owner: type, name: str) -> None:
        """Count the calls of a method from now on."""
        method = getattr(owner, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            started = self._clock()
            try:
                return method(*args, **kwargs)
            finally:
                self.seconds += self._clock() - started

        setattr(owner, name, timed)


def recording(generations: int) -> list[Row]:
    """A run of the lander, and what of its time went into recording."""
    loop, background = Clock(time.perf_counter), Clock(time.thread_time)
    loop.watch(SacredRecorder, "record")
    loop.watch(RunKeeper, "settle")
    background.watch(RunKeeper, "beat")
    background.watch(Shipper, "ship")
    config = {"seed": 3, "num_generations": generations, "stop_fitness": None}
    run = ex.run(named_configs=["lander"], config_updates=config)
    elapsed = find_store().metrics.find_one({"run_id": run._id, "name": "total time elapsed"})
    assert elapsed is not None
    seconds = elapsed["values"][-1]
    return [
        {"task": name, "share": round(clock.seconds / seconds, 5), "seconds": round(seconds, 1)}
        for name, clock in (("loop", loop), ("background", background))
    ]


def long_series(points: int) -> Row:
    """A metric so long that the store shows a part of it."""
    observer = SpoolingObserver(find_store, runs_folder() / "spool")
    about = {"name": "long", "base_dir": str(runs_folder()), "sources": []}
    run_id = observer.started_event(about, "run", {}, datetime.utcnow(), {}, {}, None)
    started = time.perf_counter()
    for start in range(0, points, POINTS_AT_ONCE):
        steps = range(start, start + POINTS_AT_ONCE)
        values, times = np.sin(steps).tolist(), [datetime.utcnow()] * POINTS_AT_ONCE
        series = {"steps": list(steps), "values": values, "timestamps": times}
        observer.log_metrics({"long": series}, {})
        observer.heartbeat_event({}, "", datetime.utcnow(), None)
    observer.completed_event(datetime.utcnow(), 0.0)
    document = find_store().metrics.find_one({"run_id": run_id})
    assert document is not None
    return {
        "task": "long series",
        "points": points,
        "seconds": round(time.perf_counter() - started, 2),
        "bytes": len(bson.encode(document)),
        "shown": len(document["steps"]),
    }


if __name__ == "__main__":
    main()
