"""What heads and workers say to each other: runs, tasks and results as checked messages."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cluster.wire import MessageError
from evolution.evaluation import Part
from evolution.exchange.batches import MAX_SECONDS, Batch, check_pieces, joined
from evolution.noise import NoiseTable
from evolution.population import from_fields, to_fields
from evolution.problem import Problem

RESULT, FAILURE, REFUSAL = "result", "failure", "refusal"


def run_spec(problem: Problem, noise: NoiseTable) -> dict[str, Any]:
    """What a worker must know to serve a run."""
    return {
        "problem": problem.to_json(),
        "noise_size": noise.size,
        "noise_seed": noise.seed,
        "noise_fingerprint": noise.fingerprint,
    }


def task_fields(
    parts: Sequence[Part], share: int, min_seconds: float, max_seconds: float
) -> dict[str, Any]:
    """A task as wire fields.

    Args:
        share: a worker takes one ``share``-th of the tickets that are left, …
        min_seconds: … or as many as last about so long, if that is more, …
        max_seconds: … and no more than last so long.
    """
    fields: dict[str, Any] = {"parts": len(parts), "share": share}
    fields |= {"min_seconds": min_seconds, "max_seconds": max_seconds}
    for i, part in enumerate(parts):
        named = {**to_fields(part.population), "env_seeds": np.ascontiguousarray(part.env_seeds)}
        fields |= {f"{i}.{name}": value for name, value in named.items()}
    return fields


def task_parts(message: dict[str, Any]) -> list[Part]:
    """The parts that ``task_fields`` wrote.

    Raises:
        MessageError: fields that are missing or do not fit together.
    """
    try:
        share, limits = message["share"], (message["min_seconds"], message["max_seconds"])
        sound = type(share) is int and all(type(limit) in (int, float) for limit in limits)
        if not sound or share < 1 or not all(0 <= limit <= MAX_SECONDS for limit in limits):
            raise ValueError(f"share={share!r:.50}, seconds {limits!r:.50}")
        return [_part(message, f"{i}.") for i in range(int(message["parts"]))]
    except (KeyError, ValueError, TypeError, AttributeError, OverflowError) as error:
        raise MessageError(f"no task: {error}") from error


def _part(message: dict[str, Any], prefix: str) -> Part:
    own = {k.removeprefix(prefix): v for k, v in message.items() if k.startswith(prefix)}
    return Part(from_fields(own), own["env_seeds"])


@dataclass(frozen=True, eq=False)
class Failure:
    """A worker's word that it could not evaluate some pieces."""

    pieces: np.ndarray  # int32[pieces], ascending
    reason: str

    @classmethod
    def from_fields(cls, message: dict[str, Any], group_of: np.ndarray) -> "Failure":
        """Check and read it; see ``Rows.from_fields``."""
        reason = message.get("reason")
        if not isinstance(reason, str):
            raise MessageError("a failure without a reason")
        pieces, counts = joined("pieces", [message], "<i4")
        check_pieces(pieces, counts, len(group_of))
        return cls(pieces, reason)


@dataclass(frozen=True, eq=False)
class Rows:
    """A worker's answer: one row per candidate of its pieces, in order."""

    pieces: np.ndarray  # int32[pieces], ascending
    fitness: np.ndarray  # float32[rows]
    steps: np.ndarray  # int32[rows]
    seconds: float  # spent on all of them
    waited: float  # seconds between the last answer and these tickets
    cpu_seconds: float = 0.0  # of ``seconds``; above them if an environment has threads

    def to_fields(self) -> dict[str, Any]:
        return {"kind": RESULT, **vars(self)}

    @classmethod
    def from_fields(cls, message: dict[str, Any], group_of: np.ndarray) -> "Rows":
        """Check and read an answer.

        Args:
            group_of: int64[pieces of the task], candidates in each piece.
        Raises:
            MessageError: what is wrong with it.
        """
        Batch.read([{"worker": "", **message}], group_of)
        return cls(*(message[name] for name in cls.__dataclass_fields__))
