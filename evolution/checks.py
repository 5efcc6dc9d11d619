"""What every experiment asks of its config before anything is started."""

import logging
from collections.abc import Callable, Mapping
from typing import Any

from evolution.noise import check_room
from evolution.playback.show import has_display
from evolution.problem import Problem, problem_of
from evolution.ray_cluster import check_ray
from evolution.settings import RunSettings, check_size, number
from evolution.workplace import check_workplace
from policy.base import Policy

log = logging.getLogger(__name__)


def checked_run(
    config: Mapping[str, Any], check_algorithm: Callable[[Mapping[str, Any], Policy], None]
) -> tuple[RunSettings, Problem]:
    """The shared settings and the problem of a config, of which every value has been checked.

    Args:
        check_algorithm: looks at the values that are the algorithm's own.
    Raises:
        ValueError: what is wrong, and what would be right.
        ServerError, AnotherHeadError: the redis server, or the Ray cluster, is not there, or taken.
    """
    settings = RunSettings.from_config(config)
    for name in ("render", "force_cpu", "local", "log_evaluations"):
        if not isinstance(config[name], bool):  # 'false' is a word, and would count as true
            raise ValueError(f"{name}={config[name]!r}: must be True or False")
    number("sleep", config["sleep"])
    if config["render"] and not has_display():
        raise ValueError("render=True needs a display, and there is none here: leave it out")
    problem = problem_of(config)
    policy = problem.make_policy()
    check_room(settings.noise_size, policy.num_params)
    check_algorithm(config, policy)
    check_size(config["pop_size"], settings.num_episodes)
    check_workplace(settings.evaluator, settings.redis, settings.local, settings.group)
    if settings.evaluator == "ray":
        check_ray(settings.ray_address, settings.audit)
    elif settings.ray_address is not None:
        log.warning("ray_address=%s has no effect: say evaluator=ray", settings.ray_address)
    return settings, problem
