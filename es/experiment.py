"""OpenAI's Evolution Strategies: python es/experiment.py with lander"""

import logging
import secrets
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from redis import RedisError

from cluster.clients import AnotherHeadError
from cluster.keys import who
from cluster.redis_server import ServerError
from es.config import checked_config
from evolution.evaluation import Evaluator
from evolution.lookout import WorkerFailure
from evolution.loop import Final, History, assess, evolve
from evolution.noise import NoiseTable
from evolution.problem import problem_of
from evolution.seeding import Seeding
from evolution.settings import RunSettings
from evolution.show import show_episode
from evolution.simulator import EpisodeError
from evolution.strategy import Strategy
from evolution.workplace import open_workplace
from policy.base import Policy
from store.experiment import (
    ConfigError,
    RunError,
    end_on_sigterm,
    in_one_line,
    new_experiment,
)
from store.keeper import Restorable, RunKeeper
from store.reader import load_policy
from store.recorder import SacredRecorder
from utils.program import set_up_program
from utils.progress import Progress

if TYPE_CHECKING:
    from sacred.run import Run

ex = new_experiment("ES", globals())


@ex.config
def defaults():
    author = "unknown"

    # --- the task
    env_name = "LunarLanderContinuous-v3"  # any Gymnasium id, or package.module:Id-v0
    engine = "auto"  # auto, envpool (fast), gymnasium (any environment)
    num_episodes = 1  # played by each candidate; their mean return is its fitness
    max_ep_length = None  # steps after which an episode is cut off; None: the environment's own
    env_seed = -1  # -1: fresh episodes for every pair; None: one set per generation; or a number
    action_scaling = "clip"  # clip: to the bounds; tanh: squash into them; none: as they come

    # --- the policy
    network = "feedforward"  # feedforward, elman, lstm, or package.module:Name of a torch module
    network_kwargs = {}  # further arguments, for a module of your own
    hidden_sizes = [64, 64]  # neurons per hidden layer; [] for none
    hidden_activation = "tanh"  # none, tanh, relu, lrelu, elu, discrete
    output_activation = "discrete"  # those, gaussian or gaussian_fixed
    render = False  # show an episode in a window whenever a policy is saved; needs a display
    sleep = 0.01  # seconds between two steps shown
    force_cpu = False  # keep a torch module of your own on the CPU although there is CUDA
    load_from = None  # begin with a saved policy: path of a .model file, or the id of a run

    # --- the algorithm (Salimans et al. 2017)
    pop_size = 50  # candidates per generation, both members of each antithetic pair counted
    num_generations = 1000
    stop_fitness = None  # stop when "current fitness", averaged over 10 generations, reaches it
    sigma = 0.02  # standard deviation of the perturbations of theta
    optimizer = "Adam"  # of torch.optim
    lr = 0.005  # its step size
    l2coeff = 0.005  # its weight decay
    adam_beta1 = 0.9
    adam_beta2 = 0.999
    adam_epsilon = 1e-8
    noise_size = 10_000_000  # floats in the table of noise, 4 bytes each, one table per machine
    noise_seed = 123

    # --- what is kept of it
    eval_episodes = 10  # played by theta itself each generation: "current fitness"
    final_episodes = 100  # likewise by the last theta
    num_serializations = 10  # policies saved on the way, beside the first, the best and the last
    checkpoint_every = 30.0  # seconds; what a killed run has to do again when it is resumed
    log_evaluations = False  # True: each evaluation as a line of results.csv, 65 bytes and 10 µs

    # --- who works
    evaluator = "redis"  # redis: worker processes; local: this process alone
    redis = None  # URL of a server; None: EVO_REDIS, else run-server's, else one of our own
    local = True  # False: never start a server and workers here
    num_workers = None  # to start here; None: one per core
    min_task_runtime = 0.05  # seconds of work that a worker takes at a time, at least
    overlap = 0  # generations that are asked ahead, so that workers need not wait for the slowest
    audit = 0.0  # share of the work that two workers do and that is compared bit for bit
    group = "default"  # of workers: several runs share a server, each with a group of its own


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
    """Lunar lander, distributed_es's settings: noisy, 167 to 252 in 60 to 116 core-seconds."""
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
    """MuJoCo's ant, 64-64 tanh, 11-level output, 500 steps: hours; not run to its end by us."""
    env_name = "Ant-v5"
    hidden_sizes = [64, 64]
    hidden_activation = "tanh"
    output_activation = "discrete"
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
    """Pendulum with its velocity hidden, LSTM 16: -195, -219, -201 in 575, 212, 212 core-s."""
    env_name = "PartiallyObservablePendulum-v0"
    network = "lstm"
    hidden_sizes = [16]
    output_activation = "none"
    env_seed = -1
    num_episodes = 5
    eval_episodes = 50  # the returns vary widely, and these decide when to stop
    num_generations = 800
    stop_fitness = -180
    pop_size = 200
    lr = 0.1
    sigma = 0.2
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


