"""How the experiments of all algorithms begin: with a look at the config, and a first theta."""

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from cluster.clients import AnotherHeadError
from cluster.redis_server import ServerError
from policy.base import Policy
from store.experiment import CHECKED_COMMANDS, ConfigError, in_one_line
from store.reader import load_policy

if TYPE_CHECKING:
    from sacred import Experiment


Look = Callable[[Mapping[str, Any]], object]


def check_before_start(ex: "Experiment", check: Look, warn: Look = lambda config: None) -> None:
    """Have an experiment refuse a bad config in one line, before anything is started.

    Args:
        check: raises ValueError, ServerError or AnotherHeadError.
        warn: says what is to be known of a good one.
    """

    @ex.config_hook
    def look(config: Mapping[str, Any], command_name: str, logger: logging.Logger) -> dict:
        if command_name in CHECKED_COMMANDS:
            with in_one_line(ConfigError, ValueError, ServerError, AnotherHeadError):
                check(config)
            warn(config)
        return {}


def first_theta(load_from: str | None, policy: Policy, rng: np.random.Generator) -> np.ndarray:
    """Parameters to begin with, float32[dim]: those of a saved policy, or the network's own.

    Args:
        load_from: path of a saved policy, or the id of a run; None: draw them.
    """
    if load_from is None:
        return policy.initial_theta(rng)
    return policy.theta_from_state_dict(load_policy(load_from))
