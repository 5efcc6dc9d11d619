"""Many runs: seeds × environments × changes of the config."""

import hashlib
import itertools
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.jobs import JobError
from utils.resolve import resolve

MOST_JOBS = 10_000


@dataclass(frozen=True)
class GridJob:
    """One run of a grid."""

    config: tuple[str, ...]  # words behind `with`, the seed among them
    env: str  # "" if the grid names none
    changes: str  # "" if the grid makes none
    seed: int

    @property
    def name(self) -> str:
        """Of its folder: says what it is, and no other job of any grid has it."""
        said = [self.env, self.changes, f"seed={self.seed}"]
        text = re.sub(r"[^A-Za-z0-9.=+]+", "-", " ".join(filter(None, said))).strip("-.=+")
        return f"{text[:70]}-{short_hash(self.config)}"

    @property
    def label(self) -> str:
        """Of its curve, which it shares with the same config under other seeds."""
        return self.changes or "all"


def grid_jobs(
    config: str, seeds: str, envs: str | None, vary: Sequence[str]
) -> tuple[list[GridJob], str]:
    """The jobs of a grid, seeds last, and a name that is the same for all seeds.

    Args:
        config: words behind ``with`` that all jobs have.
        seeds: such as 1..5,8.
        envs: see `parse_envs`.
        vary: each multiplies the grid; see `parse_vary`.
    Raises:
        JobError: one of them cannot be read, with how to write it.
    """
    words = _words("--config", config)
    all_envs = parse_envs(envs) if envs else [""]
    variants = [parse_vary(each) for each in vary]
    numbers = parse_seeds(seeds)
    jobs = []
    for env, changes in itertools.product(all_envs, itertools.product(*variants)):
        changed = tuple(itertools.chain(*changes))
        common = (*words, *changed, *([f"env_name={env}"] if env else []))
        for seed in numbers:
            jobs.append(GridJob((*common, f"seed={seed}"), env, " ".join(changed), seed))
    if len(jobs) > MOST_JOBS:
        raise JobError(f"{len(jobs):,} jobs: a grid has {MOST_JOBS:,} at most")
    _check_keys(words, variants, bool(envs))
    return jobs, short_hash((config, str(all_envs), *vary))


def parse_seeds(text: str) -> list[int]:
    """Numbers and ranges, both ends included: 1..5,8.

    Raises:
        JobError: another form, or a seed named twice.
    """
    found: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d{1,10})(?:\.\.(\d{1,10}))?", part.strip())
        if match is None or int(match[2] or match[1]) < int(match[1]):
            raise JobError(f"--seeds={text!r}: write them as 1..5 or 1,2,7..9")
        first, last = int(match[1]), int(match[2] or match[1])
        if last - first >= MOST_JOBS:
            raise JobError(f"--seeds={text!r}: a grid has {MOST_JOBS:,} jobs at most")
        found += range(first, last + 1)
    return _once("--seeds", found)


def parse_envs(text: str) -> list[str]:
    """Ids of environments: Sphere-v0,CartPole-v1, or @package.module:NAME, or @FILE, one a line.

    Raises:
        JobError: the list is not there, or is none.
    """
    if not text.startswith("@"):
        return _once("--envs", [part.strip() for part in text.split(",")])
    source = text[1:]
    if Path(source).is_file():
        lines = [line.partition("#")[0].strip() for line in Path(source).read_text().splitlines()]
        return _once("--envs", [line for line in lines if line])
    if ":" not in source:
        raise JobError(f"--envs={text}: there is no file {source}, and a list is @module:NAME")
    try:
        listed: Any = resolve(source)
    except ValueError as error:
        raise JobError(f"--envs={text}: {error}") from error
    if isinstance(listed, str) or not all(isinstance(each, str) for each in listed):
        raise JobError(f"--envs={text}: must be a list of ids")
    return _once("--envs", list(listed))


def parse_vary(text: str) -> list[tuple[str, ...]]:
    """Alternatives, each the config words that it sets.

    ``sigma=0.05,0.1`` is two values of one key, ``hidden_sizes=[],[16]`` too;
    ``pop_size=1000 n_parents=50 | pop_size=500 n_parents=10`` sets several keys together.

    Raises:
        JobError: another form.
    """
    key, equals, values = text.partition("=")
    if "|" in text:
        alternatives = [tuple(_words("--vary", part)) for part in text.split("|")]
    else:
        alternatives = [(f"{key.strip()}={value}",) for value in _split(values)]
    flat = [word for words in alternatives for word in words]
    if not equals or not all(re.fullmatch(r"[\w.]+=.+", word) for word in flat) or not flat:
        raise JobError(
            f"--vary={text!r}: write it as sigma=0.05,0.1 or 'pop_size=100 lr=1 | pop_size=50 lr=2'"
        )
    return _once("--vary", alternatives)


def short_hash(words: Sequence[str]) -> str:
    """Six digits that tell one list of words from another."""
    return hashlib.sha256(shlex.join(words).encode()).hexdigest()[:6]


def _words(option: str, text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise JobError(f"{option}={text!r}: {error}") from error


def _split(text: str) -> list[str]:
    """At commas that are in no brackets."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "[({") - (letter in "])}")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts]


def _once(option: str, values: list[Any]) -> list[Any]:
    if not values or "" in values:
        raise JobError(f"{option}: names nothing, or has an empty entry")
    for value in values:
        if values.count(value) > 1:
            raise JobError(f"{option}: {value} is named twice")
    return values


def _check_keys(
    words: Sequence[str], variants: Sequence[Sequence[tuple[str, ...]]], has_envs: bool
) -> None:
    """Refuse a key that two parts of the grid set."""
    parts = [[word.partition("=")[0] for word in words if "=" in word], ["seed"]]
    parts += [["env_name"]] if has_envs else []
    parts += [list({w.partition("=")[0] for alt in each for w in alt}) for each in variants]
    keys = list(itertools.chain(*(set(part) for part in parts)))
    if twice := {key for key in keys if keys.count(key) > 1}:
        raise JobError(f"{min(twice)} is set twice: by --config, --seeds, --envs or --vary")
