"""Reads back what runs left behind: one run of the store, or a policy kept as a file."""

import io
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from store.location import StoreError, find_store, has_store
from utils.names import did_you_mean

if TYPE_CHECKING:
    import pandas as pd
    import torch
    from pymongo.database import Database

POLICY = re.compile(r"Policy_ep_(\d+)\.model")
BEST, BEST_CANDIDATE = "Policy_best.model", "Best_candidate.model"
MANY = 8  # ids and generations that an error line names, at most


class ReadError(ValueError):
    """What was asked for is not in the store; the message is one line for the user."""


@dataclass(frozen=True, eq=False)
class Metric:
    """The values of a metric, one for each generation in which it was logged."""

    name: str
    steps: np.ndarray  # int64[n], ascending
    values: np.ndarray  # float64[n]
    times: np.ndarray  # datetime64[ms][n], UTC


@dataclass(frozen=True)
class Artifact:
    """A file that a run has stored."""

    name: str
    generation: int | None  # of which it is the policy
    file_id: Any  # under which GridFS has it


@dataclass(frozen=True)
class SavedPolicy:
    """A policy that a run has stored."""

    name: str
    generation: int | None  # None: the best of a run that has not yet noted which one that is
    digest: str | None  # "theta sha256" as noted by the run; None: not noted yet
    state_dict: "dict[str, torch.Tensor]"
    noted: dict[str, Any]  # all that the run says of it


class RunReader:
    """One run, as it was in the store when the reader was made.

    Nothing is kept between readers, on no disk: in a store made anew, ids begin at 1 again.

    Attributes:
        id: of the run.
        document: all that Sacred keeps about the run itself.
    """

    def __init__(self, store: "Database", run_id: int) -> None:
        """Read the run's document.

        Raises:
            ReadError: there is no such run; says which there are.
        """
        found = store["runs"].find_one({"_id": run_id})
        if found is None:
            ids = (each["_id"] for each in store["runs"].find({}, {"_id": 1}))
            raise ReadError(f"no run {run_id} in the store; there {listed(ids, 'run')}")
        self.id, self.document, self._store = run_id, found, store

    @property
    def name(self) -> str:
        """The experiment's."""
        return self.document["experiment"]["name"]

    @property
    def config(self) -> dict[str, Any]:
        return self.document.get("config") or {}

    @property
    def status(self) -> str:
        """RUNNING, COMPLETED, FAILED, INTERRUPTED or, killed by a time limit, TIMEOUT."""
        return self.document["status"]

    @property
    def info(self) -> dict[str, Any]:
        return self.document.get("info") or {}

    @property
    def result(self) -> Any:
        """What the run returned; None as long as it has not."""
        return self.document.get("result")

    # --- metrics

    def metrics(self) -> dict[str, Metric]:
        """All metrics by name; of a value logged twice for a generation, the later one."""
        parts = defaultdict(list)
        for document in self._store["metrics"].find({"run_id": self.id}):
            parts[document["name"]].append(document)
        return {name: _joined(name, parts[name]) for name in sorted(parts)}

    def metric_names(self) -> list[str]:
        """What has been logged so far, in alphabetical order."""
        documents = self._store["metrics"].find({"run_id": self.id}, {"name": 1})
        return sorted({each["name"] for each in documents})

    def metric(self, name: str) -> Metric:
        """One of them.

        Raises:
            ReadError: the run has none of that name; says which it has.
        """
        found = list(self._store["metrics"].find({"run_id": self.id, "name": name}))
        if not found:
            names = self.metric_names()
            raise ReadError(
                f"run {self.id} has no metric {name!r}.{did_you_mean(name, names)}"
                f" It has: {', '.join(names) or 'none yet'}"
            )
        return _joined(name, found)

    def frame(self) -> "pd.DataFrame":
        """All metrics as columns, generations as rows; NaN where a metric has no value."""
        import pandas as pd

        columns = {
            name: pd.Series(each.values, index=each.steps) for name, each in self.metrics().items()
        }
        return pd.DataFrame(columns).rename_axis(index="generation")

    # --- files

    @property
    def artifacts(self) -> list[Artifact]:
        """The files, oldest first; of a name stored again and again, the newest alone."""
        newest: dict[str, Artifact] = {}
        for each in self.document.get("artifacts") or ():
            match = POLICY.fullmatch(each["name"])
            newest.pop(each["name"], None)
            newest[each["name"]] = Artifact(
                each["name"], int(match[1]) if match else None, each["file_id"]
            )
        return list(newest.values())

    def load(self, artifact: Artifact) -> bytes:
        """The content of a file.

        Raises:
            ReadError: the store has lost it.
        """
        from gridfs import GridFS, NoFile

        try:
            return GridFS(self._store).get(artifact.file_id).read()
        except NoFile as error:
            raise ReadError(
                f"run {self.id}: the store has no content for {artifact.name}"
            ) from error

    def policies(self) -> dict[int, Artifact]:
        """The saved policies by generation, ascending; 0 is one too."""
        found = {a.generation: a for a in self.artifacts if a.generation is not None}
        return dict(sorted(found.items()))

    def policy(
        self, generation: int | None = None, best: bool = False, candidate: bool = False
    ) -> SavedPolicy:
        """A saved policy.

        Args:
            generation: of the policy; None: the newest that there is so far.
            best: take the best one so far.
            candidate: take the candidate with the overall best fitness.
        Raises:
            ReadError: it was not saved; says which were.
        """
        saved = self.policies()
        if best or candidate:
            name = BEST if best else BEST_CANDIDATE
            artifact = next((a for a in self.artifacts if a.name == name), None)
        else:
            artifact = saved.get(max(saved, default=0) if generation is None else generation)
        if artifact is None and not saved:
            later = ": it is RUNNING, try again later, or resume it if it was killed"
            raise ReadError(
                f"run {self.id} has saved no policy{later if self.status == 'RUNNING' else ''}"
            )
        if artifact is None:
            wanted = f"no policy of generation {generation}"
            if best or candidate:
                wanted = "no best policy" if best else "kept no candidate: only Nevergrad's do"
            raise ReadError(f"run {self.id} has {wanted}; there {listed(saved, 'generation')}")
        return self._policy(artifact)

    def _policy(self, artifact: Artifact) -> SavedPolicy:
        name = f"run {self.id}, {artifact.name}"
        state_dict = _state_dict(io.BytesIO(self.load(artifact)), name)
        noted = (self.info.get("policies") or {}).get(artifact.name, {})
        generation = artifact.generation
        if generation is None:
            generation = noted.get("generation")
        return SavedPolicy(artifact.name, generation, noted.get("theta sha256"), state_dict, noted)


