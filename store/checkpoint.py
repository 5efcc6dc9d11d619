"""Everything a run needs to go on, in one file, without pickle."""

import contextlib
import io
import json
import logging
import os
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

log = logging.getLogger(__name__)

KEPT = 2  # the newest, and the one before should the newest be damaged
TEXT = "text"


class CheckpointError(ValueError):
    """No checkpoint that a run could go on from."""


class Checkpoints:
    """The newest checkpoints of one run, in a folder of this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._held: tuple[int, bytes] | None = None  # that the disk did not take

    def save(self, number: int, state: Mapping[str, Any]) -> Path:
        """Write the state before generation ``number``; older files go, except for one.

        Args:
            state: nested dicts, lists and tuples of numbers, words, None, arrays and tensors.
        Raises:
            OSError: the disk refuses; the older files are as before.
        """
        return self.save_bytes(number, encoded(state))

    def save_bytes(self, number: int, data: bytes) -> Path:
        """Write a checkpoint as ``encoded`` makes it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.file_of(number)
        temporary = path.with_suffix(".new")
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        self._held = None
        for old in self.numbers()[KEPT:]:
            self.file_of(old).unlink()
        return path

    def hold(self, number: int, state: Mapping[str, Any]) -> None:
        """Keep a checkpoint in memory that the disk did not take: the store may have room."""
        self._held = number, encoded(state)

    def newest_bytes(self) -> tuple[int, bytes] | None:
        """The newest checkpoint as it is, on the disk or in memory; None if there is none.

        Raises:
            OSError: the disk refuses.
        """
        held = self._held
        if held is not None:
            return held
        return next(((n, self.file_of(n).read_bytes()) for n in self.numbers()), None)

    def newest_number(self) -> int:
        """The generation to come of the newest checkpoint; -1 if there is none."""
        held = self._held
        return held[0] if held is not None else next(iter(self.numbers()), -1)

    def newest(self) -> tuple[int, dict[str, Any]]:
        """The generation to come, and the state before it, of the newest file that is whole.

        Raises:
            CheckpointError: there is none.
        """
        for number in self.numbers():
            try:
                return number, read_checkpoint(self.file_of(number))
            except CheckpointError as error:
                log.warning("%s; taking the one before", error)
        raise CheckpointError(f"no checkpoint in {self.folder}")

    def numbers(self) -> list[int]:
        """The generations to come of those on the disk, newest first."""
        stems = [path.stem for path in self.folder.glob("*.npz")]
        return sorted((int(stem) for stem in stems if re.fullmatch(r"\d+", stem)), reverse=True)

    def file_of(self, number: int) -> Path:
        """Where the checkpoint of a generation is."""
        return self.folder / f"{number:09d}.npz"


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What ``Checkpoints.save`` wrote.

    Raises:
        CheckpointError: the file is damaged, or none of ours.
    """
    try:
        return decoded(path.read_bytes(), str(path))
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error


def encoded(state: Mapping[str, Any]) -> bytes:
    """A state as the bytes of a checkpoint."""
    arrays: dict[str, np.ndarray] = {}
    text = json.dumps(_plain(state, arrays))
    arrays[TEXT] = np.frombuffer(text.encode(), np.uint8)
    file = io.BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type]
    return file.getvalue()


def decoded(data: bytes, name: str) -> dict[str, Any]:
    """The state that ``encoded`` was given.

    Raises:
        CheckpointError: the bytes are damaged, or none of ours; says so of ``name``.
    """
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        return _rich(json.loads(arrays.pop(TEXT).tobytes()), arrays)
    except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise CheckpointError(f"{name} is damaged: {reason}") from error


def _plain(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    """JSON for a nested value, its arrays put aside; each kind that JSON has not gets a tag."""
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {"dict": [[_plain(k, arrays), _plain(v, arrays)] for k, v in value.items()]}
    if isinstance(value, list | tuple):
        return {type(value).__name__: [_plain(each, arrays) for each in value]}
    if isinstance(value, np.generic):
        return value.item()
    kind = "array" if isinstance(value, np.ndarray) else "tensor"
    array = value if kind == "array" else value.detach().cpu().numpy()
    name = f"{kind}{len(arrays)}"
    arrays[name] = np.array(array)
    return {kind: name}


def _rich(value: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "dict":
        return {_rich(k, arrays): _rich(v, arrays) for k, v in content}
    if kind == "list":
        return [_rich(each, arrays) for each in content]
    if kind == "tuple":
        return tuple(_rich(each, arrays) for each in content)
    if kind == "array":
        return arrays[content]
    if kind == "tensor":
        import torch

        return torch.from_numpy(arrays[content].copy())
    raise ValueError(f"unknown kind {kind!r}")
