"""A policy as one text file: all it takes to play with it where its run is not."""

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from store.recorder import theta_sha256

FORMAT, VERSION = "distributed-evolution policy", 1
# Of the run's config: what `problem_of` reads, and what decides which episodes are shown.
CONFIG_KEYS = (
    *(
        "env_name",
        "env_kwargs",
        "max_ep_length",
        "action_scaling",
        "network",
        "network_kwargs",
        "force_cpu",
    ),
    *("hidden_sizes", "hidden_activation", "output_activation"),
    *("num_episodes", "num_generations", "seed"),
)
INFO_KEYS = ("engine", "versions", "problem")  # of the run's info
SEED_LIMIT = 2**31


class PolicyFileError(ValueError):
    """No policy can be had from a file, or put into it; the message is one line for the user."""


@dataclass(frozen=True, eq=False)
class PolicyFile:
    """What such a file says. It is JSON; nothing in it is executed."""

    origin: str  # where the policy comes from: run 12, ES
    name: str  # what it is called there
    generation: int | None
    config: dict[str, Any]  # CONFIG_KEYS
    info: dict[str, Any]  # INFO_KEYS, as far as the run had noted them
    fitness: float | None  # "current fitness": mean return of the episodes of these seeds
    seeds: np.ndarray  # int64[episodes]; none of a policy that was not evaluated
    theta: np.ndarray  # float32[dim]

    def write(self, path: Path) -> None:
        """Make the file, or write over it.

        Raises:
            PolicyFileError: it cannot be written.
        """
        content = {
            "format": FORMAT,
            "format version": VERSION,
            "origin": self.origin,
            "name": self.name,
            "generation": self.generation,
            "config": self.config,
            "info": self.info,
            "current fitness": self.fitness,
            "evaluation seeds": self.seeds.tolist(),
            "parameters": len(self.theta),
            "theta sha256": theta_sha256(self.theta),
            "theta float32 base64": base64.b64encode(self.theta.astype("<f4").tobytes()).decode(),
        }
        try:
            path.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
        except (OSError, TypeError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise PolicyFileError(f"{path} cannot be written: {reason}") from error

    @classmethod
    def read(cls, path: Path) -> "PolicyFile":
        """Read it back, to the last bit.

        Raises:
            PolicyFileError: what is wrong with it.
        """
        content = _content(path)
        try:
            fitness = _optional(float, content["current fitness"])
            return cls(
                origin=str(content["origin"]),
                name=str(content["name"]),
                generation=_optional(int, content["generation"]),
                config={key: ({"env_kwargs": {}} | content["config"])[key] for key in CONFIG_KEYS},
                info=_info(content["info"]),
                fitness=fitness,
                seeds=_seeds(content["evaluation seeds"], fitness),
                theta=_theta(content),
            )
        except KeyError as error:
            raise PolicyFileError(f"{path} is damaged: it has no {error}") from error
        except (TypeError, ValueError) as error:
            raise PolicyFileError(f"{path} is damaged: {error}") from error


def _content(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise PolicyFileError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # no text, or no JSON
        raise PolicyFileError(f"{path} is no policy written by --export FILE.json") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise PolicyFileError(f"{path} is no policy written by --export FILE.json")
    version = content.get("format version")
    if version != VERSION:
        raise PolicyFileError(
            f"{path} has format version {version!r}, this program reads {VERSION}"
        )
    return content


def _theta(content: Mapping[str, Any]) -> np.ndarray:
    """The parameters, float32[dim], if they are those that were written."""
    try:
        there = base64.b64decode(content["theta float32 base64"], validate=True)
    except (binascii.Error, TypeError, ValueError) as error:
        raise ValueError(f"theta is no base64: {error}") from error
    if len(there) != 4 * content["parameters"]:
        raise ValueError(f"theta has {len(there)} bytes, not 4 × {content['parameters']}")
    theta = np.frombuffer(there, "<f4").astype(np.float32)
    if (found := theta_sha256(theta)) != content["theta sha256"]:
        raise ValueError(f"theta has sha256 {found}, not {content['theta sha256']}")
    return theta


def _info(found: Any) -> dict[str, Any]:
    """What the run had noted; of a run that had just begun, nothing yet."""
    kinds = {"engine": str, "versions": dict, "problem": str}
    if not isinstance(found, dict) or not all(
        isinstance(value, kinds.get(key, object)) for key, value in found.items()
    ):
        raise ValueError(f"info is {found}")
    return found


def _seeds(numbers: Any, fitness: float | None) -> np.ndarray:
    """Seeds as every engine takes them, int64[n]: some if there is a fitness, else none."""
    if not isinstance(numbers, list) or not all(
        type(each) is int and 0 <= each < SEED_LIMIT for each in numbers
    ):
        raise ValueError("the evaluation seeds are no numbers from 0 to 2**31 - 1")
    if bool(numbers) != (fitness is not None):
        raise ValueError("it has a fitness without evaluation seeds, or these without that")
    return np.array(numbers, np.int64)


def _optional(kind: type, value: Any) -> Any:
    """A number or None; a fitness may be a whole one."""
    if value is None or (type(value) in (int, kind)):
        return value
    raise ValueError(f"{value!r} is no number")
