"""OpenAI's Evolution Strategies: python es/experiment.py with lander"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from es.config import checked_config
from evolution.beginning import check_before_start, first_theta
from evolution.configs import SHARED
from evolution.noise import NoiseTable
from evolution.seeding import Seeding
from evolution.session import Session
from evolution.strategy import Strategy
from policy.base import Policy
from store.experiment import new_experiment
from utils.program import set_up_program

if TYPE_CHECKING:
    from sacred.run import Run

ex = new_experiment("ES", globals())


for shared in SHARED:
    ex.config(shared)
check_before_start(ex, checked_config)


@ex.config
def algorithm():  # Salimans et al. 2017
    pop_size = 50  # candidates per generation, both members of each antithetic pair counted
    sigma = 0.02  # standard deviation of the perturbations of theta
    shaping = "centered_ranks"  # of fitness; or log_ranks: the best count most
    optimizer = "Adam"  # of torch.optim
    lr = 0.005  # its step size
    lr_decay = 1.0  # factor of it after each generation: 1 keeps it as it is
    l2coeff = 0.005  # its weight decay
    adam_beta1 = 0.9
    adam_beta2 = 0.999
    adam_epsilon = 1e-8
    load_from = None  # begin with a saved policy: path of a .model file, or the id of a run


@ex.named_config
def lander():
    """Lunar lander, 18 parameters: 267 to 275 in 49 to 91 core-seconds, five of five runs."""
    env_name = "LunarLanderContinuous-v3"
    hidden_sizes = []
    output_activation = "none"
    pop_size = 50
    num_episodes = 2
    num_generations = 300
    stop_fitness = 265
    lr = 0.1
    sigma = 0.2  # with less, one run in five stays in the valley where falling is best
    l2coeff = 0.005


@ex.named_config
def lander_original():
    """Lunar lander, distributed_es's settings: noisy, 120 to 252 in 44 to 116 core-seconds."""
    env_name = "LunarLanderContinuous-v3"
    hidden_sizes = []
    output_activation = "none"
    action_scaling = "none"
    pop_size = 20
    num_generations = 300
    num_episodes = 1
    lr = 0.1
    sigma = 0.1


@ex.named_config
def ant():
    """MuJoCo's ant, 64-64 tanh, 11 levels: 617 to 751 after 2 million steps, 9 core-minutes."""
    env_name = "Ant-v5"
    hidden_sizes = [64, 64]
    hidden_activation = "tanh"
    output_activation = "discrete"
    pop_size = 100
    num_episodes = 1
    lr = 0.01
    sigma = 0.02  # with 0.1 candidates thrash: nothing is learnt in 4 million steps
    shaping = "log_ranks"
    num_generations = 1000
    max_ep_length = 500


@ex.named_config
def ant_original():
    """The ant with distributed_es's settings: nothing is learnt in 4 million steps."""
    env_name = "Ant-v5"
    hidden_sizes = [64, 64]
    hidden_activation = "tanh"
    output_activation = "discrete"
    action_scaling = "none"
    pop_size = 100
    num_episodes = 1
    lr = 0.01
    sigma = 0.1
    num_generations = 1000
    max_ep_length = 500


@ex.named_config
def pendulum():
    """Pendulum swing-up, 64-64 relu: -167 in 152 core-seconds, one run."""
    env_name = "Pendulum-v1"
    hidden_sizes = [64, 64]
    hidden_activation = "relu"
    output_activation = "none"
    pop_size = 200
    lr = 0.05
    sigma = 0.07
    num_generations = 700
    stop_fitness = -170
    num_episodes = 5
    env_seed = -1


@ex.named_config
def pendulum_lstm():
    """Pendulum swing-up, LSTM of 16 cells: -159 in 135 core-seconds, one run."""
    env_name = "Pendulum-v1"
    network = "lstm"
    hidden_sizes = [16]
    output_activation = "none"
    env_seed = -1
    num_episodes = 10
    num_generations = 300
    stop_fitness = -170
    pop_size = 200
    lr = 0.1
    sigma = 0.1
    l2coeff = 0.0


