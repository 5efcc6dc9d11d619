"""From the experiment's config to what it means, or one line that says why not."""

from collections.abc import Mapping
from typing import Any

from evolution.noise import check_room
from evolution.problem import Problem, problem_of
from evolution.settings import RunSettings, number, whole_number
from evolution.show import has_display
from evolution.workplace import check_workplace
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
    """The shared settings and the problem of a config, of which every value has been checked.

    Raises:
        ValueError: what is wrong, and what would be right.
        ServerError, AnotherHeadError: the redis server is not there, or taken.
    """
    settings = RunSettings.from_config(config)
    _check_algorithm(config)
    _check_switches(config)
    if config["render"]:
        _check_display()
    problem = problem_of(config)
    policy = problem.make_policy()
    check_room(settings.noise_size, policy.num_params)
    if config["load_from"] is not None:
        policy.theta_from_state_dict(load_policy(config["load_from"]))
    check_workplace(settings.evaluator, settings.redis, settings.local, settings.group)
    return settings, problem


def _check_algorithm(config: Mapping[str, Any]) -> None:
    whole_number("pop_size", config["pop_size"], 2)
    if config["pop_size"] % 2:
        raise ValueError(f"pop_size={config['pop_size']}: candidates come in pairs: 2, 4, 6, …")
    for name in ("sigma", "lr", "adam_epsilon", "l2coeff", "sleep"):
        number(name, config[name])
    for name in ("sigma", "lr"):
        if config[name] == 0 or config[name] == float("inf"):
            raise ValueError(f"{name}={config[name]}: must be above zero, and finite")
    for name in ("adam_beta1", "adam_beta2"):
        number(name, config[name])
        if config[name] >= 1:
            raise ValueError(f"{name}={config[name]}: must be below 1")
    if config["optimizer"] not in OPTIMIZERS:
        hint = did_you_mean(str(config["optimizer"]), OPTIMIZERS)
        known = ", ".join(OPTIMIZERS)
        raise ValueError(f"no optimizer {config['optimizer']!r}.{hint} Known: {known}")


def _check_switches(config: Mapping[str, Any]) -> None:
    for name in ("render", "force_cpu", "local", "log_evaluations"):
        if not isinstance(config[name], bool):  # 'false' is a word, and would count as true
            raise ValueError(f"{name}={config[name]!r}: must be True or False")


def _check_display() -> None:
    if not has_display():
        raise ValueError("render=True needs a display, and there is none here: leave it out")
