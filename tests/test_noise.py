"""The noise table: the same everywhere, one per machine, and nothing left behind."""

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import WAIT_SECONDS

from evolution import noise as noise_module
from evolution.noise import BLOCK, DIGEST_BYTES, STRIDE, NoiseTable, check_room

FORK = multiprocessing.get_context("fork")
OPEN_ELSEWHERE = """
import sys
from pathlib import Path
from evolution import noise
noise._folder = lambda: Path(sys.argv[1])
with noise.NoiseTable(3000, 5) as table:
    print(table.fingerprint, table.get(0, 3000).tobytes().hex())
"""


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where this test's tables are kept: no other process of the machine looks there."""
    monkeypatch.setattr(noise_module, "_folder", lambda: tmp_path)
    return tmp_path


class Holder:
    """Another process that holds a table until it is told to let go, or killed."""

    def __init__(self, size: int, seed: int, prepare: Callable[[], None]) -> None:
        self._ours, theirs = FORK.Pipe()
        self.process: ForkProcess = FORK.Process(target=self._hold, args=(theirs, size, seed))
        self._prepare = prepare
        self.process.start()
        theirs.close()

    def _hold(self, pipe: Connection, size: int, seed: int) -> None:
        self._ours.close()
        self._prepare()
        with NoiseTable(size, seed) as table:
            status = os.fstat(table._file)
            pipe.send((table.fingerprint, status.st_ino, table.get(0, size).tobytes()))
            pipe.poll(None)  # until told, or until the test has died

    def says(self) -> Any:
        assert self._ours.poll(WAIT_SECONDS), "the other process does not get its table"
        return self._ours.recv()

    def end(self) -> None:
        self._ours.send("let go")
        self.process.join(WAIT_SECONDS)

    def kill(self) -> None:
        self.process.kill()
        self.process.join()


@pytest.fixture
def hold() -> Iterator[Callable[..., Holder]]:
    made: list[Holder] = []

    def start(size: int, seed: int, prepare: Callable[[], None] = lambda: None) -> Holder:
        made.append(Holder(size, seed, prepare))
        return made[-1]

    yield start
    for holder in made:
        holder.kill()


# --- the values


def test_values_are_independent_standard_normals() -> None:
    with NoiseTable(2 * BLOCK + 1000, 3) as table:
        values = table.get(0, table.size)
        assert values.dtype == np.float32
        half = np.array_split(values, 2)
        for block in (values[:BLOCK], values[BLOCK : 2 * BLOCK], values[2 * BLOCK :]):
            assert abs(block.mean()) < 4 / np.sqrt(len(block))
            assert abs(block.std() - 1) < 4 / np.sqrt(2 * len(block))
        assert abs(np.mean(np.abs(values) < 1.959964) - 0.95) < 0.001
        assert abs(np.corrcoef(half)[0, 1]) < 0.005
        assert abs(np.corrcoef(values[:BLOCK], values[BLOCK : 2 * BLOCK])[0, 1]) < 0.005
        assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) < 0.005