@ex.named_config
def pendulum_lstm_original():
    """pendulum_lstm with distributed_es's settings, which learn slowly."""
    env_name = "Pendulum-v1"
    network = "lstm"
    hidden_sizes = [16]
    output_activation = "none"
    action_scaling = "none"
    pop_size = 200
    lr = 0.05
    sigma = 0.07
    num_generations = 700
    num_episodes = 5
    env_seed = -1


@ex.named_config
def pendulum_partial():
    """Pendulum, velocity hidden, LSTM 16: -168 to -191 in 6 core-minutes, five of five runs."""
    env_name = "PartiallyObservablePendulum-v0"
    network = "lstm"
    hidden_sizes = [16]
    output_activation = "none"
    env_seed = -1
    num_episodes = 5
    eval_episodes = 50  # the returns vary widely, and these decide when to stop
    num_generations = 400
    stop_fitness = -180
    pop_size = 400
    lr = 0.2  # large, or it stays where nothing swings up
    lr_decay = 0.996
    sigma = 0.2
    shaping = "log_ranks"  # with centered_ranks, two runs in ten never swung up
    l2coeff = 0.0


@ex.named_config
def pendulum_partial_original():
    """pendulum_partial with distributed_es's settings, whose steps are too small to learn."""
    env_name = "PartiallyObservablePendulum-v0"
    network = "lstm"
    hidden_sizes = [16]
    output_activation = "none"
    action_scaling = "none"
    env_seed = -1
    num_episodes = 5
    num_generations = 700
    pop_size = 50
    lr = 0.02
    sigma = 0.02
    l2coeff = 0.001


@ex.named_config
def cartpole():
    """Cart-pole, Elman network of 5 neurons (62 parameters): 500 in 23 core-seconds, one run."""
    env_name = "CartPole-v1"
    network = "elman"
    hidden_sizes = [5]
    output_activation = "none"
    lr = 0.01
    sigma = 0.02
    num_generations = 1000
    stop_fitness = 500
    pop_size = 24
    env_seed = -1
    num_episodes = 5
    l2coeff = 0.001


@ex.named_config
def sphere():
    """The sphere function in 10 dimensions: 0.00 in 6 core-seconds; for trying things out."""
    env_name = "Sphere-v0"
    hidden_sizes = []
    output_activation = "none"
    pop_size = 50
    lr = 0.05
    sigma = 0.05
    l2coeff = 0.0
    num_generations = 100


@ex.main
def run(
    _run: "Run",
    _config: Mapping[str, Any],
    env_kwargs: Mapping[str, Any],
    network_kwargs: Mapping[str, Any],
) -> float:
    """Evolve a policy; the result is the mean return of the last one on fresh episodes."""
    del env_kwargs, network_kwargs  # named above because Sacred adds keys only to what is asked for
    with Session(_run, _config, checked_config(_config), make_strategy) as session:
        for generation in session.generations():
            session.record(generation)
        return session.finish()


def make_strategy(
    config: Mapping[str, Any], policy: Policy, noise: NoiseTable, seeding: Seeding
) -> Strategy:
    """The algorithm as configured, at its first theta."""
    from es.openai_es import OpenAIES  # torch takes seconds: the workers start meanwhile

    return OpenAIES(
        first_theta(config["load_from"], policy, seeding.init()),
        noise,
        pop_size=config["pop_size"],
        sigma=config["sigma"],
        shaping=config["shaping"],
        optimizer=config["optimizer"],
        lr=config["lr"],
        lr_decay=config["lr_decay"],
        l2coeff=config["l2coeff"],
        betas=(config["adam_beta1"], config["adam_beta2"]),
        eps=config["adam_epsilon"],
    )


if __name__ == "__main__":
    set_up_program()
    ex.run_commandline()
