"""The code that a cluster runs: what is committed here, packed in one file.

Only what git knows is packed, so neither data nor secrets that lie about can get in. The same
commit gives the same bytes.
"""

import gzip
import hashlib
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster.jobs import ROOT
from cluster.providers import ProviderError

MAX_BYTES = 100_000_000
SHOWN = 5  # of the files that a complaint names


@dataclass(frozen=True)
class Bundle:
    """A packed commit."""

    data: bytes  # .tar.gz
    commit: str
    left_out: tuple[str, ...]  # files whose changes are in no commit

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def name(self) -> str:
        """Short enough for a tag, and another for other contents."""
        return f"{self.commit[:10]}-{self.sha256[:10]}"


def make_bundle(root: Path | None = None, *, committed_only: bool = False) -> Bundle:
    """Pack the last commit.

    Args:
        root: of a checkout; None: ours.
        committed_only: go on although there are changes that it lacks.
    Raises:
        ProviderError: there is no commit, it lacks changes, or it is too large.
    """
    root = root or ROOT
    left_out = changes(root)
    if left_out and not committed_only:
        raise ProviderError(
            f"not in the bundle, which holds what is committed: {_some(left_out)}; commit them, or"
            " say --committed-only"
        )
    data = gzip.compress(archive(root), mtime=0)
    if len(data) > MAX_BYTES:
        raise ProviderError(
            f"the bundle has {len(data):,} bytes, {MAX_BYTES:,} are allowed; its largest files:"
            f" {_some(_largest(root))}"
        )
    return Bundle(data, _git(root, "rev-parse", "HEAD").decode().strip(), tuple(left_out))


def archive(root: Path | None = None) -> bytes:
    """The last commit as a tar file."""
    return _git(root or ROOT, "archive", "--format=tar", "HEAD")


def changes(root: Path) -> list[str]:
    """Files that differ from the last commit, or are unknown to it and not ignored."""
    said = _git(root, "status", "--porcelain=v1", "-z", "--no-renames").decode(errors="replace")
    return sorted(line[3:] for line in said.split("\0") if line)


def _largest(root: Path) -> list[str]:
    rows = _git(root, "ls-tree", "-r", "-l", "-z", "HEAD").decode(errors="replace").split("\0")
    found = [(row.split(maxsplit=3)[3].partition("\t"), row) for row in rows if row]
    sized = sorted(((int(size), name) for (size, _, name), _ in found if size.isdigit()))
    return [f"{name} ({size:,})" for size, name in reversed(sized)]


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _git(root: Path, *words: str) -> bytes:
    try:
        done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, check=False)
    except FileNotFoundError:
        raise ProviderError("no git on the PATH: the bundle is what git knows") from None
    if done.returncode:
        said = " ".join(done.stderr.decode(errors="replace").split())
        raise ProviderError(f"no bundle of {root}: {said}")
    return done.stdout
