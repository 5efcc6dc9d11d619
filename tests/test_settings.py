"""The settings that all algorithms share; what a user sees of them is in test_bad_input."""

import os
import re
from typing import Any

import numpy as np
import pytest
import torch

from es.config import OPTIMIZERS
from es.openai_es import make_optimizer
from evolution.noise import NoiseTable
from evolution.settings import (
    RunSettings,
    available_cores,
    number,
    whole_number,
    with_ray_names,
)

CONFIG: dict[str, Any] = {
    "seed": 5,
    "env_seed": -1,
    "num_generations": 100,
    "num_episodes": 1,
    "eval_episodes": 10,
    "final_episodes": 100,
    "num_serializations": 10,
    "stop_fitness": None,
    "n_tsteps": None,
    "max_hours": None,
    "evaluator": "local",
    "redis": None,
    "local": True,
    "ray_address": None,
    "num_workers": 3,
    "min_task_runtime": 0.05,
    "overlap": 0,
    "audit": 0.0,
    "group": "default",
    "checkpoint_every": 30.0,
    "noise_size": 1000,
    "noise_seed": 123,
    "sigma": 0.1,  # an algorithm's own: not looked at
}


def test_settings_are_what_the_config_says() -> None:
    settings = RunSettings.from_config(CONFIG)
    for name in set(CONFIG) - {"sigma"}:
        assert getattr(settings, name) == CONFIG[name]
    assert not hasattr(settings, "sigma")


def test_settings_lead_to_seeds_and_noise() -> None:
    settings = RunSettings.from_config(CONFIG | {"env_seed": 7})
    assert settings.seeding().training(0, 1, 2).tolist() == [[7, 8]]
    first = settings.seeding().init().random()
    assert first == RunSettings.from_config(CONFIG).seeding().init().random()
    assert first != RunSettings.from_config(CONFIG | {"seed": 6}).seeding().init().random()
    with settings.noise_table() as noise, NoiseTable(1000, 123) as same:
        assert (noise.size, noise.fingerprint) == (1000, same.fingerprint)


@pytest.mark.parametrize(
    ("generations", "times", "period"), [(100, 10, 10), (99, 10, 9), (5, 10, 1), (1, 1, 1)]
)
def test_period_of_saved_policies(generations: int, times: int, period: int) -> None:
    config = CONFIG | {"num_generations": generations, "num_serializations": times}
    assert RunSettings.from_config(config).serialization_period == period


def test_without_a_number_of_workers_there_is_one_per_core() -> None:
    settings = RunSettings.from_config(CONFIG | {"num_workers": None})
    assert settings.num_workers == available_cores()
    assert 1 <= settings.num_workers <= (os.cpu_count() or 1)


def test_a_ray_cluster_says_itself_how_many_workers_there_are() -> None:
    elsewhere = CONFIG | {"num_workers": None, "evaluator": "ray", "ray_address": "auto"}
    assert RunSettings.from_config(elsewhere).num_workers == 0
    assert RunSettings.from_config(elsewhere | {"num_workers": 5}).num_workers == 5
    here = elsewhere | {"ray_address": None}
    assert RunSettings.from_config(here).num_workers == available_cores()


def test_a091_use_ray_and_num_processors_say_where_and_how_many() -> None:
    plain = CONFIG | {"evaluator": "redis", "num_workers": None}
    for use_ray, count, evaluator, workers in (
        (None, None, "redis", None),
        (False, 3, "redis", 3),
        (True, None, "ray", None),
        (True, 2, "ray", 2),
    ):
        found = with_ray_names(plain | {"use_ray": use_ray, "num_processors": count})
        assert (found["evaluator"], found["num_workers"]) == (evaluator, workers)
    again = CONFIG | {"evaluator": "ray", "use_ray": True, "num_processors": 3}
    assert with_ray_names(again) == again


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"num_processors": 0}, "num_processors=0: must be a whole number, 1 or more"),
        ({"num_processors": 2.5}, "num_processors=2.5: must be a whole number, 1 or more"),
        ({"num_processors": 2}, "num_processors=2 contradicts num_workers=3"),
        ({"use_ray": "yes"}, "use_ray='yes': must be True, False or None"),
        ({"use_ray": False, "evaluator": "ray"}, "use_ray=False contradicts evaluator='ray'"),
        ({"use_ray": True, "evaluator": "local"}, "use_ray=True contradicts evaluator='local'"),
    ],
)
def test_a091_what_contradicts_is_refused(said: dict[str, Any], told: str) -> None:
    config = CONFIG | {"use_ray": None, "num_processors": None} | said
    with pytest.raises(ValueError, match=re.escape(told)):
        with_ray_names(config)


