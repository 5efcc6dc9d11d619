"""What a run leaves behind: metrics, policies, and the word on how it ended."""

import contextlib
import hashlib
import logging
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from store.observer import SpoolingObserver
from store.results import RESULTS, Listing, Result, ResultsFile

if TYPE_CHECKING:
    import torch
    from sacred.run import Run

log = logging.getLogger(__name__)


BEST_CANDIDATE = "Best_candidate.model"


class StateDictMaker(Protocol):
    """The side of a policy that the recorder needs."""

    def state_dict(self, theta: np.ndarray) -> "dict[str, torch.Tensor]": ...


class Judged(Protocol):
    """A theta and how good it was found."""

    @property
    def number(self) -> int: ...
    @property
    def theta(self) -> np.ndarray: ...
    @property
    def fitness(self) -> float: ...
    @property
    def metrics(self) -> dict[str, float]: ...
    def results(self) -> Iterable[Result]: ...


class SacredRecorder:
    """Writes metrics and policies into a Sacred run, and each evaluation if that is wanted.

    Policies are torch ``state_dict`` files. ``Policy_ep_G.model`` is the theta that generation G
    was asked from: the one whose "current fitness" stands at step G. ``Policy_best.model`` is the
    one with the best "current fitness" so far, which flatters it a little. If the experiment hands
    candidates over, ``Best_candidate.model`` is that of "overall best fitness", which flatters it
    much. What each file is stands in the run's ``info["policies"]``. The evaluations are in
    ``results.csv``, which is sent when the run ends, however it ends.
    """

    def __init__(
        self, run: "Run", policy: StateDictMaker, period: int, log_evaluations: bool = False
    ) -> None:
        """Record into ``run``.

        Args:
            period: generations from one saved policy to the next.
            log_evaluations: write a line for each.
        """
        self._run, self._policy, self._period = run, policy, period
        self._best: tuple[float, int, np.ndarray] | None = None
        self._best_saved = -1
        self._latest: tuple[int, np.ndarray] | None = None
        self._results = ResultsFile(_lasting_folder(run)) if log_evaluations else None
        run.info["policies"] = {}

    def state(self) -> dict[str, Any]:
        """What was best so far, and what has been saved, for a checkpoint."""
        policies = dict(self._run.info["policies"])
        results = self._results.state() if self._results else 0
        best = {"best": self._best, "best_saved": self._best_saved}
        return {**best, "policies": policies, "results": results}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self._best, self._best_saved = state["best"], state["best_saved"]
        self._run.info["policies"] = state["policies"]
        if self._results:
            self._results.restore(state["results"])

    def list_as(self, listing: Listing) -> None:
        """Write evaluations down in another way; to be said before the first generation."""
        if self._results:
            self._results.listing = listing

    def is_due(self, number: int) -> bool:
        """True for the generations whose theta is saved."""
        return number % self._period == 0

    def record(self, generation: Judged, next_theta: np.ndarray) -> None:
        """Log a generation, and save its theta if that is due.

        Args:
            next_theta: float32[dim], what the generation led to: saved should the run end early.
        """
        self._log(generation)
        self._latest = (generation.number + 1, next_theta)
        if self.is_due(generation.number):
            self._save_judged(generation)

    def finish(self, final: Judged) -> str:
        """Log and save the last theta; returns its sha256, kept in the run's ``info`` too."""
        self._log(final)
        self._save_judged(final)
        self._latest = None
        digest = theta_sha256(final.theta)
        self._run.info["theta sha256"] = digest
        return digest

    def keep_candidate(
        self, theta: np.ndarray, number: int, fitness: float, env_seeds: np.ndarray
    ) -> None:
        """Save a candidate if it is better than all before it.

        Args:
            theta: float32[dim].
            number: of its generation.
            fitness: mean return of the episodes of …
            env_seeds: int64[episodes], … these environment seeds.
        """
        best = self._run.info["policies"].get(BEST_CANDIDATE)
        if best is None or fitness > best["fitness"]:
            played = {"fitness": fitness, "environment seeds": env_seeds.tolist()}
            self._save(BEST_CANDIDATE, theta, number, played)

    def keep(self, name: str, data: bytes) -> None:
        """Keep a file beside the policies; of one name the newest."""
        try:
            with self._writing(name) as path:
                path.write_bytes(data)
        except OSError as error:
            log.error("%s is lost, it could not be written: %s", name, error)

    def __enter__(self) -> "SacredRecorder":
        return self

    def __exit__(self, *_: object) -> None:
        """Save the newest theta and the best one of a run that ends early, and all results."""
        if self._latest is not None:
            number, theta = self._latest
            self._save(f"Policy_ep_{number}.model", theta, number, {})
        self._save_best()
        if self._results:
            if file := self._results.file():
                self._run.add_artifact(str(file), RESULTS, content_type="text/csv")
            self._results.close()

    def _log(self, judged: Judged) -> None:
        for name, value in judged.metrics.items():
            self._run.log_scalar(name, float(value), judged.number)
        if self._results:
            self._results.write(judged.results())
        if self._best is None or judged.fitness > self._best[0]:
            self._best = (judged.fitness, judged.number, judged.theta)

    def _save_judged(self, judged: Judged) -> None:
        name = f"Policy_ep_{judged.number}.model"
        self._save(name, judged.theta, judged.number, {"current fitness": judged.fitness})
        self._save_best()

    def _save_best(self) -> None:
        if self._best is not None and self._best[1] != self._best_saved:
            fitness, number, theta = self._best
            self._save("Policy_best.model", theta, number, {"current fitness": fitness})
            self._best_saved = number

    def _save(self, name: str, theta: np.ndarray, number: int, known: dict[str, Any]) -> None:
        import torch

        described = {"generation": number, "theta sha256": theta_sha256(theta)}
        self._run.info["policies"][name] = described | known
        try:
            with self._writing(name) as path:
                torch.save(self._policy.state_dict(theta), path)
        except (OSError, RuntimeError) as error:  # torch tells of a full disk by the latter
            del self._run.info["policies"][name]
            log.error("%s is lost, it could not be written: %s", name, error)

    @contextlib.contextmanager
    def _writing(self, name: str) -> Iterator[Path]:
        """Where to write a file; it becomes an artifact of the run."""
        with tempfile.TemporaryDirectory(prefix="evo-policy-", dir=_memory()) as folder:
            path = Path(folder) / name
            yield path
            self._run.add_artifact(str(path), name, content_type="application/octet-stream")


def _memory() -> str | None:
    """A folder that is not on the disk, which may be full; None if there is none."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def _lasting_folder(run: "Run") -> Path | None:
    """Where a run that goes on finds what it wrote before; None if it cannot go on."""
    found = [each for each in run.observers if isinstance(each, SpoolingObserver)]
    return found[0].spool.folder if found else None


def theta_sha256(theta: np.ndarray) -> str:
    """The hash by which parameter vectors are compared: over float32 in little-endian order."""
    return hashlib.sha256(np.ascontiguousarray(theta, "<f4").tobytes()).hexdigest()
