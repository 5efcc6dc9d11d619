"""From the experiment's config to what it means, or one line that says why not."""

from collections.abc import Mapping
from typing import Any

from evolution.checks import checked_run
from evolution.problem import Problem
from evolution.settings import RunSettings, above_zero, number, whole_number
from evolution.shaping import SHAPINGS
from policy.base import Policy
from store.reader import load_policy
from utils.names import did_you_mean

# Of torch.optim: those that climb a dense gradient, with a weight decay and one epsilon at most.
# Named here because torch takes two seconds to import, and a misspelt name should be refused
# before anything is started; a test compares.
OPTIMIZERS = (
    *("ASGD", "Adadelta", "Adagrad", "Adam", "AdamW", "Adamax", "NAdam", "RAdam", "RMSprop"),
    "SGD",
)


def checked_config(config: Mapping[str, Any]) -> tuple[RunSettings, Problem]:
    """See `evolution.checks.checked_run`."""
    return checked_run(config, _check_algorithm)


def _check_algorithm(config: Mapping[str, Any], policy: Policy) -> None:
    whole_number("pop_size", config["pop_size"], 2)
    if config["pop_size"] % 2:
        raise ValueError(f"pop_size={config['pop_size']}: candidates come in pairs: 2, 4, 6, …")
    for name in ("lr", "adam_epsilon", "l2coeff"):
        number(name, config[name])
    above_zero("sigma", config["sigma"])
    for name in ("lr", "lr_decay"):
        above_zero(name, config[name])
    if config["lr_decay"] > 1:
        raise ValueError(f"lr_decay={config['lr_decay']}: must be at most 1")
    for name in ("adam_beta1", "adam_beta2"):
        number(name, config[name])
        if config[name] >= 1:
            raise ValueError(f"{name}={config[name]}: must be below 1")
    for name, known in (("optimizer", OPTIMIZERS), ("shaping", tuple(SHAPINGS))):
        if config[name] not in known:
            hint = did_you_mean(str(config[name]), known)
            raise ValueError(f"no {name} {config[name]!r}.{hint} Known: {', '.join(known)}")
    if config["load_from"] is not None:
        policy.theta_from_state_dict(load_policy(config["load_from"]))
