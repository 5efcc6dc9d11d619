"""Config keys that all experiments share; each experiment takes those it needs.

Sacred reads a config from a function's local variables, and its documentation from their comments.
"""


def task():
    env_name = "LunarLanderContinuous-v3"  # any Gymnasium id, or package.module:Id-v0
    env_kwargs = {}  # further arguments of the environment
    engine = "auto"  # auto, envpool (fast), gymnasium (any environment), atari (games)
    num_episodes = 1  # played by each candidate; their mean return is its fitness
    max_ep_length = None  # steps after which an episode is cut off; None: the environment's own
    env_seed = -1  # -1: fresh episodes for every pair; None: one set per generation; or a number
    action_scaling = "clip"  # clip: to the bounds; tanh: squash into them; none: as they come


def network():
    network = "feedforward"  # or elman, lstm; nature, ibm, cshenton (pictures); package.module:Name
    network_kwargs = {}  # further arguments, for a module of your own
    hidden_sizes = [64, 64]  # neurons per hidden layer; [] for none
    hidden_activation = "tanh"  # none, tanh, relu, lrelu, elu, discrete
    output_activation = "discrete"  # those, gaussian or gaussian_fixed
    render = False  # show an episode in a window whenever a policy is saved; needs a display
    sleep = 0.01  # seconds between two steps shown
    force_cpu = False  # keep a torch module of your own on the CPU although there is CUDA


def records():
    author = "unknown"
    eval_episodes = 10  # played by theta itself each generation: "current fitness"
    final_episodes = 100  # likewise by the last theta
    num_serializations = 10  # policies saved on the way, beside the first, the best and the last
    checkpoint_every = 30.0  # seconds; what a killed run has to do again when it is resumed
    log_evaluations = False  # True: results.csv, a line of 65 bytes and 10 microseconds for each


def workers():
    evaluator = "redis"  # redis: worker processes; local: this process alone; ray: Ray's actors
    redis = None  # URL of a server; None: EVO_REDIS, else run-server's, else one of our own
    local = True  # False: never start a server and workers here
    ray_address = None  # of a Ray cluster: auto, host:port, ray://host:port; None: one of our own
    num_workers = None  # to start here; None: one per core, or per free CPU of a Ray cluster
    min_task_runtime = 0.05  # seconds of work that a worker takes at a time, at least
    overlap = 0  # generations that are asked ahead, so that workers need not wait for the slowest
    audit = 0.0  # share of the work that two workers do and that is compared bit for bit
    group = "default"  # of workers: several runs share a server, each with a group of its own


def end():
    num_generations = 1000
    stop_fitness = None  # stop when "current fitness", averaged over 10 generations, reaches it
    n_tsteps = None  # stop after the generation in which the environment steps reach it, in all
    max_hours = None  # stop after the generation in which the hours at work reach it


def noise():
    noise_size = 10_000_000  # floats in the table of noise, 4 bytes each, one table per machine
    noise_seed = 123


SHARED = (task, network, records, workers, end, noise)
