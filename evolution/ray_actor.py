"""What a process on a node of a Ray cluster does for a run; nothing here knows Ray.

What it is given and what it answers are the fields that workers at a redis server send and get,
checked alike: numbers, words and plain arrays.
"""

import logging
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from cluster.keys import who
from evolution.evaluation import Part, PieceRunner
from evolution.exchange.messages import task_parts
from evolution.noise import NoiseTable
from evolution.serving import SupplyError, answer, in_words, open_run

log = logging.getLogger(__name__)

TASKS_HELD = 4  # of a run whose generations overlap, workers meet several tasks by turns


class PieceActor:
    """Evaluates pieces of one run's tasks. It holds nothing that others could not make again."""

    def __init__(self) -> None:
        here = who()
        self._host, self._name = here["host"], f"{here['host']}-{here['pid']}"
        self._noise: NoiseTable | None = None
        self._runner: PieceRunner | None = None
        self._tasks: dict[int, list[Part]] = {}
        self._supplies: dict[str, np.ndarray] = {}
        self._idle_since = time.perf_counter()

    def open(self, spec: dict[str, Any]) -> dict[str, str]:
        """Set up for a run; says who this is, and why it refuses: "" if it does not.

        Args:
            spec: of the run; see `evolution.exchange.messages.run_spec`.
        """
        refusal = ""
        try:
            threadpool_limits(1)  # actors share a node's cores, one each
            self._noise, self._runner = open_run(spec, self._supply)
        except Exception as error:  # whatever an engine or a user's module may raise
            refusal = in_words(error)
        self._idle_since = time.perf_counter()
        return {"worker": self._name, "host": self._host, "refusal": refusal}

    def evaluate(
        self,
        number: int,
        pieces: np.ndarray,
        fields: dict[str, Any],
        names: Sequence[str],
        *supplies: np.ndarray,
    ) -> dict[str, Any]:
        """Evaluate pieces of a task: a result or a failure, as fields.

        Args:
            number: of the task, whose other arguments are the same in every call.
            pieces: int32[n], ascending.
            fields: the task; see `evolution.exchange.messages.task_fields`.
            names: of the anchors that it names.
            supplies: their parameters, float32[dim] each.
        Raises:
            MessageError: fields that do not fit together.
        """
        assert self._runner is not None, "a worker that refuses is given no work"
        waited = time.perf_counter() - self._idle_since
        if number not in self._tasks:
            self._tasks[number] = task_parts(fields)
            while len(self._tasks) > TASKS_HELD:
                del self._tasks[min(self._tasks)]
        self._supplies = dict(zip(names, supplies, strict=True))
        parts = self._tasks[number]
        answered = answer(self._runner, parts, pieces.tolist(), waited, self._name)
        self._supplies = {}
        self._idle_since = time.perf_counter()
        return answered

    def _supply(self, name: str) -> np.ndarray:
        if name not in self._supplies:
            raise SupplyError(f"no supply {name}")
        return self._supplies[name].copy()  # what is remembered should not hold Ray's memory

    def close(self) -> None:
        """Let go of engine and noise table: the last to leave a machine deletes that."""
        if self._runner is not None:
            self._runner.close()
        if self._noise is not None:
            self._noise.close()
        self._runner = self._noise = None
