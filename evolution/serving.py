"""What every worker does for a run, whoever brings it the work: set up, evaluate, answer."""

import logging
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from evolution.evaluation import Part, PieceRunner
from evolution.exchange.messages import FAILURE, Rows
from evolution.noise import NoiseTable
from evolution.problem import Problem

log = logging.getLogger(__name__)


class SupplyError(LookupError):
    """What a task needs is not there: the task is over, or somebody has deleted it."""


def open_run(
    spec: dict[str, Any], fetch: Callable[[str], np.ndarray]
) -> tuple[NoiseTable, PieceRunner]:
    """This machine's noise and a runner of the problem; both are the caller's to close.

    Args:
        spec: of the run; see `evolution.exchange.messages.run_spec`.
        fetch: an anchor's parameters, by its name; a ``SupplyError`` if they are gone.
    Raises:
        ValueError: this process would not get the same numbers.
        Exception: whatever an engine or a user's module may raise.
    """
    problem = Problem.from_json(spec["problem"])
    noise = NoiseTable(int(spec["noise_size"]), int(spec["noise_seed"]))
    try:
        if noise.fingerprint != spec["noise_fingerprint"]:
            raise ValueError(
                f"noise table {noise.fingerprint} here, {spec['noise_fingerprint']} at the head:"
                " another NumPy?"
            )
        return noise, PieceRunner(problem, noise, fetch)
    except BaseException:
        noise.close()
        raise


def in_words(error: Exception) -> str:
    """Why a worker refuses a run."""
    return str(error) if isinstance(error, ValueError) else repr(error)


def answer(
    runner: PieceRunner, parts: Sequence[Part], pieces: Sequence[int], waited: float, name: str
) -> dict[str, Any]:
    """Evaluate pieces of a task; a result as fields, or a failure with its reason.

    Args:
        pieces: ascending numbers.
        waited: seconds since the last answer.
        name: of this worker, for the log.
    Raises:
        SupplyError: an anchor that the task names is gone.
    """
    numbers = np.array(pieces, np.int32)
    started, cpu_started = time.perf_counter(), time.process_time()
    try:
        fitness, steps = runner.evaluate(parts, pieces)
    except SupplyError:
        raise
    except Exception as error:  # whatever an environment or a user's policy may raise
        log.error("worker %s failed: %s", name, traceback.format_exc())
        return {"kind": FAILURE, "pieces": numbers, "reason": f"{type(error).__name__}: {error}"}
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu_started
    times = (round(each, 6) for each in (seconds, waited, cpu))
    return Rows(numbers, fitness, steps.astype(np.int32), *times).to_fields()
