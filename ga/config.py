"""From the experiment's config to what it means, or one line that says why not."""

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np

from evolution.checks import checked_run
from evolution.problem import Problem
from evolution.settings import RunSettings, above_zero, whole_number
from policy.base import Policy
from utils.names import did_you_mean

log = logging.getLogger(__name__)

MACHINES = ("vm_count", "vm_cpus", "vm_mem")
MODES = ("generational", "async")
SIZES = ("pop_size", "n_parents", "champions", "n_elite_candidates", "n_evals", "n_reevals")
MINIMA = ("episodes_per_batch", "timesteps_per_batch")
AGAIN = ("reevaluate_top",)


def checked_config(config: Mapping[str, Any]) -> tuple[RunSettings, Problem]:
    """See `evolution.checks.checked_run`."""
    return checked_run(config, _check_algorithm)


def _check_algorithm(config: Mapping[str, Any], policy: Policy) -> None:
    for name in SIZES:
        whole_number(name, config[name], 1)
    for name in (*MINIMA, *AGAIN):
        whole_number(name, config[name], 0)
        if config[name] and config["overlap"]:
            raise ValueError(
                f"overlap={config['overlap']}, {name}={config[name]}: a generation that is asked"
                " for more when some of it is known cannot be asked ahead; set one of them to 0"
            )
    _check_mode(config)
    above_zero("sigma", config["sigma"])
    whole_number("count", config["count"], 1)
    if config["count"] > 1 and config["evaluator"] == "ray":
        raise ValueError(
            f"count={config['count']}: runs at once share workers at a redis server; with"
            " evaluator=ray start each by itself"
        )
    for name in MACHINES:
        if config[name] is not None:
            whole_number(name, config[name], 1)
    if not isinstance(config["save_generations"], bool):
        whole_number("save_generations", config["save_generations"], 1)
    check_sizes(**{name: config[name] for name in (*SIZES, *AGAIN)})


def _check_mode(config: Mapping[str, Any]) -> None:
    """Asynchronously, a generation is whatever came: nothing can be asked of it as a whole."""
    if config["mode"] not in MODES:
        hint = did_you_mean(str(config["mode"]), MODES)
        raise ValueError(f"mode={config['mode']!r} is none of {', '.join(MODES)}.{hint}")
    if config["mode"] == "async":
        for name in (*MINIMA, *AGAIN, "overlap", "log_evaluations"):
            if config[name]:
                raise ValueError(f"{name}={config[name]}: needs mode=generational")


def warn_of_machines(config: Mapping[str, Any]) -> None:
    """Say what of the config has no effect on this machine."""
    for name in MACHINES:
        if config[name] is not None:
            log.warning("%s=%s is for machines that are rented: no effect here", name, config[name])


def check_sizes(
    *,
    pop_size: int,
    n_parents: int,
    champions: int,
    n_elite_candidates: int,
    n_evals: int,
    reevaluate_top: int,
    n_reevals: int,
) -> None:
    """Refuse sizes that do not fit together: ValueError, with what would."""
    if not 0 < champions < n_parents < pop_size:
        raise ValueError(
            f"champions={champions}, n_parents={n_parents}, pop_size={pop_size}: need"
            " 0 < champions < n_parents < pop_size"
        )
    if not champions <= n_elite_candidates <= n_parents:
        raise ValueError(
            f"n_elite_candidates={n_elite_candidates}: choose from champions={champions} to"
            f" n_parents={n_parents}"
        )
    if n_evals < 1:
        raise ValueError(f"n_evals={n_evals}: elites are evaluated once at least")
    if not 0 <= reevaluate_top <= pop_size:
        raise ValueError(
            f"reevaluate_top={reevaluate_top}: choose from 0, for none, to pop_size={pop_size}"
        )
    if n_reevals < 1:
        raise ValueError(f"n_reevals={n_reevals}: the best are evaluated once more at least")


def tensor_shapes(policy: Policy) -> np.ndarray:
    """The network as genomes are written: int64[tensors, 2], units and weights into each.

    A tensor of one dimension, such as a bias, has 0 weights into each unit.
    """
    shapes = [tuple(parameter.shape) for parameter in policy.module().parameters()]
    pairs = [(shape[0], int(np.prod(shape[1:])) if len(shape) > 1 else 0) for shape in shapes]
    return np.array(pairs, np.int64)
