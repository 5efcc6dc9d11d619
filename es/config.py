"""From the experiment's config to what it means, or one line that says why not."""

import os
import sys
from collections.abc import Mapping
from typing import Any

from evolution.noise import check_room
from evolution.problem import Problem, choose_problem
from evolution.settings import RunSettings, number, whole_number
from evolution.workplace import check_workplace
from policy.base import checked_hidden_sizes
from policy.registry import is_built_in
from store.reader import policy_file, read_policy
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
        policy.theta_from_state_dict(read_policy(policy_file(config["load_from"])))
    check_workplace(settings.evaluator, settings.redis, settings.local)
    return settings, problem


def problem_of(config: Mapping[str, Any]) -> Problem:
    """The problem that a config describes."""
    network, own = config["network"], config["network_kwargs"]
    if not isinstance(network, str):
        raise ValueError(f"network={network!r}: must be a name, such as feedforward")
    if not isinstance(own, Mapping):
        raise ValueError(f"network_kwargs={own!r}: must be a dict, such as {{'width': 16}}")
    own = dict(own)
    if is_built_in(network):
        if own:
            raise ValueError(f"network_kwargs={own}: network {network!r} takes none")
        names = ("hidden_sizes", "hidden_activation", "output_activation")
        own = {name: config[name] for name in names}
        own["hidden_sizes"] = list(checked_hidden_sizes(config["hidden_sizes"]))
    elif not config["force_cpu"] and _has_cuda():
        own["device"] = "cuda"
    return choose_problem(
        env_name=config["env_name"],
        engine=config["engine"],
        network=network,
        policy_kwargs=own,
        action_scaling=config["action_scaling"],
        max_steps=config["max_ep_length"],
    )


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
    for name in ("render", "force_cpu", "local"):
        if not isinstance(config[name], bool):  # 'false' is a word, and would count as true
            raise ValueError(f"{name}={config[name]!r}: must be True or False")


def _check_display() -> None:
    variables = ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER")
    if sys.platform == "linux" and not any(os.environ.get(name) for name in variables):
        raise ValueError("render=True needs a display, and there is none here: leave it out")


def _has_cuda() -> bool:
    import torch  # only for modules of the user's, which need it anyway

    return torch.cuda.is_available()
