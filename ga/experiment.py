"""Deep genetic algorithms: python ga/experiment.py with lander"""

import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from evolution.beginning import check_before_start
from evolution.configs import SHARED
from evolution.fellows import fellows
from evolution.loop import Generation
from evolution.noise import NoiseTable
from evolution.problem import Problem
from evolution.seeding import Seeding
from evolution.session import Session
from evolution.steady import evolve_steadily
from evolution.strategy import Strategy
from ga.atari_configs import ATARI
from ga.config import AGAIN, MINIMA, SIZES, checked_config, tensor_shapes, warn_of_machines
from ga.settings_file import translated
from policy.base import Policy
from store.experiment import new_experiment
from utils.program import set_up_program

if TYPE_CHECKING:
    from sacred.run import Run

    from ga.outputs import Outputs

log = logging.getLogger(__name__)
ex = new_experiment("GA", globals(), translate=translated)
for shared in SHARED:
    ex.config(shared)
check_before_start(ex, checked_config, warn_of_machines)


@ex.config
def algorithm():  # Such et al. 2018
    pop_size = 1000  # children per generation
    n_parents = 20  # survivors, of which the next children are made
    champions = 3  # survivors that are carried on unmutated
    n_elite_candidates = 10  # survivors that are evaluated again, on fresh episodes
    n_evals = 30  # times each of them plays a child's episodes
    sigma = 0.005  # standard deviation of a mutation
    mode = "generational"  # or async: workers never wait, and equal seeds give unequal runs
    save_generations = True  # survivors as Generation_G.npz: True, False, or every so many
    episodes_per_batch = 0  # episodes of a generation at least; it grows until it has so many
    timesteps_per_batch = 0  # likewise steps of the environment
    reevaluate_top = 0  # best children that play again before survivors are chosen; 0: none
    n_reevals = 10  # times each of them plays a child's episodes


@ex.config
def machines():
    count = 1  # runs at once on the same workers, with the seeds seed, seed + 1, …
    vm_count = None  # machines that a provider is to rent; without effect on this one
    vm_cpus = None  # cores of each
    vm_mem = None  # GB of memory of each


@ex.named_config
def lander():
    """Lunar lander, 18 parameters."""
    env_name = "LunarLanderContinuous-v3"
    hidden_sizes = []
    output_activation = "none"
    pop_size = 200
    n_evals = 10
    num_generations = 100
    stop_fitness = 250
    sigma = 0.1


@ex.named_config
def cartpole():
    """Cart-pole, Elman network of 5 neurons (62 parameters)."""
    env_name = "CartPole-v1"
    network = "elman"
    hidden_sizes = [5]
    output_activation = "none"
    pop_size = 100
    n_parents = 10
    champions = 2
    n_elite_candidates = 5
    n_evals = 5
    num_generations = 200
    stop_fitness = 500
    sigma = 0.1


@ex.named_config
def pendulum_partial():
    """Pendulum with its velocity hidden, LSTM of 16 cells, 1361 parameters."""
    env_name = "PartiallyObservablePendulum-v0"
    network = "lstm"
    hidden_sizes = [16]
    output_activation = "none"
    env_seed = -1
    num_episodes = 5
    pop_size = 200
    n_evals = 10
    num_generations = 300
    sigma = 0.1


@ex.named_config
def sphere():
    """The sphere function in 10 dimensions; for trying things out."""
    env_name = "Sphere-v0"
    hidden_sizes = []
    output_activation = "none"
    pop_size = 200
    n_evals = 1
    num_generations = 100
    sigma = 0.05


for game in ATARI:
    ex.named_config(game)


@ex.main
def run(
    _run: "Run",
    _config: Mapping[str, Any],
    env_kwargs: Mapping[str, Any],
    network_kwargs: Mapping[str, Any],
) -> float:
    """Evolve genomes; the result is the mean return of the last elite on fresh episodes."""
    del env_kwargs, network_kwargs  # named above because Sacred adds keys only to what is asked for
    settings, problem = checked_config(_config)
    with (
        fellows(_run, _config, settings, problem.engine),
        Session(_run, _config, (settings, problem), make_strategy) as session,
    ):
        outputs = outputs_of(session, _run, _config, problem)
        for generation in session.generations(loop_of(_config["mode"])):
            session.record(outputs.add(generation))
        return session.finish()


def make_strategy(
    config: Mapping[str, Any], policy: Policy, noise: NoiseTable, seeding: Seeding
) -> Strategy:
    """The algorithm as configured, before its first generation."""
    from ga.deep_ga import DeepGA

    sizes = {name: config[name] for name in (*SIZES, *MINIMA, *AGAIN)}
    return DeepGA(tensor_shapes(policy), noise, sigma=config["sigma"], **sizes)


def loop_of(mode: str) -> Callable[..., Iterator[Generation]] | None:
    """What asks and tells the algorithm; None: the loop of all."""
    if mode == "generational":
        return None
    log.warning("mode=async: the result depends on who was faster; it cannot be had again")
    return evolve_steadily


def outputs_of(
    session: Session, run: "Run", config: Mapping[str, Any], problem: Problem
) -> "Outputs":
    """What the run leaves behind, beside what every run does."""
    from ga.deep_ga import DeepGA
    from ga.outputs import Outputs

    assert isinstance(session.strategy, DeepGA)
    outputs = Outputs(session.strategy, session.keep, run.info, config, problem)
    session.list_as(outputs.listing)
    return outputs


if __name__ == "__main__":
    set_up_program()
    finished = ex.run_commandline()
    if finished is not None and finished.info.get("failed fellows"):
        sys.exit(1)
