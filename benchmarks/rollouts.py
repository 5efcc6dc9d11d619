"""Steps per second of whole evaluations on one core, against what their engine could do at best.

    python benchmarks/rollouts.py [--quick] [--json FILE]

| column | means |
|---|---|
| steps_per_second | environment steps, with all else in the time: candidates, resets, pools |
| of_limit | against the engine alone, playing the same actions by its documented interface |
| of_raw_limit | against EnvPool's C++ layer alone, the fastest way we know |
| times_baseline | against one evaluation at a time as distributed_es does it |
"""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass

import gymnasium as gym
import numpy as np
from common import Rounds, Row, machine, parser, show, take_turns, use_one_core, write_json
from peers import HOW, evotorch
from references import (
    Recorder,
    envpool_limit,
    envpool_raw_limit,
    gymnasium_limit,
    one_at_a_time,
)
from torch import nn

from env.envpool_engine import is_installed
from evolution.decoder import Decoder
from evolution.evaluation import Part, PieceRunner
from evolution.noise import NoiseTable
from evolution.population import Mirrored
from evolution.problem import choose_problem

MODULES = {"tanh": nn.Tanh, "relu": nn.ReLU}
SEED = 1
SIGMA = 0.1


@dataclass(frozen=True)
class Task:
    """An environment, a policy and how many candidates one call evaluates."""

    name: str
    env: str
    hidden_sizes: tuple[int, ...]
    activation: str
    pairs: int
    quick_pairs: int
    slow: int  # candidates that the slower contenders evaluate
    episodes: int = 1


TASKS = (
    Task("lander_mlp", "LunarLanderContinuous-v3", (64, 64), "tanh", 128, 64, 64),
    Task("lander_linear", "LunarLanderContinuous-v3", (), "tanh", 128, 64, 32),
    Task("pendulum", "Pendulum-v1", (64, 64), "relu", 50, 25, 2, episodes=5),
    Task("halfcheetah", "HalfCheetah-v5", (64, 64), "tanh", 32, 8, 3),
)
PEERS_ON = "lander_mlp"


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--rounds", type=int, help="how often all take turns")
    options.add_argument("--task", choices=[task.name for task in TASKS], help="only this one")
    options.add_argument("--peers", action="store_true", help="insist on EvoTorch")
    chosen = options.parse_args()
    peers = importlib.util.find_spec("evotorch") is not None
    if chosen.peers and not peers:
        options.error(HOW)
    use_one_core()
    print(machine())
    rows: list[Row] = []
    with NoiseTable(10_000_000, SEED) as noise:
        for task in TASKS:
            if chosen.task in (None, task.name):
                bench = Bench(task, noise, chosen.quick)
                contenders = bench.contenders(peers and task.name == PEERS_ON)
                found = take_turns(contenders, chosen.rounds or (3 if chosen.quick else 9))
                new = [row(task, engine, found) for engine in bench.engines]
                new += [peer_row(task, name, found) for name in contenders if "evotorch" in name]
                bench.close()
                show(f"{task.name}: {task.env}, {bench.about}", new)
                rows += new
    if not peers:
        print(HOW)
    write_json(chosen.json, rows)


def row(task: Task, engine: str, found: Rounds) -> Row:
    """What we reached on one engine."""
    ours = f"ours {engine}"
    line: Row = {
        "task": task.name,
        "engine": engine,
        "steps_per_second": round(found.rate(ours)),
        "limit": round(found.rate(f"limit {engine}")),
        "of_limit": round(found.ratio(ours, f"limit {engine}"), 3),
    }
    if f"raw limit {engine}" in found:
        line["of_raw_limit"] = round(found.ratio(ours, f"raw limit {engine}"), 3)
    line["times_baseline"] = round(found.ratio(ours, "baseline"), 2)
    for peer in ("evotorch VecGymNE", "evotorch GymNE"):
        if peer in found:
            line[f"times_{peer.split()[1]}"] = round(found.ratio(ours, peer), 2)
    return line


def peer_row(task: Task, name: str, found: Rounds) -> Row:
    """What another system reached."""
    rate, times = round(found.rate(name)), round(found.ratio(name, "baseline"), 2)
    return {"task": task.name, "engine": name, "steps_per_second": rate, "times_baseline": times}


class Bench:
    """The contenders of one task, with the work they do."""

    def __init__(self, task: Task, noise: NoiseTable, quick: bool) -> None:
        self._task, self._noise = task, noise
        self.engines = ["envpool", "gymnasium"] if is_installed() else ["gymnasium"]
        self._runners = {engine: self._runner(engine) for engine in self.engines}
        pairs = task.quick_pairs if quick else task.pairs
        policy = self._runners["gymnasium"].simulator.policy
        rng = np.random.default_rng(SEED)
        centre = policy.initial_theta(rng)
        indices = noise.sample(rng, pairs, policy.num_params)
        self._population = Mirrored(centre, SIGMA, indices)
        self._seeds = rng.integers(0, 2**30, (pairs, task.episodes))
        self.about = f"{2 * pairs} candidates × {task.episodes} episodes a call"

    def _runner(self, engine: str) -> PieceRunner:
        policy = {
            "hidden_sizes": list(self._task.hidden_sizes),
            "hidden_activation": self._task.activation,
            "output_activation": "none",
        }
        problem = choose_problem(env_name=self._task.env, engine=engine, policy_kwargs=policy)
        return PieceRunner(problem, self._noise)

    def contenders(self, peers: bool) -> dict[str, Callable[[], float]]:
        """Everyone who takes turns, by name."""
        task, found = self._task, dict[str, Callable[[], float]]()
        for engine in self.engines:
            record = self._recorded(engine)
            found[f"ours {engine}"] = self._ours(engine)
            if engine == "envpool":
                found["limit envpool"] = envpool_limit(task.env, record.batches)
                found["raw limit envpool"] = envpool_raw_limit(task.env, record.batches)
            else:
                found["limit gymnasium"] = gymnasium_limit(task.env, record.batches)
        thetas = self._population.thetas(range(task.slow), Decoder(self._noise))
        seeds = np.repeat(self._seeds, 2, axis=0)[: task.slow]
        found["baseline"] = one_at_a_time(
            task.env, task.hidden_sizes, MODULES[task.activation], thetas, seeds
        )
        if peers:
            found |= evotorch(task.env, task.hidden_sizes, thetas)
        return found

    def _ours(self, engine: str) -> Callable[[], float]:
        runner, parts = self._runners[engine], [Part(self._population, self._seeds)]
        return lambda: float(runner.evaluate(parts, range(len(self._seeds)))[1].sum())

    def _recorded(self, engine: str) -> Recorder:
        """Play once, noting every action; this also warms everything up."""
        simulator = self._runners[engine].simulator
        plain, recorder = simulator.engine, Recorder(simulator.engine)
        simulator.engine = recorder
        steps = self._ours(engine)()
        simulator.engine = plain
        assert steps == sum(batch.count for batch in recorder.batches)
        return recorder

    def close(self) -> None:
        """Let go of the environments."""
        for runner in self._runners.values():
            runner.close()


if __name__ == "__main__":
    gym.logger.min_level = gym.logger.ERROR  # EvoTorch uses functions that Gymnasium renamed
    main()
