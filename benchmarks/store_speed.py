"""How fast the embedded store takes metrics, against plain SQLite.

    python benchmarks/store_speed.py [--quick] [--json FILE]

Metrics come as Sacred's observer writes them: 24 series of a run, each push appends steps, values
and timestamps to one of them, and waits until that is on the disk. The reference writes the same
bytes as rows of a table, one transaction each, in this process: what the disk and SQLite cost with
nothing around them. `pymongo` and the server share the cores, so time is that on the wall.
"""

import contextlib
import itertools
import sqlite3
import statistics
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import bson
import pymongo
from common import Row, machine, parser, show, take_turns, write_json

from store.embedded.start import embedded_url
from store.server import stop

SERIES = 24
BATCHES = (1, 10, 100, 1000)  # values per push
POINTS = 20_000  # to which our observer lets a metric grow
NOW = datetime.now(UTC)


def main() -> None:
    chosen = parser(__doc__).parse_args()
    print(machine())
    with tempfile.TemporaryDirectory(prefix="evo-store-") as folder:
        file = Path(folder) / "store.sqlite"
        try:
            with pymongo.MongoClient[dict[str, Any]](embedded_url(file)) as client:
                rows = [rate_row(client.sacred, file, batch, chosen.quick) for batch in BATCHES]
                show("metric values written", rows)
                long_rows = [long_row(client.sacred, 200 if chosen.quick else 1000)]
                show(f"one push of 10 values to a metric of {POINTS} points", long_rows)
        finally:
            stop.main(["--file", str(file)], standalone_mode=False)
    write_json(chosen.json, rows + long_rows)


def push(start: int, count: int) -> dict[str, dict[str, list[Any]]]:
    """What Sacred appends for ``count`` values of one metric."""
    steps = list(range(start, start + count))
    values = [1 / (step + 1) for step in steps]
    filled = {"steps": steps, "values": values, "timestamps": [NOW] * count}
    return {name: {"$each": each} for name, each in filled.items()}


def rate_row(database: Any, file: Path, batch: int, quick: bool) -> Row:
    """Values per second in pushes of one size, and the same from SQLite alone."""
    pushes = min(SERIES * 20, SERIES * POINTS // batch) // (2 if quick else 1)
    numbers = itertools.count()
    with contextlib.closing(plain_sqlite(file.with_name(f"plain-{batch}.sqlite"))) as plain:

        def through_the_store() -> float:
            run_id = f"{batch}-{next(numbers)}"
            for number in range(pushes):
                query = {"run_id": run_id, "name": f"metric {number % SERIES}"}
                change = {"$push": push(number // SERIES * batch, batch)}
                database.metrics.update_one(query, change, upsert=True)
            return pushes * batch

        def by_sqlite_alone() -> float:
            for number in range(pushes):
                body = bson.encode(push(number // SERIES * batch, batch))
                with plain:
                    plain.execute("INSERT INTO rows(body) VALUES (?)", (body,))
            return pushes * batch

        ways = {"store": through_the_store, "sqlite": by_sqlite_alone}
        found = take_turns(ways, 3 if quick else 7, time.perf_counter)
    return {
        "task": "metrics",
        "values_per_push": batch,
        "values_per_second": round(found.rate("store")),
        "milliseconds_per_push": round(1e3 * batch / found.rate("store"), 3),
        "sqlite_values_per_second": round(found.rate("sqlite")),
        "of_sqlite": round(found.ratio("store", "sqlite"), 3),
    }


def plain_sqlite(file: Path) -> sqlite3.Connection:
    """A database as safe as the store's."""
    plain = sqlite3.connect(file)
    plain.execute("PRAGMA journal_mode = WAL")
    plain.execute("PRAGMA synchronous = FULL")
    plain.execute("CREATE TABLE rows(number INTEGER PRIMARY KEY, body BLOB)")
    return plain


def long_row(database: Any, pushes: int) -> Row:
    """Pushes to a metric that is long already, and reading it."""
    query = {"run_id": 1, "name": "long"}
    for start in range(0, POINTS, 1000):
        database.metrics.update_one(query, {"$push": push(start, 1000)}, upsert=True)
    times = []
    for number in range(pushes):
        change = {"$push": push(POINTS + 10 * number, 10)}
        started = time.perf_counter()
        database.metrics.update_one(query, change)
        times.append(1e3 * (time.perf_counter() - started))
    started = time.perf_counter()
    found = database.metrics.find_one(query)
    assert len(found["values"]) == POINTS + 10 * pushes
    return {
        "task": "long metric",
        "points": POINTS,
        "median_milliseconds": round(statistics.median(times), 3),
        "mean_milliseconds": round(statistics.mean(times), 3),
        "worst_milliseconds": round(max(times), 1),
        "milliseconds_to_read": round(1e3 * (time.perf_counter() - started), 1),
    }


if __name__ == "__main__":
    main()
