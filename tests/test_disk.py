"""A disk that is full: what it does not take waits, and nothing is ever half written."""

import contextlib
import logging
import os
import subprocess
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import bson
import mongomock
import mongomock.gridfs
import pymongo
import pytest
from pymongo.errors import PyMongoError
from stores import served

from store import results
from store.disk import Disk, FullError
from store.results import RESULTS, Result, ResultsFile
from store.shipper import Shipper
from store.spool import Spool

mongomock.gridfs.enable_gridfs_integration()
START = datetime(2026, 1, 2, 3, 4, 5, 678000)
RECORD = 24


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of that size, mounted on a folder while the block lasts."""
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"a small disk cannot be mounted: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A disk of 32 pages of 4 KiB."""
    with small_disk(tmp_path / "small", "128k") as folder:
        yield folder


def fill(folder: Path, but: int = 0) -> Path:
    """Fill the disk, but for so many bytes; returns the file that does it."""
    path = folder / "filler"
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    os.truncate(path, path.stat().st_size - but)
    return path


# --- the files


def test_what_did_not_fit_is_written_when_there_is_room(
    small: Path, caplog: pytest.LogCaptureFixture
) -> None:
    disk = Disk(small, RECORD)
    disk.append("grows", b"1" * RECORD)
    disk.replace("about", b"old")
    filler = fill(small)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            disk.append("grows", b"2" * 200 * RECORD)
            disk.replace("about", b"new" * 3000)
            disk.add_bytes("made", b"made")
    assert not disk.flush()
    assert (small / "about").read_bytes() == b"old"
    assert not (small / "made").exists()
    expected = b"1" * RECORD + b"2" * 600 * RECORD
    assert disk.part("grows", 0, len(expected)) == expected
    assert (disk.read("made"), disk.read("about")) == (b"made", b"new" * 3000)
    filler.unlink()
    with caplog.at_level(logging.WARNING):
        assert disk.flush()
    assert (small / "grows").read_bytes() == expected
    assert (small / "about").read_bytes() == b"new" * 3000
    assert (small / "made").read_bytes() == b"made"
    assert sorted(path.name for path in small.iterdir()) == ["about", "grows", "made"]
    said = [record.getMessage() for record in caplog.records]
    assert [text.partition(":")[0] for text in said] == [
        f"{small} cannot be written to",
        f"{small} can be written to again, and has everything",
    ]


@pytest.mark.parametrize("room", [0, 100, 4096, 9000])
def test_a_record_that_was_half_written_is_written_over(room: int, small: Path) -> None:
    disk = Disk(small, RECORD)
    disk.append("grows", b"1" * 300 * RECORD)
    filler = fill(small, room)
    disk.append("grows", b"2" * 800 * RECORD)
    disk.append("grows", b"3" * RECORD)
    assert not disk.is_written
    seen_by_another = Disk(small, RECORD).length("grows")
    assert seen_by_another % RECORD == 0
    filler.unlink()
    disk.append("grows", b"4" * RECORD)
    expected = b"1" * 300 * RECORD + b"2" * 800 * RECORD + b"3" * RECORD + b"4" * RECORD
    assert (small / "grows").read_bytes() == expected


def test_every_part_is_found_wherever_it_is(small: Path) -> None:
    disk = Disk(small, 1)
    whole = bytes(range(200))
    disk.append("grows", whole[:80])
    fill(small)
    disk.append("grows", b"x" * 5000)  # more than is left of the page
    assert not disk.is_written
    whole = whole[:80] + b"x" * 5000
    for start in (0, 79, 80, 81, 5000):
        for stop in (start, 80, 81, 5080):
            assert disk.part("grows", start, stop) == whole[start:stop]


def test_files_that_speak_of_others_wait_for_them(small: Path, tmp_path: Path) -> None:
    disk = Disk(small, RECORD)
    (tmp_path / "large").write_bytes(bytes(20_000))
    filler = fill(small, 9000)
    disk.add("large", tmp_path / "large")
    disk.replace("about", b"large is there")
    assert not (small / "about").exists()
    assert not (small / "large").exists()
    filler.unlink()
    assert disk.flush()
    assert (small / "about").exists()


