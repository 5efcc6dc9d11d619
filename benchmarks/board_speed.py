"""How long Omniboard takes to show a run of very many generations, in a real browser.

    python benchmarks/board_speed.py [--quick] [--json FILE]

A run is written to an embedded store as a head would write it: 24 metrics, a million points each,
of which the store shows a part. `table` is the time until the browser shows the list of runs,
`opened` that from a click on the run until its metrics are drawn; medians of five pages. Needs
npm, a browser and requirements-dev.txt.
"""

import contextlib
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from common import ROOT, Row, machine, parser, show, write_json
from playwright.sync_api import sync_playwright

from store.location import RUNS_VARIABLE, find_store, runs_folder, store_file
from store.observer import SpoolingObserver
from store.server import stop

METRICS, PAGES, PORT = 24, 5, 9876
POINTS_AT_ONCE = 5_000
BROWSERS = ("chromium", "google-chrome")
ROW = ".fixedDataTableRowLayout_rowWrapper"


def main() -> None:
    chosen = parser(__doc__).parse_args()
    print(machine())
    installed = runs_folder() / "board"
    with tempfile.TemporaryDirectory(prefix="evo-bench-") as folder:
        os.environ[RUNS_VARIABLE] = folder
        if installed.exists():  # else the board installs itself for this once
            (Path(folder) / "board").symlink_to(installed.resolve())
        try:
            row = long_run(100_000 if chosen.quick else 1_000_000)
            with board():
                row.update(pages())
        finally:
            stop.main(["--file", str(store_file())], standalone_mode=False)
    show("a long run in Omniboard", [row])
    write_json(chosen.json, [row])


def long_run(points: int) -> Row:
    """Write a run, without evolving anything."""
    observer = SpoolingObserver(find_store, runs_folder() / "spool")
    about = {"name": "long", "base_dir": str(runs_folder()), "sources": []}
    observer.started_event(about, "run", {}, datetime.utcnow(), {}, {}, None)
    for start in range(0, points, POINTS_AT_ONCE):
        steps = range(start, start + POINTS_AT_ONCE)
        values, times = np.sin(steps).tolist(), [datetime.utcnow()] * POINTS_AT_ONCE
        series = {"steps": list(steps), "values": values, "timestamps": times}
        observer.log_metrics({f"metric {n}": series for n in range(METRICS)}, {})
    observer.heartbeat_event({}, "", datetime.utcnow(), None)
    observer.completed_event(datetime.utcnow(), 0.0)
    document = find_store().metrics.find_one({})
    assert document is not None
    return {
        "task": "long run",
        "metrics": METRICS,
        "points": points,
        "shown": len(document["steps"]),
    }


@contextlib.contextmanager
def board() -> Iterator[None]:
    """Omniboard on the store."""
    command = [sys.executable, str(ROOT / "store/board.py"), f"--port={PORT}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        while "all runs at" not in (line := process.stdout.readline()):
            assert line, "the board has not started"
        try:
            yield
        finally:
            process.send_signal(signal.SIGINT)


def pages() -> Row:
    """Seconds until things are seen, each time on a page of its own."""
    browser = next(path for name in BROWSERS if (path := shutil.which(name)))
    with sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        context = chromium.new_context(viewport={"width": 1700, "height": 1100})
        times = [one_page(context.new_page()) for _ in range(PAGES)]
        chromium.close()
    table, opened = (round(statistics.median(each), 2) for each in zip(*times, strict=True))
    return {"seconds_table": table, "seconds_opened": opened}


def one_page(page: Any) -> tuple[float, float]:
    """Seconds to the table, and from there to the metrics of its run."""
    began = time.perf_counter()
    page.goto(f"http://127.0.0.1:{PORT}/sacred")
    page.locator(ROW).get_by_text("COMPLETED", exact=True).wait_for()
    table = time.perf_counter()
    page.locator(ROW).nth(1).click(position={"x": 60, "y": 12})
    page.locator(".scatterlayer path.js-line").nth(METRICS - 1).wait_for(state="attached")
    opened = time.perf_counter()
    page.close()
    return table - began, opened - table


if __name__ == "__main__":
    main()
