"""The settings that every algorithm shares, checked at the door."""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from evolution.noise import NoiseTable
from evolution.seeding import Seeding

MOST_EPISODES = 100_000_000  # at once: there would be no room for what is told of each


@dataclass(frozen=True)
class RunSettings:
    """What a run does beside its algorithm; field names are config keys."""

    seed: int
    env_seed: int | None
    num_generations: int
    num_episodes: int
    eval_episodes: int
    final_episodes: int
    num_serializations: int
    stop_fitness: float | None
    n_tsteps: int | None
    max_hours: float | None
    checkpoint_every: float
    evaluator: str
    redis: str | None
    local: bool
    ray_address: str | None
    num_workers: int  # 0: as many as CPUs of a Ray cluster are free
    min_task_runtime: float
    overlap: int
    audit: float
    group: str
    noise_size: int
    noise_seed: int

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "RunSettings":
        """Pick the shared settings out of an experiment's config.

        Raises:
            ValueError: a value of the wrong type or out of range, with what would be right.
        """
        values = {f.name: config[f.name] for f in fields(cls) if f.name != "seed"}
        values["seed"] = config.get("seed", 0)  # Sacred draws one after it has checked the config
        elsewhere = values["evaluator"] == "ray" and values["ray_address"] is not None
        if values["num_workers"] is None and not elsewhere:
            values["num_workers"] = available_cores()
        for name, least in (
            ("seed", 0),
            ("num_generations", 1),
            ("num_episodes", 1),
            ("eval_episodes", 1),
            ("final_episodes", 2),
            ("num_serializations", 1),
            ("overlap", 0),
            ("noise_size", 1),
            ("noise_seed", 0),
        ):
            whole_number(name, values[name], least)
        for name in ("num_episodes", "eval_episodes", "final_episodes"):
            if values[name] > MOST_EPISODES:
                raise ValueError(f"{name}={values[name]}: must be at most {MOST_EPISODES}")
        if values["env_seed"] is not None:
            whole_number("env_seed", values["env_seed"], -1)
        if values["num_workers"] is None:
            values["num_workers"] = 0
        else:
            whole_number("num_workers", values["num_workers"], 1)
        for name in ("min_task_runtime", "checkpoint_every"):
            number(name, values[name])
        number("audit", values["audit"])
        if values["audit"] > 1:
            raise ValueError(f"audit={values['audit']}: must be a share, from 0 to 1")
        _check_limits(values)
        settings = cls(**values)
        settings.seeding()
        return settings

    def seeding(self) -> Seeding:
        return Seeding(self.seed, self.env_seed)

    def noise_table(self) -> NoiseTable:
        return NoiseTable(self.noise_size, self.noise_seed)

    @property
    def serialization_period(self) -> int:
        """Generations from one saved policy to the next."""
        return max(self.num_generations // self.num_serializations, 1)


def _check_limits(values: Mapping[str, Any]) -> None:
    """Those that may be None: no limit."""
    if values["stop_fitness"] is not None:
        number("stop_fitness", values["stop_fitness"], least=None)
    if values["n_tsteps"] is not None:
        whole_number("n_tsteps", values["n_tsteps"], 1)
    if values["max_hours"] is not None:
        above_zero("max_hours", values["max_hours"])


def with_ray_names(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config in which distributed_es's ``use_ray`` and ``num_processors`` have been obeyed.

    Args:
        config: has these two keys beside all others. None: it is not said.
    Returns:
        The config with ``evaluator`` and ``num_workers`` as they mean.
    Raises:
        ValueError: a value that cannot be, or that contradicts another.
    """
    use_ray, count, evaluator = (config[k] for k in ("use_ray", "num_processors", "evaluator"))
    found = dict(config)
    if not isinstance(use_ray, bool | None):
        raise ValueError(f"use_ray={use_ray!r}: must be True, False or None")
    if use_ray and evaluator == "local":
        raise ValueError("use_ray=True contradicts evaluator='local': leave one of them out")
    if use_ray:
        found["evaluator"] = "ray"
    elif use_ray is False and evaluator == "ray":
        raise ValueError("use_ray=False contradicts evaluator='ray': leave one of them out")
    if count is not None:
        whole_number("num_processors", count, 1)
        if config["num_workers"] not in (None, count):
            raise ValueError(
                f"num_processors={count} contradicts num_workers={config['num_workers']}:"
                " leave one of them out"
            )
        found["num_workers"] = count
    return found


def check_size(pop_size: int, num_episodes: int) -> None:
    """Refuse a generation for which there would be no room."""
    if (episodes := pop_size * num_episodes) > MOST_EPISODES:
        raise ValueError(
            f"pop_size={pop_size}, num_episodes={num_episodes}: {episodes} episodes per generation,"
            f" must be at most {MOST_EPISODES}"
        )


def whole_number(name: str, value: Any, least: int) -> None:
    """Refuse anything but an int of at least ``least``."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name}={value!r}: must be a whole number, {least} or more")


def number(name: str, value: Any, least: float | None = 0.0) -> None:
    """Refuse anything but a number of at least ``least``."""
    fits = isinstance(value, int | float) and not isinstance(value, bool)
    if not fits or math.isnan(value) or (least is not None and value < least):
        bound = "" if least is None else f", {least:g} or more"
        raise ValueError(f"{name}={value!r}: must be a number{bound}")


def above_zero(name: str, value: Any) -> None:
    """Refuse anything but a finite number above zero."""
    number(name, value)
    if value == 0 or value == float("inf"):
        raise ValueError(f"{name}={value}: must be above zero, and finite")


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
