"""A genome as one word of text: whoever has it can play it."""

import base64
import hashlib
import json
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from evolution.decoder import Decoder, Genome
from evolution.noise import NoiseTable, check_room
from evolution.problem import Problem
from evolution.settings import whole_number
from ga.config import tensor_shapes

FORMAT = "ga1"
PARTS = ("env", "network", "sigma", "noise", "dim", "more", "genome", "check")
NOISE = re.compile(r"(\d{1,12})-(\d{1,18})-([0-9a-f]{16})")
INDICES = re.compile(r"\d{1,12}(-\d{1,12})*")
MOST_TEXT = 1 << 16  # bytes of what stands packed under "more"


class GenomeTextError(ValueError):
    """Text that is no genome, or one that cannot be played here; one line for the user."""


@dataclass(frozen=True)
class GenomeText:
    """What the text says; the inverse of ``str`` is ``parse``.

    The text is ``ga1,env=…,network=…,sigma=…,noise=SIZE-SEED-FINGERPRINT,dim=…,more=…,genome=…,
    check=…``: "more" is the rest of the problem, packed, "genome" the indices joined by "-", and
    "check" is made of all that stands before it.
    """

    problem: Problem  # without versions: it may be played on others
    sigma: float
    noise_size: int
    noise_seed: int
    noise: str  # fingerprint of the table
    dim: int  # parameters of the network
    genome: Genome

    def __str__(self) -> str:
        problem = self.problem
        more: dict[str, Any] = {"kwargs": problem.policy_kwargs}
        more |= {"actions": problem.action_scaling, "steps": problem.max_steps}
        more |= {"engine": problem.engine, "env": problem.env_kwargs}
        text = ",".join(
            (
                FORMAT,
                f"env={problem.env}",
                f"network={problem.network}",
                f"sigma={self.sigma!r}",
                f"noise={self.noise_size}-{self.noise_seed}-{self.noise}",
                f"dim={self.dim}",
                f"more={_packed(more)}",
                f"genome={'-'.join(map(str, self.genome))}",
            )
        )
        return f"{text},check={_check(text)}"

    @classmethod
    def parse(cls, text: str) -> "GenomeText":
        """Read it.

        Raises:
            GenomeTextError: what is wrong with it.
        """
        parts = _parts(text)
        found = NOISE.fullmatch(parts["noise"])
        if found is None or not INDICES.fullmatch(parts["genome"]):
            raise GenomeTextError(f"the genome text has noise={parts['noise']}: no table")
        try:
            problem = _problem(parts["env"], parts["network"], _unpacked(parts["more"]))
            made = cls(
                problem,
                float(parts["sigma"]),
                *(int(found[1]), int(found[2]), found[3]),
                int(parts["dim"]),
                tuple(map(int, parts["genome"].split("-"))),
            )
        except (KeyError, TypeError, ValueError, zlib.error) as error:
            raise GenomeTextError(f"the genome text is of another program: {error}") from error
        made._check_room()
        return made

    def _check_room(self) -> None:
        if not 0 < self.sigma < float("inf"):
            raise GenomeTextError(f"the genome text has sigma={self.sigma}: must be above zero")
        if max(self.genome) > self.noise_size - self.dim:
            raise GenomeTextError(
                f"the genome has the index {max(self.genome)}: it belongs to another noise table"
                f" than one of {self.noise_size} floats"
            )

    def here(self) -> Problem:
        """The problem as this machine can play it.

        Raises:
            ValueError: the environment or network cannot be made here.
        """
        return replace(self.problem, versions=self.problem.versions_here())

    def theta(self) -> np.ndarray:
        """The parameters: float32[dim].

        Raises:
            GenomeTextError: this program makes another table, or another network of that name.
            ValueError: it cannot be made here at all.
        """
        policy = self.problem.make_policy()
        if policy.num_params != self.dim:
            raise GenomeTextError(
                f"network {self.problem.network} has {policy.num_params} parameters here, the"
                f" genome was made for {self.dim}"
            )
        check_room(self.noise_size, self.dim)
        with NoiseTable(self.noise_size, self.noise_seed) as noise:
            if noise.fingerprint != self.noise:
                raise GenomeTextError(
                    f"the genome belongs to another noise table: {self.noise}, here size"
                    f" {self.noise_size} and seed {self.noise_seed} make {noise.fingerprint}"
                )
            return Decoder(noise).write(self.genome, tensor_shapes(policy), self.sigma).copy()


def text_of(problem: Problem, config: Mapping[str, Any], noise: str, dim: int) -> GenomeText:
    """Of a run, before it has a genome.

    Args:
        config: the run's.
        noise: fingerprint of its table.
        dim: parameters of its network.
    """
    plain, sigma = replace(problem, versions={}), float(config["sigma"])
    return GenomeText(plain, sigma, config["noise_size"], config["noise_seed"], noise, dim, ())


def _parts(text: str) -> dict[str, str]:
    """By name, if all of them are there and none was mistyped."""
    said, _, check = text.strip().rpartition(",check=")
    kind, *rest = said.split(",")
    if kind != FORMAT:
        raise GenomeTextError(
            f"{text[:40]!r} is no genome text: that begins with '{FORMAT},' and ends with ',check='"
        )
    if check != _check(said):
        raise GenomeTextError(
            f"the genome text was mistyped or cut: its check is {check[:16]}, not {_check(said)}"
        )
    parts = dict(each.partition("=")[::2] for each in rest)
    if tuple(parts) != PARTS[:-1]:
        raise GenomeTextError(f"the genome text has {', '.join(parts)}, not {', '.join(PARTS)}")
    return parts


def _problem(env: str, network: str, more: dict[str, Any]) -> Problem:
    kwargs, of_env, steps = more["kwargs"], more["env"], more["steps"]
    for each in (kwargs, of_env):
        if not isinstance(each, dict):
            raise TypeError(f"kwargs={each!r}")
    if steps is not None:
        whole_number("steps", steps, 1)
    how = kwargs, str(more["actions"]), of_env, steps
    return Problem(env, str(more["engine"]), network, *how)


def _check(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _packed(more: dict[str, Any]) -> str:
    data = zlib.compress(json.dumps(more, sort_keys=True, separators=(",", ":")).encode(), 9)
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _unpacked(text: str) -> dict[str, Any]:
    data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    found = json.loads(zlib.decompressobj().decompress(data, MOST_TEXT))
    if not isinstance(found, dict):
        raise TypeError(f"more={found!r:.40}")
    return found
