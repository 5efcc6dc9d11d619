"""Everything a run needs to go on, in one file, without pickle."""

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

    def save(self, number: int, state: Mapping[str, Any]) -> Path:
        """Write the state before generation ``number``; older files go, except for one.

        Args:
            state: nested dicts, lists and tuples of numbers, words, None, arrays and tensors.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{number:09d}.npz"
        temporary = path.with_suffix(".new")
        arrays: dict[str, np.ndarray] = {}
        text = json.dumps(_plain(state, arrays))
        with open(temporary, "wb") as file:
            arrays[TEXT] = np.frombuffer(text.encode(), np.uint8)
            np.savez(file, **arrays)  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        for old in self._files()[KEPT:]:
            old.unlink()
        return path

    def newest(self) -> tuple[int, dict[str, Any]]:
        """The generation to come, and the state before it, of the newest file that is whole.

        Raises:
            CheckpointError: there is none.
        """
        for path in self._files():
            try:
                return int(path.stem), read_checkpoint(path)
            except CheckpointError as error:
                log.warning("%s; taking the one before", error)
        raise CheckpointError(f"no checkpoint in {self.folder}")

    def _files(self) -> list[Path]:
        found = [path for path in self.folder.glob("*.npz") if re.fullmatch(r"\d+", path.stem)]
        return sorted(found, key=lambda path: int(path.stem), reverse=True)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What ``Checkpoints.save`` wrote.

    Raises:
        CheckpointError: the file is damaged, or none of ours.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        state = _rich(json.loads(arrays.pop(TEXT).tobytes()), arrays)
    except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise CheckpointError(f"{path} is damaged: {reason}") from error
    return state


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