def test_the_seed_may_be_drawn_later() -> None:
    """Sacred checks a config before it draws the seed."""
    config = {name: value for name, value in CONFIG.items() if name != "seed"}
    assert RunSettings.from_config(config).seed == 0


LEAST = {
    "seed": 0,
    "env_seed": -1,
    "num_generations": 1,
    "num_episodes": 1,
    "eval_episodes": 1,
    "final_episodes": 2,
    "num_serializations": 1,
    "num_workers": 1,
    "overlap": 0,
    "noise_size": 1,
    "noise_seed": 0,
}


@pytest.mark.parametrize("name", LEAST)
def test_whole_numbers_have_a_least_value(name: str) -> None:
    least = LEAST[name]
    assert getattr(RunSettings.from_config(CONFIG | {name: least}), name) == least
    for wrong in (least - 1, float(least + 1), str(least), True, [least], float("nan")):
        with pytest.raises(ValueError, match=rf"^{name}=.*: .* {least}\b"):
            RunSettings.from_config(CONFIG | {name: wrong})


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("min_task_runtime", (0, 0.5), (-0.1, "0.1", None, False, float("nan"))),
        ("checkpoint_every", (0, 0.5), (-0.1, "0.1", None, False, float("nan"))),
        ("stop_fitness", (None, -300, 0.5), ("200", True, float("nan"))),
        ("max_hours", (None, 2, 0.5), ("2", True, -1, float("nan"))),
    ],
)
def test_numbers_are_numbers(name: str, right: tuple, wrong: tuple) -> None:
    for value in right:
        assert getattr(RunSettings.from_config(CONFIG | {name: value}), name) == value
    for value in wrong:
        with pytest.raises(ValueError, match=f"^{name}=.*: must be a number"):
            RunSettings.from_config(CONFIG | {name: value})


def test_a036_limits_are_above_zero() -> None:
    assert RunSettings.from_config(CONFIG | {"n_tsteps": 10_000_000}).n_tsteps == 10_000_000
    for name, wrong in (("n_tsteps", 0), ("n_tsteps", 1e6), ("max_hours", 0)):
        with pytest.raises(ValueError, match=f"^{name}={wrong}: must be"):
            RunSettings.from_config(CONFIG | {name: wrong})


def test_a_share_is_at_most_one() -> None:
    assert RunSettings.from_config(CONFIG | {"audit": 1}).audit == 1
    for wrong in (1.1, -0.1, "0.1", None, True, float("nan")):
        with pytest.raises(ValueError, match=r"^audit="):
            RunSettings.from_config(CONFIG | {"audit": wrong})


def test_checks_of_values() -> None:
    whole_number("n", 3, 3)
    number("x", -1.5, least=None)
    number("x", 0)
    with pytest.raises(ValueError, match=r"n=2: must be a whole number, 3 or more"):
        whole_number("n", 2, 3)
    with pytest.raises(ValueError, match=r"x=-1: must be a number, 0 or more"):
        number("x", -1)


def climbs(name: str) -> bool:
    """True if torch's optimizer of that name follows a plain gradient upwards, and decays."""
    theta = torch.full((3,), 2.0)
    try:
        optimizer = make_optimizer(name, theta, lr=0.1, weight_decay=0.1, betas=(0.9, 0.999))
        theta.grad = torch.tensor([1.0, -1.0, 0.0])
        optimizer.step()
    except (ValueError, RuntimeError):
        return False
    return bool(theta[0] > theta[1])


def test_the_optimizers_on_offer_are_those_of_torch_that_can_serve() -> None:
    known = [name for name in torch.optim.__all__ if name[0].isupper()]
    able = {name for name in known if climbs(name)}
    assert set(OPTIMIZERS) <= able
    left_out = {"Adafactor"}  # takes two epsilons, where the config has one
    assert able - left_out == set(OPTIMIZERS)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_each_optimizer_finds_a_maximum(name: str) -> None:
    target = torch.tensor([0.5, -0.25, 0.0])
    theta = torch.zeros(3)
    lr = {"Adadelta": 30.0, "Adagrad": 0.1, "ASGD": 0.1, "SGD": 0.1}.get(name, 0.01)
    optimizer = make_optimizer(name, theta, lr=lr, weight_decay=0.0, betas=(0.9, 0.999), eps=1e-8)
    for _ in range(300):
        theta.grad = target - theta
        optimizer.step()
    assert np.allclose(theta, target, atol=0.05)