def _joined(name: str, documents: list[dict[str, Any]]) -> Metric:
    steps, values, times = (
        np.concatenate([np.asarray(each[key], dtype) for each in documents])
        for key, dtype in (
            ("steps", np.int64),
            ("values", np.float64),
            ("timestamps", "datetime64[ms]"),
        )
    )
    kept, backwards = np.unique(steps[::-1], return_index=True)
    order = len(steps) - 1 - backwards
    return Metric(name, kept, values[order], times[order])


def listed(numbers: Iterable[int], what: str) -> str:
    """What there is, in few words: are generations 0, 6, 12."""
    ranges: list[list[int]] = []
    for number in sorted(each for each in numbers if isinstance(each, int)):
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    words = [f"{a}" if a == b else f"{a}-{b}" for a, b in ranges]
    if not words:
        return f"is no {what} at all"
    if len(words) > MANY:
        words = [*words[: MANY // 2], "…", *words[-MANY // 2 :]]
    single = len(words) == 1 and "-" not in words[0]
    return f"is {what} {words[0]}" if single else f"are {what}s {', '.join(words)}"


# --- files outside of the store


def load_policy(source: str | int) -> "dict[str, torch.Tensor]":
    """The ``state_dict`` of a saved policy.

    Args:
        source: the path of a ``.model`` file, or the id of a run, of which it is the newest.
    Raises:
        ValueError: there is none; the message begins with the config key that asks for it.
    """
    if not str(source).isdigit():
        path = Path(str(source))
        if not path.is_file():
            raise ValueError(f"load_from={source!r}: no such file, and no run id")
        if path.suffix == ".json":
            way = f"python env/render.py {path} --export {path.with_suffix('.pt').name}"
            raise ValueError(f"load_from={source!r}: a state_dict is needed; make one by '{way}'")
        return read_policy(path)
    if not has_store():
        raise ValueError(f"load_from={source}: no run {source}, for there is no store yet")
    try:
        return RunReader(find_store(), int(source)).policy().state_dict
    except (ReadError, StoreError) as error:
        raise ValueError(f"load_from={source}: {error}") from error


def read_policy(path: Path) -> "dict[str, torch.Tensor]":
    """The ``state_dict`` in a file; only tensors are read, nothing is executed.

    Raises:
        ValueError: the file holds something else.
    """
    return _state_dict(path, str(path))


def _state_dict(source: Path | io.BytesIO, name: str) -> "dict[str, torch.Tensor]":
    import torch

    try:
        state_dict = torch.load(source, weights_only=True)
    except Exception as error:  # torch raises a dozen kinds for a file that is none of its own
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ValueError(f"{name} is no saved policy: {reason}") from error
    if not isinstance(state_dict, dict):
        raise ValueError(f"{name} holds a {type(state_dict).__name__}, not a state_dict")
    return state_dict