def test_a015_equal_size_and_seed_give_equal_bytes_in_any_process(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    command = [sys.executable, "-c", OPEN_ELSEWHERE, str(elsewhere)]
    other = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    with NoiseTable(3000, 5) as table:
        assert other == [table.fingerprint, table.get(0, 3000).tobytes().hex()]
    assert not list(elsewhere.iterdir())


def test_a015_fingerprint_tells_size_and_seed() -> None:
    made = []
    for size, seed in ((100, 0), (101, 0), (100, 1), (100, 0)):
        with NoiseTable(size, seed) as table:
            made.append(table.fingerprint)
    assert made[0] == made[3]
    assert len(set(made)) == 3


def test_a_perturbation_is_a_read_only_slice() -> None:
    with NoiseTable(50, 1) as table:
        whole = table.get(0, 50)
        assert np.array_equal(table.get(13, 7), whole[13:20])
        with pytest.raises(ValueError, match="read-only"):
            table.get(13, 7)[0] = 0


def test_a015_indices_cover_all_slices_the_last_included() -> None:
    rng = np.random.default_rng(0)
    with NoiseTable(20, 1) as table:
        indices = table.sample(rng, 2000, 8)
        assert indices.dtype == np.int64
        counts = np.bincount(indices)
        assert len(counts) == 13
        assert counts.min() > 100
        assert table.sample(rng, 50, 20).tolist() == [0] * 50
        assert len(table.get(12, 8)) == 8


def test_a015_too_small_a_table_is_refused_with_the_size_needed() -> None:
    with NoiseTable(20, 1) as table:
        with pytest.raises(ValueError, match=r"noise_size=20 .* 21 parameters.* at least 21"):
            table.sample(np.random.default_rng(0), 1, 21)
        check_room(20, 20)


@pytest.mark.parametrize(("size", "seed"), [(0, 0), (-1, 0), (10, -1)])
def test_size_and_seed_out_of_range_are_refused(size: int, seed: int, folder: Path) -> None:
    with pytest.raises(ValueError, match=f"noise_size={size}, noise_seed={seed}"):
        NoiseTable(size, seed)
    assert not list(folder.iterdir())


def test_no_room_is_said_and_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    def full(file: int, offset: int, length: int) -> None:
        os.ftruncate(file, length // 2)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(ValueError, match=r"no room for a noise table of 4 MB.*smaller noise_size"):
        NoiseTable(1_000_000, 1)
    assert sum(path.stat().st_size for path in folder.iterdir()) == 0


# --- the sum


@pytest.mark.parametrize("dim", [1, 17, 5000])
def test_a010_weighted_sum_equals_the_plain_sum(dim: int) -> None:
    rng = np.random.default_rng(dim)
    with NoiseTable(20_000, 2) as table:
        indices = table.sample(rng, 60, dim)
        weights = rng.uniform(-1, 1, 60).astype(np.float32)
        rows = np.stack([table.get(int(i), dim) for i in indices]).astype(np.float64)
        summed = table.weighted_sum(weights, indices, dim)
        assert summed.dtype == np.float32
        np.testing.assert_allclose(summed, weights.astype(np.float64) @ rows, atol=2e-5)


def test_a010_weighted_sum_of_a_vector_longer_than_a_stride() -> None:
    dim = STRIDE + 1000
    with NoiseTable(dim + 500, 2) as table:
        indices, weights = np.array([500, 0, 123]), np.array([0.5, -1.25, 2.0], np.float32)
        plain = np.zeros(dim)
        for weight, index in zip(weights, indices, strict=True):
            plain += float(weight) * table.get(int(index), dim)
        np.testing.assert_allclose(table.weighted_sum(weights, indices, dim), plain, atol=1e-5)


def test_a010_weighted_sum_is_the_same_bits_in_any_order_and_stride(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(4)
    with NoiseTable(20_000, 2) as table:
        indices = rng.permutation(19_000)[:50]
        weights = rng.normal(size=50).astype(np.float32)
        expected = table.weighted_sum(weights, indices, 1000)
        order = rng.permutation(50)
        assert np.array_equal(table.weighted_sum(weights[order], indices[order], 1000), expected)
        for stride in (1, 7, 999, 1000, 1001):
            monkeypatch.setattr(noise_module, "STRIDE", stride)
            assert np.array_equal(table.weighted_sum(weights, indices, 1000), expected)
        assert np.array_equal(table.weighted_sum(weights[:0], indices[:0], 10), np.zeros(10))


# --- one table for all processes of a machine


def test_a015_all_processes_map_one_file_and_the_last_deletes_it(
    folder: Path, hold: Callable[..., Holder]
) -> None:
    table = NoiseTable(5000, 9)
    (path,) = folder.iterdir()
    status = path.stat()
    others = [hold(5000, 9), hold(5000, 9)]
    for other in others:
        assert other.says() == (
            table.fingerprint,
            status.st_ino,
            table.get(0, 5000).tobytes(),
        )
    assert list(folder.iterdir()) == [path]
    assert path.stat().st_mtime_ns == status.st_mtime_ns  # nobody wrote it again
    table.close()
    table.close()  # twice does no harm
    others[0].end()
    assert list(folder.iterdir()) == [path]
    others[1].end()
    assert not list(folder.iterdir())


def test_a015_only_the_owner_can_read_the_file(folder: Path) -> None:
    with NoiseTable(10, 1):
        (path,) = folder.iterdir()
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.stat().st_size == 10 * 4 + DIGEST_BYTES


def test_a015_who_comes_at_the_same_moment_gets_the_table_too(hold: Callable[..., Holder]) -> None:
    """All find the file empty and want to fill it: one does, and the others go on then."""
    barrier = FORK.Barrier(3)
    look = noise_module._is_whole
    first = True

    def all_look_at_once(file: int, size: int) -> bool:
        nonlocal first
        found = look(file, size)
        if first:
            first = False
            barrier.wait(WAIT_SECONDS)
        return found

    def prepare() -> None:
        noise_module._is_whole = all_look_at_once

    others = [hold(5000, 9, prepare) for _ in range(3)]
    assert len({other.says() for other in others}) == 1


def test_a015_tables_of_killed_processes_are_swept(
    folder: Path, hold: Callable[..., Holder]
) -> None:
    foreign = [folder / f"evo-{os.getuid() + 1}-noise-10-1", folder / "evo-other-file"]
    for path in foreign:
        path.touch()
    killed, living = hold(5000, 1), hold(5000, 2)
    killed.says(), living.says()
    killed.kill()
    names = {path.name for path in folder.iterdir() if path not in foreign}
    mine, theirs, new = (f"evo-{os.getuid()}-noise-{end}" for end in ("5000-1", "5000-2", "10-3"))
    assert names == {mine, theirs}
    with NoiseTable(10, 3):
        assert {path.name for path in folder.iterdir() if path not in foreign} == {theirs, new}
    assert all(path.exists() for path in foreign)


def test_a015_a_half_made_table_is_made_again(folder: Path) -> None:
    with NoiseTable(5000, 1) as table:
        whole = table.get(0, 5000).copy()
    path = folder / f"evo-{os.getuid()}-noise-5000-1"
    for debris in (b"", b"x" * 100, b"x" * 20_000 + bytes(DIGEST_BYTES)):
        path.write_bytes(debris)
        path.chmod(0o600)
        with NoiseTable(5000, 1) as table:
            assert np.array_equal(table.get(0, 5000), whole)


def test_a015_a_half_made_table_is_not_whole(tmp_path: Path) -> None:
    """Not even when a sweep has not come by: the digest is written last."""
    for debris, whole in ((b"", False), (bytes(52), False), (bytes(51) + b"d", True)):
        (tmp_path / "half").write_bytes(debris)
        with (tmp_path / "half").open("rb") as file:
            assert noise_module._is_whole(file.fileno(), 5) == whole


def test_a_file_of_another_user_is_not_trusted(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    monkeypatch.setattr(noise_module, "_sweep", lambda: None)
    path = folder / f"evo-{os.getuid()}-noise-10-1"
    path.symlink_to(folder / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        NoiseTable(10, 1)
    assert not (folder / "elsewhere").exists()


def test_tables_may_be_opened_and_closed_by_many_threads_and_times(folder: Path) -> None:
    def use(number: int) -> str:
        with NoiseTable(2000, number % 3) as table:
            return f"{number % 3} {table.fingerprint}"

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(use, range(60)))) == 3
    assert not list(folder.iterdir())
