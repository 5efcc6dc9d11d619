"""Reads back what runs left behind."""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from store.location import RUNS, RUNS_VARIABLE

if TYPE_CHECKING:
    import torch


def policy_file(source: str | int) -> Path:
    """The file of a saved policy.

    Args:
        source: the path of a ``.model`` file, or the id of a run kept as files; of a run, the
            policy of the highest generation.
    Raises:
        ValueError: there is none.
    """
    if not str(source).isdigit():
        path = Path(str(source))
        if path.is_file():
            return path
        raise ValueError(f"load_from={source!r}: no such file, and no run id")
    folder = Path(os.environ.get(RUNS_VARIABLE, RUNS)) / str(source)
    found = {
        int(match[1]): path
        for path in folder.glob("Policy_ep_*.model")
        if (match := re.fullmatch(r"Policy_ep_(\d+)\.model", path.name))
    }
    if not found:
        raise ValueError(f"load_from={source}: no policy in {folder}")
    return found[max(found)]


def read_policy(path: Path) -> "dict[str, torch.Tensor]":
    """The ``state_dict`` in a file; only tensors are read, nothing is executed.

    Raises:
        ValueError: the file holds something else.
    """
    import torch

    try:
        state_dict = torch.load(path, weights_only=True)
    except Exception as error:  # torch raises a dozen kinds for a file that is none of its own
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ValueError(f"{path} is no saved policy: {reason}") from error
    if not isinstance(state_dict, dict):
        raise ValueError(f"{path} holds a {type(state_dict).__name__}, not a state_dict")
    return state_dict
