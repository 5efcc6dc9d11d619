"""No acknowledged write is lost, whatever ends the server, and many clients at once."""

import functools
import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from commands import ROOT, wait_until
from pymongo.errors import PyMongoError
from stores import connect, served

from store.embedded.note import running_server
from store.embedded.start import embedded_url

WRITERS = 3
KILLS = 20


class Writer(threading.Thread):
    """Appends and inserts until the server is gone; remembers what was acknowledged."""

    def __init__(self, url: str, name: str, first: int) -> None:
        super().__init__()
        self.name, self.next, self.acknowledged = name, first, first
        self._url = url
        self.start()

    def run(self) -> None:
        with connect(self._url, socketTimeoutMS=5000) as client:
            store = client.sacred
            while True:
                number, self.next = self.next, self.next + 1
                push = {"values": {"$each": [number, number + 0.5]}}
                try:
                    store.metrics.update_one({"name": self.name}, {"$push": push}, upsert=True)
                    store.rows.insert_one({"_id": f"{self.name} {number}"})
                except PyMongoError:
                    return
                self.acknowledged = self.next


def have_written(writers: list[Writer], begun: dict[str, int], goal: int) -> bool:
    """True when each has had so many writes acknowledged."""
    return all(writer.acknowledged >= begun[writer.name] + goal for writer in writers)


@pytest.mark.slow
def test_no_acknowledged_write_is_lost_in_kills(tmp_path: Path) -> None:
    file, rng = tmp_path / "store.sqlite", random.Random(1)
    begun = dict.fromkeys(map(str, range(WRITERS)), 0)
    for _ in range(KILLS):
        url = embedded_url(file)
        writers = [Writer(url, name, first) for name, first in begun.items()]
        goal = rng.randrange(1, 60)
        wait_until(functools.partial(have_written, writers, begun, goal), writers)
        note = running_server(file)
        assert note is not None
        os.kill(note.pid, signal.SIGKILL)
        for writer in writers:
            writer.join()
        with connect(embedded_url(file)) as client:
            for writer in writers:
                metric = client.sacred.metrics.find_one({"name": writer.name})
                assert metric is not None
                numbers = [int(value) for value in metric["values"][::2]]
                wanted = range(begun[writer.name], writer.acknowledged)
                assert set(wanted) <= set(numbers)
                assert numbers == sorted(set(numbers))
                assert len(metric["values"]) == 2 * len(numbers)  # no half of a write
                for number in wanted:
                    assert client.sacred.rows.find_one({"_id": f"{writer.name} {number}"})
                begun[writer.name] = writer.next
    with served(file):
        pass


def test_a_kill_loses_nothing(tmp_path: Path) -> None:
    file = tmp_path / "store.sqlite"
    with connect(embedded_url(file)) as client:
        for number in range(100):
            client.sacred.metrics.update_one({"name": "a"}, {"$push": {"v": number}}, upsert=True)
    note = running_server(file)
    assert note is not None
    os.kill(note.pid, signal.SIGKILL)
    with served(file) as client:
        found = client.sacred.metrics.find_one()
        assert found is not None
        assert found["v"] == list(range(100))


ADD = """
import sys, pymongo
store = pymongo.MongoClient(sys.argv[1]).sacred
for number in range(40):
    store.metrics.update_one({"name": "shared"}, {"$push": {"v": number}, "$inc": {"n": 1}})
    store.metrics.update_one({"name": "series"}, {"$push": {"v": {"$each": [number]}}})
"""


def test_processes_share_a_store(tmp_path: Path) -> None:
    with served(tmp_path / "store.sqlite") as client:
        client.sacred.metrics.insert_many([{"name": "shared", "n": 0}, {"name": "series", "v": []}])
        line = [sys.executable, "-c", ADD, embedded_url(tmp_path / "store.sqlite")]
        processes = [subprocess.Popen(line, cwd=ROOT) for _ in range(3)]
        assert [process.wait() for process in processes] == [0, 0, 0]
        for name in ("shared", "series"):
            found = client.sacred.metrics.find_one({"name": name})
            assert found is not None
            assert sorted(found["v"]) == sorted([*range(40)] * 3)
            assert found.get("n", 120) == 120


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    """A file size limit stands for the disk; what was acknowledged stays."""
    file = tmp_path / "store.sqlite"
    script = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, resource.RLIM_INFINITY))\n"
        "from store.server import cli\n"
        "cli(['run', '--file', sys.argv[1]])\n"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(file)], cwd=ROOT) as process:
        wait_until(lambda: running_server(file), "the server")
        kept = 0
        with connect(embedded_url(file)) as client:
            with pytest.raises(PyMongoError, match="cannot be written"):
                for number in range(100):
                    client.sacred.rows.insert_one({"_id": number, "data": bytes(100_000)})
                    kept = number + 1
            assert client.sacred.rows.count_documents({}) == kept > 5
            assert client.sacred.rows.find_one({"_id": kept - 1})
        process.terminate()
    with served(file) as client:
        assert client.sacred.rows.distinct("_id") == list(range(kept))
