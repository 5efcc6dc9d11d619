"""From the experiment's config to what it means, or one line that says why not."""

import logging
from collections.abc import Mapping
from typing import Any

from evolution.checks import checked_run
from evolution.problem import Problem
from evolution.settings import RunSettings, above_zero, whole_number, with_ray_names
from nevergrad_es.tools import UNREPEATABLE, find_tool
from policy.base import Policy
from store.reader import load_policy
from utils.names import did_you_mean

log = logging.getLogger(__name__)

INITS = ("policy", "zero")


def checked_config(config: Mapping[str, Any]) -> tuple[RunSettings, Problem]:
    """See `evolution.checks.checked_run`."""
    return checked_run(with_ray_names(config), _check_algorithm)


def _check_algorithm(config: Mapping[str, Any], policy: Policy) -> None:
    whole_number("pop_size", config["pop_size"], 1)
    above_zero("sigma", config["sigma"])
    if not isinstance(config["noisy"], bool):
        raise ValueError(f"noisy={config['noisy']!r}: must be True or False")
    if config["init"] not in INITS:
        hint = did_you_mean(str(config["init"]), INITS)
        raise ValueError(f"init={config['init']!r} is none of {', '.join(INITS)}.{hint}")
    if config["load_from"] is not None:
        if config["init"] != "policy":
            raise ValueError(
                f"init={config['init']}, load_from={config['load_from']}: leave out one of them"
            )
        policy.theta_from_state_dict(load_policy(config["load_from"]))
    find_tool(config["tool"]).check(policy.num_params, config["noisy"])


def warn_of_tool(config: Mapping[str, Any]) -> None:
    """Say if nobody can have the run's result again."""
    tool = find_tool(config["tool"])
    if tool.verdict == UNREPEATABLE:
        log.warning(
            "tool=%s: equal seeds give unequal runs, and none can be resumed (%s)",
            *(tool.name, tool.reason),
        )
