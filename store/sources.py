"""The source files of a run, each stored once however many runs show it."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gridfs import GridFS


def store_sources(files: GridFS, base: Path, sources: Iterable[tuple[str, str]]) -> list[list[Any]]:
    """Store files that are not there yet.

    Sacred 0.8 looks for an md5 that pymongo 4 no longer writes, so it stores all of them each time.

    Args:
        base: the folder that the names of ``sources`` begin at.
        sources: pairs of a name and something that is not used.
    Returns:
        Pairs of a name and the file's id, as Omniboard expects them.
    """
    return [[name, _stored(files, base, name)] for name, _ in sources]


def _stored(files: GridFS, base: Path, name: str) -> Any:
    data = (base / name).read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    filename = f"source://{name}"
    there = files.find_one({"filename": filename, "metadata.sha256": digest})
    if there is not None:
        return there._id
    return files.put(data, filename=filename, metadata={"sha256": digest})
