"""The Atari experiments of the genetic algorithms, and evaluation with networks for pictures."""

import signal
from typing import Any

import numpy as np
import pytest
from sacred.run import Run
from threadpoolctl import threadpool_limits

from env import atari
from evolution.evaluation import LocalEvaluator, Part
from evolution.noise import NoiseTable
from evolution.population import Dense
from evolution.problem import Problem, choose_problem
from ga.atari_configs import ATARI
from ga.experiment import ex
from store.experiment import ConfigError

TINY: dict[str, Any] = {
    "evaluator": "local",
    "num_generations": 2,
    "pop_size": 5,
    "n_parents": 3,
    "champions": 1,
    "n_elite_candidates": 2,
    "n_evals": 1,
    "eval_episodes": 1,
    "final_episodes": 2,
    "max_ep_length": 5,
    "noise_size": 2_000_000,
    "seed": 1,
}
PARAMETERS = {"space_invaders": 236_614}  # IBM's network with the 6 actions of its game


def run(name: str, **config: Any) -> Run:
    handler = signal.getsignal(signal.SIGTERM)
    try:
        updates = TINY | config
        return ex.run(named_configs=[name], config_updates=updates, options={"--unobserved": True})
    finally:
        signal.signal(signal.SIGTERM, handler)


@pytest.mark.slow
@pytest.mark.parametrize("name", [config.__name__ for config in ATARI])
def test_a003_named_config_finishes_two_tiny_generations(name: str) -> None:
    done = run(name)
    assert done.status == "COMPLETED"
    assert np.isfinite(done.result)
    assert done.info["engine"] == "atari"
    config = done.config
    assert config["network"] == ("ibm" if name == "space_invaders" else "nature")
    if name in PARAMETERS:
        made = choose_problem(
            env_name=config["env_name"], env_kwargs=config["env_kwargs"], network=config["network"]
        )
        assert made.make_policy().num_params == PARAMETERS[name]


def test_a003_without_ale_py_a_named_config_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(atari, "is_installed", lambda: False)
    with pytest.raises(ConfigError, match=r"ALE/Frostbite-v5 needs .*: pip install ale-py$"):
        run("frostbite")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"env_name": "ALE/Frostbit-v5"}, "no environment 'ALE/Frostbit-v5'.*Frostbite-v5"),
        ({"env_kwargs": {"picture": "gray"}}, "picture='gray'; choose from grey, colour"),
        ({"env_kwargs": 3}, "env_kwargs=3: must be a dict"),
        ({"network": "natur"}, "no network 'natur'.*'nature'"),
        ({"network": "ibm"}, "too small for this network"),
        ({"noise_size": 1000}, "noise_size=1000 is too small for a policy of 1693362"),
    ],
)
def test_mistakes_are_one_line(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        run("frostbite", **config)
    assert "\n" not in str(caught.value)


def test_a_return_depends_on_theta_seed_and_problem_alone() -> None:
    """Not on who is played beside it, and not on how many threads BLAS may use."""
    problem = choose_problem(
        env_name="ALE/SpaceInvaders-v5",
        env_kwargs={"life_loss_ends": True},
        network="nature",
        max_steps=12,
    )
    rng = np.random.default_rng(2)
    policy = problem.make_policy()
    thetas = np.stack([policy.initial_theta(rng) for _ in range(2)])
    seeds = rng.integers(0, 2**31, (2, 3))
    with NoiseTable(policy.num_params, 1) as own, LocalEvaluator(problem, own) as evaluator:
        with threadpool_limits(2):
            (together,) = evaluator.evaluate([Part(Dense(thetas), seeds)])
        alone = [
            [evaluator.evaluate([Part(Dense(theta[None]), seed[None, None])])[0] for seed in row]
            for theta, row in zip(thetas, seeds, strict=True)
        ]
    fitness = [np.mean([each.fitness[0] for each in row]) for row in alone]
    assert together.fitness.tolist() == np.array(fitness, np.float32).tolist()
    assert together.steps.tolist() == [sum(int(each.steps[0]) for each in row) for row in alone]
    assert Problem.from_json(problem.to_json()) == problem
