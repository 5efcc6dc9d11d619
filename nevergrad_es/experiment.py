"""Any optimizer of Nevergrad: python nevergrad_es/experiment.py with lander tool=CMA"""

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from evolution.beginning import check_before_start, first_theta
from evolution.configs import SHARED
from evolution.noise import NoiseTable
from evolution.seeding import Seeding
from evolution.session import Session
from evolution.strategy import Strategy
from nevergrad_es.config import checked_config, warn_of_tool
from nevergrad_es.tools import ToolError, tools
from policy.base import Policy
from store.experiment import RunError, in_one_line, new_experiment
from utils.program import set_up_program

if TYPE_CHECKING:
    from sacred.run import Run

ex = new_experiment("Nevergrad", globals())
for shared in SHARED:
    ex.config(shared)
check_before_start(ex, checked_config, warn_of_tool)


@ex.config
def algorithm():  # Bennet et al. 2021, "Nevergrad: black-box optimization platform"
    tool = "CMA"  # of Nevergrad's registry; list_tools shows them
    pop_size = 20  # candidates per generation; CMA wants 4 + 3 ln(parameters) at least
    sigma = 0.3  # of the parameters: how wide the search begins
    init = "policy"  # begin with parameters as the network draws them, or zero
    load_from = None  # or with a saved policy: path of a .model file, or the id of a run
    noisy = True  # tell it that returns vary: CMA, NGOpt and others then choose other methods
    use_ray = None  # True: evaluator=ray; False: never
    num_processors = None  # num_workers by another name


@ex.named_config
def lander():
    """Lunar lander, 18 parameters."""
    env_name = "LunarLanderContinuous-v3"
    hidden_sizes = []
    output_activation = "none"
    pop_size = 20
    num_generations = 300
    num_episodes = 5  # with one, the tools trust lucky candidates
    env_seed = None  # the same for all of a generation, so that luck does not decide between them
    sigma = 1.0  # with 0.3, one of five runs of CMA ended in hovering


@ex.named_config
def ant():
    """MuJoCo's ant as in es/, 11464 parameters: for CMA itself too many, for its diagonal not."""
    env_name = "Ant-v5"
    tool = "DiagonalCMA"
    hidden_sizes = [64, 64]
    hidden_activation = "tanh"
    output_activation = "discrete"
    pop_size = 100
    num_episodes = 5
    num_generations = 1000
    max_ep_length = 500
    sigma = 0.02  # with 0.1 candidates thrash


@ex.named_config
def pendulum():
    """Pendulum swing-up, 64-64 relu, 4481 parameters: for CMA itself too many."""
    env_name = "Pendulum-v1"
    tool = "DiagonalCMA"
    hidden_sizes = [64, 64]
    hidden_activation = "relu"
    output_activation = "none"
    pop_size = 50
    num_episodes = 5
    num_generations = 700
    env_seed = -1
    sigma = 0.1


@ex.named_config
def pendulum_lstm():
    """Pendulum swing-up, LSTM of 5 cells, 206 parameters."""
    env_name = "Pendulum-v1"
    network = "lstm"
    hidden_sizes = [5]
    output_activation = "none"
    pop_size = 50
    num_episodes = 5
    num_generations = 700
    env_seed = -1


@ex.named_config
def pendulum_partial():
    """Pendulum with its velocity hidden, LSTM of 16 cells, 1361 parameters."""
    env_name = "PartiallyObservablePendulum-v0"
    network = "lstm"
    hidden_sizes = [16]
    output_activation = "none"
    tool = "CMA"
    pop_size = 50
    num_episodes = 5
    num_generations = 700
    env_seed = -1


@ex.named_config
def sphere():
    """The sphere function in 10 dimensions; for trying things out."""
    env_name = "Sphere-v0"
    hidden_sizes = []
    output_activation = "none"
    action_scaling = "none"  # where actions are clipped, the sphere looks flat
    pop_size = 20
    num_generations = 100


@ex.command(unobserved=True)
def list_tools():
    """Show all values that tool can have, and which of them serve."""
    width = max(map(len, tools()))
    for tool in sorted(tools().values(), key=lambda each: each.name.lower()):
        verdict = " ".join([tool.verdict, *(f"if {each}" for each in sorted(tool.only))])
        sys.stdout.write(f"{tool.name:{width}}  {verdict:22}  {tool.reason}".rstrip() + "\n")


@ex.main
def run(
    _run: "Run",
    _config: Mapping[str, Any],
    env_kwargs: Mapping[str, Any],
    network_kwargs: Mapping[str, Any],
) -> float:
    """Optimize a policy; the result is the mean return of the last one on fresh episodes."""
    del env_kwargs, network_kwargs  # named above because Sacred adds keys only to what is asked for
    with (
        in_one_line(RunError, ToolError),
        Session(_run, _config, checked_config(_config), make_strategy) as session,
    ):
        for generation in session.generations():
            session.keep_candidate(generation)
            session.record(generation)
        return session.finish()


def make_strategy(
    config: Mapping[str, Any], policy: Policy, noise: NoiseTable, seeding: Seeding
) -> Strategy:
    """The optimizer as configured, before its first generation."""
    from nevergrad_es.strategy import NevergradStrategy  # it takes seconds to import

    rng = seeding.init()
    theta = first_theta(config["load_from"], policy, rng)
    return NevergradStrategy(
        theta if config["init"] == "policy" else np.zeros_like(theta),
        rng,
        tool=config["tool"],
        pop_size=config["pop_size"],
        generations=config["num_generations"],
        sigma=config["sigma"],
        noisy=config["noisy"],
        overlap=config["overlap"],
    )


if __name__ == "__main__":
    set_up_program()
    ex.run_commandline()
