"""One big table of Gaussian noise, the same on every machine, addressed by an index."""

import contextlib
import fcntl
import hashlib
import logging
import mmap
import os
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

log = logging.getLogger(__name__)

BLOCK = 1 << 20  # floats; each block has a seed of its own, so that all cores can fill the table
DIGEST_BYTES = 32  # behind the floats: says that the table is whole, and which one it is
STRIDE = 1 << 19  # floats; a longer vector is summed stride by stride to stay in the cache


class NoiseTable:
    """float32[size] of standard normals made from ``seed``; a perturbation is a slice of it.

    Salimans et al. 2017, section 2.1: sharing the table turns a perturbation of any dimension
    into one integer on the wire. All processes of a machine map one copy: the first to come
    makes it, the last to leave deletes it.

    Attributes:
        fingerprint: tells tables apart; equal for equal size, seed and NumPy stream.
    """

    def __init__(self, size: int, seed: int) -> None:
        """Attach to the machine's table, making it if it is not there yet.

        Args:
            size: floats in the table, at least 1.
            seed: non-negative.
        Raises:
            ValueError: a size or seed out of range, or no room for the table.
        """
        if size < 1 or seed < 0:
            raise ValueError(
                f"noise_size={size}, noise_seed={seed}: need a size ≥ 1 and a seed ≥ 0"
            )
        self.size, self.seed = size, seed
        _sweep()
        self._path = _folder() / f"evo-{os.getuid()}-noise-{size}-{seed}"
        self._file = _open_whole(self._path, size, seed)
        try:
            # Private pages: a stray write would change this process's view only.
            self._map = mmap.mmap(self._file, size * 4 + DIGEST_BYTES, access=mmap.ACCESS_COPY)
        except BaseException:
            os.close(self._file)
            raise
        self._raw = np.frombuffer(self._map, np.float32, size)
        self._noise = self._raw.view()
        self._noise.setflags(write=False)
        self.fingerprint = self._map[size * 4 :].hex()[:16]

    def get(self, index: int, dim: int) -> np.ndarray:
        """The perturbation at ``index``: float32[dim], a read-only view."""
        return self._noise[index : index + dim]

    def sample(self, rng: np.random.Generator, count: int, dim: int) -> np.ndarray:
        """Random indices, each with room for ``dim`` values, the last slice included.

        Returns:
            int64[count].
        Raises:
            ValueError: the table has fewer than ``dim`` floats.
        """
        check_room(self.size, dim)
        return rng.integers(0, self.size - dim + 1, size=count)

    def weighted_sum(self, weights: np.ndarray, indices: np.ndarray, dim: int) -> np.ndarray:
        """The sum of ``weights[k] * get(indices[k], dim)``, read straight from the table.

        Slices are added in the order of their index: neighbours share cache lines, and the
        order, hence every rounding, is the same whoever calls.

        Args:
            weights: float32[n].
            indices: int64[n].
        Returns:
            float32[dim].
        """
        import torch

        order = np.argsort(indices, kind="stable")
        terms = list(zip(weights[order].tolist(), indices[order].tolist(), strict=True))
        noise = torch.from_numpy(self._raw)
        total = torch.zeros(dim)
        for start in range(0, dim, STRIDE):
            stop = min(start + STRIDE, dim)
            part = total[start:stop]
            for weight, index in terms:
                part.add_(noise[index + start : index + stop], alpha=weight)
        return total.numpy()

    def __enter__(self) -> "NoiseTable":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the table; the last holder deletes it."""
        if self._file < 0:
            return
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _unlink_if_same(self._path, self._file)
        os.close(self._file)
        self._file = -1


def check_room(size: int, dim: int) -> None:
    """Refuse a policy that does not fit a table: ValueError with the size that would."""
    if dim > size:
        raise ValueError(
            f"noise_size={size} is too small for a policy of {dim} parameters:"
            f" it must be at least {dim}, better {max(10 * dim, 1_000_000)}"
        )


def _folder() -> Path:
    """Memory-backed where the system offers it; a table is made again in a second."""
    shared = Path("/dev/shm")
    return shared if os.access(shared, os.W_OK) else Path(tempfile.gettempdir())


def _open_whole(path: Path, size: int, seed: int) -> int:
    """Open the table as one of its holders; who comes first makes it."""
    while True:
        file = _open_shared(path)
        try:
            if not _is_whole(file, size):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if not _is_whole(file, size):
                    _fill(file, size, seed)
                fcntl.flock(file, fcntl.LOCK_SH)
            return file
        except BlockingIOError:  # others have come at the same moment: one of us will be alone
            os.close(file)
            time.sleep(0.001 * (1 + threading.get_native_id() % 20))
        except BaseException:
            os.close(file)
            raise


def _open_shared(path: Path) -> int:
    """Open the file as one of its holders; waits while another process fills it."""
    while True:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        file = os.open(path, flags, 0o600)
        fcntl.flock(file, fcntl.LOCK_SH)
        status = os.fstat(file)
        if status.st_uid != os.getuid():
            os.close(file)
            raise ValueError(f"{path} belongs to user {status.st_uid}, not to us: remove it")
        if status.st_nlink > 0:
            return file
        os.close(file)  # its last holder deleted it between our open and our lock


def _is_whole(file: int, size: int) -> bool:
    if os.fstat(file).st_size != size * 4 + DIGEST_BYTES:
        return False
    return any(os.pread(file, DIGEST_BYTES, size * 4))


def _fill(file: int, size: int, seed: int) -> None:
    """Write the table on all cores, the digest last: a half-made table is never used."""
    os.ftruncate(file, 0)
    total = size * 4 + DIGEST_BYTES
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file, 0, total)  # fails here rather than with SIGBUS later
        else:
            os.ftruncate(file, total)
    except OSError as error:
        os.ftruncate(file, 0)
        raise ValueError(
            f"no room for a noise table of {total / 1e6:.0f} MB: {error.strerror};"
            " choose a smaller noise_size"
        ) from error
    with mmap.mmap(file, total) as mapped:
        values = np.frombuffer(mapped, np.float32, size)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            blocks = [values[start : start + BLOCK] for start in range(0, size, BLOCK)]
            digests = list(pool.map(_fill_block, blocks, range(len(blocks)), [seed] * len(blocks)))
        del values, blocks  # the map cannot be closed while arrays look into it
        mapped[size * 4 :] = hashlib.sha256(b"".join(digests)).digest()


def _fill_block(block: np.ndarray, number: int, seed: int) -> bytes:
    generator = np.random.Generator(np.random.SFC64(np.random.SeedSequence([seed, number])))
    generator.standard_normal(dtype=np.float32, out=block)
    return hashlib.sha256(block.data).digest()


def _sweep() -> None:
    """Delete tables of ours that nobody holds: left by processes that were killed."""
    for path in _folder().glob(f"evo-{os.getuid()}-noise-*"):
        with contextlib.suppress(OSError):
            file = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _unlink_if_same(path, file)
            finally:
                os.close(file)


def _unlink_if_same(path: Path, file: int) -> None:
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_ino == os.fstat(file).st_ino:
            path.unlink()