def test_the_memory_has_a_bound(small: Path, tmp_path: Path) -> None:
    disk = Disk(small, RECORD, most_held=30_000)
    (tmp_path / "large").write_bytes(bytes(20_000))
    filler = fill(small)
    disk.add("one", tmp_path / "large")
    with pytest.raises(FullError):
        disk.add("two", tmp_path / "large")
    disk.append("grows", bytes(400 * RECORD))
    with pytest.raises(FullError):
        disk.append("grows", b"1" * 400 * RECORD)
    with pytest.raises(FullError):
        disk.add_bytes("three", bytes(10_000))
    filler.unlink()
    disk.append("grows", b"2" * RECORD)
    assert (small / "grows").read_bytes() == bytes(400 * RECORD) + b"2" * RECORD
    assert sorted(path.name for path in small.iterdir()) == ["grows", "one"]


def test_a_file_that_is_not_there_is_no_fault_of_the_disk(small: Path, tmp_path: Path) -> None:
    disk = Disk(small, RECORD)
    with pytest.raises(FileNotFoundError):
        disk.add("one", tmp_path / "nowhere")
    assert disk.is_written


# --- the spool


def entry(**changes: Any) -> dict[str, Any]:
    return {"_id": 1, "start_time": START, "info": {}, "status": "RUNNING", **changes}


def log(spool: Spool, steps: range) -> None:
    spool.add_points("loss", steps, [step / 8 for step in steps], [START] * len(steps))


def add(spool: Spool, folder: Path, name: str, content: bytes) -> None:
    (folder / "file").write_bytes(content)
    spool.add_artifact(name, folder / "file", None, "text/plain")


@pytest.fixture
def full_spool(small: Path, tmp_path: Path) -> Spool:
    """A spool that lies on a disk which became full."""
    spool = Spool(small / "spool")
    spool.put_run(entry())
    log(spool, range(100))
    add(spool, tmp_path, "early", b"early")
    fill(small)
    log(spool, range(100, 700))
    add(spool, tmp_path, "late", b"late" * 2000)
    spool.put_run(entry(info={"a": "b" * 5000}))
    assert not spool.is_written
    return spool


def check_stored(database: Any, names: list[str]) -> None:
    assert database.metrics.find_one({"name": "loss"})["steps"] == list(range(700))
    run = database.runs.find_one({"_id": 1})
    assert run["info"]["a"] == "b" * 5000
    assert [each["name"] for each in run["artifacts"]] == names
    ids = [each["file_id"] for each in run["artifacts"]]
    assert database.fs.files.count_documents({"_id": {"$in": ids}}) == len(names)


def test_a105_the_store_gets_what_the_disk_did_not_take(full_spool: Spool) -> None:
    database: Any = mongomock.MongoClient().sacred
    Shipper(full_spool, database).ship()
    assert full_spool.is_shipped
    check_stored(database, ["early", "late"])


def test_a105_the_disk_gets_it_when_it_has_room(full_spool: Spool, small: Path) -> None:
    (small / "filler").unlink()
    assert full_spool.flush()
    database: Any = mongomock.MongoClient().sacred
    Shipper(Spool(full_spool.folder), database).ship()
    check_stored(database, ["early", "late"])


def test_a_process_killed_with_a_full_disk_leaves_what_was_acknowledged(
    full_spool: Spool, tmp_path: Path
) -> None:
    again = Spool(full_spool.folder)
    assert again.count("loss") >= 100
    assert again.points("loss")["step"].tolist() == list(range(again.count("loss")))
    assert [each.name for each in again.artifacts()] == ["early"]
    assert again.run()[0] == entry()
    database: Any = mongomock.MongoClient().sacred
    Shipper(again, database).ship()
    assert [each["name"] for each in database.runs.find_one({})["artifacts"]] == ["early"]