@ex.config_hook
def check(config: Mapping[str, Any], command_name: str, logger: logging.Logger) -> dict:
    """Refuse a bad config before anything is started."""
    if command_name == "run":
        with in_one_line(ConfigError, ValueError, ServerError, AnotherHeadError):
            checked_config(config)
    return {}


@ex.main
def run(_run: "Run", _config: Mapping[str, Any], network_kwargs: Mapping[str, Any]) -> float:
    """Evolve a policy; the result is the mean return of the last one on fresh episodes."""
    del network_kwargs  # named above because Sacred adds keys only to what somebody asks for
    end_on_sigterm()
    expected = ServerError, RedisError, AnotherHeadError, WorkerFailure, EpisodeError
    with in_one_line(RunError, *expected):
        return evolve_policy(_run, _config)


def evolve_policy(run: "Run", config: Mapping[str, Any]) -> float:
    """Where a run's work is done, and what comes out."""
    settings, problem = checked_config(config)
    run.info.update({"head": who(), **problem.described()})
    with open_workplace(settings, problem.engine) as workplace, settings.noise_table() as noise:
        policy = problem.make_policy()
        strategy = make_strategy(config, policy, noise, settings.seeding())
        period, log_evaluations = settings.serialization_period, config["log_evaluations"]
        recorder = SacredRecorder(run, policy, period, log_evaluations)
        run_id = f"{run._id or 'unobserved'}-{secrets.token_hex(4)}"
        how = settings.min_task_runtime, settings.audit
        with workplace.evaluator(problem, noise, run_id, *how) as evaluator:
            final, digest = follow(run, config, strategy, evaluator, recorder)
    sys.stdout.write(f"{final.sentence()}\ntheta sha256 {digest}\n")
    return final.fitness


def follow(
    run: "Run",
    config: Mapping[str, Any],
    strategy: Strategy,
    evaluator: Evaluator,
    recorder: SacredRecorder,
) -> tuple[Final, str]:
    """The story of a run, from the first generation or the last checkpoint to the end."""
    settings, history = RunSettings.from_config(config), History()
    seeding = settings.seeding()
    parts: dict[str, Restorable] = {"strategy": strategy, "history": history, "recorder": recorder}
    with (
        RunKeeper(run, parts, every=settings.checkpoint_every) as keeper,
        recorder,
        Progress(settings.num_generations, "generation", history.next_generation) as progress,
    ):
        for generation in evolve(
            strategy,
            evaluator,
            generations=settings.num_generations,
            episodes=settings.num_episodes,
            eval_episodes=settings.eval_episodes,
            seeding=seeding,
            stop_fitness=settings.stop_fitness,
            history=history,
            overlap=settings.overlap,
        ):
            recorder.record(generation, strategy.theta)
            keeper.settle(history.next_generation)
            progress.advance(generation.shown())
            if config["render"] and recorder.is_due(generation.number):
                show_episode(problem_of(config), generation.theta, config["seed"], config["sleep"])
        final = assess(
            strategy.theta,
            evaluator,
            number=history.next_generation,
            episodes=settings.final_episodes,
            seeding=seeding,
            history=history,
        )
        return final, recorder.finish(final)


def make_strategy(
    config: Mapping[str, Any], policy: Policy, noise: NoiseTable, seeding: Seeding
) -> Strategy:
    """The algorithm as configured, at its first theta."""
    from es.openai_es import OpenAIES  # torch takes seconds: the workers start meanwhile

    if config["load_from"] is None:
        theta = policy.initial_theta(seeding.init())
    else:
        theta = policy.theta_from_state_dict(load_policy(config["load_from"]))
    return OpenAIES(
        theta,
        noise,
        pop_size=config["pop_size"],
        sigma=config["sigma"],
        optimizer=config["optimizer"],
        lr=config["lr"],
        l2coeff=config["l2coeff"],
        betas=(config["adam_beta1"], config["adam_beta2"]),
        eps=config["adam_epsilon"],
    )


if __name__ == "__main__":
    set_up_program()
    ex.run_commandline()