def test_what_the_store_got_from_memory_is_replaced_after_a_kill(
    full_spool: Spool, small: Path
) -> None:
    database: Any = mongomock.MongoClient().sacred
    Shipper(full_spool, database).ship()
    (small / "filler").unlink()
    again = Spool(full_spool.folder)
    again.truncate(50)
    log(again, range(50, 60))
    Shipper(again, database).ship()
    assert database.metrics.find_one({"name": "loss"})["steps"] == list(range(60))


def test_it_is_told_what_is_lost(full_spool: Spool) -> None:
    lost = full_spool.give_up()
    assert "late" in lost
    assert "the newest values of 1 metrics" in lost
    assert "how the run ended" in lost


def test_of_files_that_were_replaced_the_memory_is_free(full_spool: Spool, tmp_path: Path) -> None:
    for number in range(5):
        add(full_spool, tmp_path, "best", bytes([number]) * 5000)
    assert full_spool.replaced_artifacts() == []
    database: Any = mongomock.MongoClient().sacred
    Shipper(full_spool, database).ship()
    check_stored(database, ["early", "late", "best"])
    assert database.fs.files.count_documents({}) == 3


def test_checkpoints_that_do_not_fit_leave_the_older_ones(small: Path) -> None:
    checkpoints = Spool(small / "spool").checkpoints
    checkpoints.save(1, {"number": 1})
    filler = fill(small)
    with pytest.raises(OSError, match="No space left"):
        checkpoints.save(2, {"number": 2, "long": "x" * 5000})
    assert checkpoints.newest() == (1, {"number": 1})
    assert [path.name for path in checkpoints.folder.iterdir()] == ["000000001.npz"]
    filler.unlink()
    checkpoints.save(3, {"number": 3})
    assert checkpoints.numbers() == [3, 1]


# --- the embedded store


def test_the_embedded_store_says_so_and_works_again_when_there_is_room(tmp_path: Path) -> None:
    with (
        small_disk(tmp_path / "small", "4m") as folder,
        served(folder / "store.sqlite") as client,
    ):
        database = client.sacred
        kept = [database.rows.insert_one({"data": bytes(1000)}).inserted_id for _ in range(20)]
        filler = fill(folder)
        refusals = 0
        for _ in range(400):
            try:
                kept.append(database.rows.insert_one({"data": bytes(10_000)}).inserted_id)
            except PyMongoError as error:
                assert not isinstance(error, pymongo.errors.ConnectionFailure)
                assert "cannot be written: database or disk is full" in str(error)
                refusals += 1
            if refusals >= 5:
                break
        assert refusals == 5
        assert {each["_id"] for each in database.rows.find({})} == set(kept)
        filler.unlink()
        kept.append(database.rows.insert_one({"data": bytes(10_000)}).inserted_id)
        database.rows.update_one({"_id": kept[0]}, {"$set": {"data": bson.ObjectId()}})
        assert {each["_id"] for each in database.rows.find({})} == set(kept)
        filled = database.metrics
        filled.update_one({"_id": 1}, {"$push": {"values": {"$each": [1, 2]}}}, upsert=True)
        assert filled.find_one({})["values"] == [1, 2]  # type: ignore[index]


def row(number: int) -> Result:
    return Result(number, 0, "candidate", 0.5, 3, 1, "w" * 200, 0.1, 1.5, True)


def generations(file: Path) -> list[str]:
    return [line.partition(",")[0] for line in file.read_text().splitlines()]


def test_results_wait_in_memory_while_the_disk_is_full(
    small: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = ResultsFile(small)
    file.write([row(0)])
    filler = fill(small, but=0)
    for number in range(1, 60):
        file.write([row(number)])
    assert caplog.text.count("results wait in memory") == 1
    filler.unlink()
    file.write([row(60)])
    assert "is whole again" in caplog.text
    assert generations(small / RESULTS) == ["generation", *map(str, range(61))]
    assert file.state() == (small / RESULTS).stat().st_size


def test_results_beyond_the_memory_are_told_to_be_lost(
    small: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "MOST_HELD", 1000)
    fill(small)
    file = ResultsFile(small)
    for number in range(8):
        file.write([row(number)])
    assert "has lost" in caplog.text
