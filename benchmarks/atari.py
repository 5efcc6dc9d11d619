"""Frames of an Atari game per second on one core, with the network that chooses the actions.

    python benchmarks/atari.py [--quick] [--game ID] [--network NAME] [--json FILE]

A step is 4 frames. One row per number of episodes that each candidate plays:

| column | means |
|---|---|
| frames_per_second | of whole evaluations, with all else in the time: candidates, resets |
| of_limit | against our engine alone, stepping random actions |
| of_vector_env | against ale-py's `AtariVectorEnv` alone, likewise, its resets not counted |
| of_emulator | against the emulator alone: frames that nobody looks at |
| times_baseline | against one evaluation at a time, environment and torch module made for each |
"""

from collections.abc import Callable

import ale_py
import numpy as np
import torch
from common import Rounds, Row, machine, parser, show, take_turns, use_one_core, write_json

from env import make
from env.atari import game_of
from env.console import SKIP, Console
from env.engines import VectorEngine
from evolution.evaluation import Part, PieceRunner
from evolution.noise import NoiseTable
from evolution.population import Lineages
from evolution.problem import Problem, choose_problem
from ga.config import tensor_shapes
from policy.base import Policy

SEED, SIGMA = 1, 0.002
EPISODES = 16  # in all; of one candidate, or of as many
LANES = 16  # of the vector environment


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--rounds", type=int, help="how often all take turns")
    options.add_argument("--game", default="ALE/Frostbite-v5")
    options.add_argument("--network", default="nature", help="for grey pictures")
    chosen = options.parse_args()
    use_one_core()
    print(machine())
    steps = 40 if chosen.quick else 200
    problem = choose_problem(env_name=chosen.game, network=chosen.network, max_steps=steps)
    with NoiseTable(10_000_000, SEED) as noise:
        runner = PieceRunner(problem, noise)
        contenders = {
            "1 episode": evaluation(runner, noise, 1),
            "16 episodes": evaluation(runner, noise, EPISODES),
            "limit": engine_alone(runner.simulator.engine, steps),
            "vector env": vector_env_alone(problem, steps),
            "emulator": emulator_alone(problem, steps),
            "baseline": one_at_a_time(problem, runner.simulator.policy, steps),
        }
        for work in contenders.values():  # warms everything up
            work()
        found = take_turns(contenders, chosen.rounds or (3 if chosen.quick else 9))
        runner.close()
    rows = [row(name, found) for name in ("1 episode", "16 episodes")]
    alone = ("limit", "vector env", "emulator", "baseline")
    rows += [
        {"per candidate": name, "frames_per_second": round(found.rate(name))} for name in alone
    ]
    show(f"{problem.env}, {problem.network}, at most {steps} steps an episode", rows)
    write_json(chosen.json, rows)


def row(name: str, found: Rounds) -> Row:
    """What evaluations reached."""
    return {
        "per candidate": name,
        "frames_per_second": round(found.rate(name)),
        "of_limit": round(found.ratio(name, "limit"), 3),
        "of_vector_env": round(found.ratio(name, "vector env"), 3),
        "of_emulator": round(found.ratio(name, "emulator"), 3),
        "times_baseline": round(found.ratio(name, "baseline"), 2),
    }


def evaluation(runner: PieceRunner, noise: NoiseTable, episodes: int) -> Callable[[], float]:
    """Children of one parent, as a worker evaluates them; returns frames."""
    candidates = EPISODES // episodes
    rng = np.random.default_rng(SEED)
    policy = runner.simulator.policy
    population = Lineages(
        shapes=tensor_shapes(policy),
        sigma=SIGMA,
        parents=noise.sample(rng, 2, policy.num_params),
        lengths=np.array([2]),
        parent_of=np.zeros(candidates, np.int64),
        mutations=noise.sample(rng, candidates, policy.num_params),
    )
    parts = [Part(population, rng.integers(0, 2**30, (candidates, episodes)))]
    return lambda: float(SKIP * runner.evaluate(parts, range(candidates))[1].sum())


def engine_alone(engine: VectorEngine, steps: int) -> Callable[[], float]:
    """Our engine, a few lanes at a time as in an evaluation, each with random actions."""
    rng = np.random.default_rng(SEED)
    lanes_of = np.split(np.arange(EPISODES), EPISODES // engine.best_lanes)
    actions = rng.integers(0, 6, (steps, engine.best_lanes))

    def play() -> float:
        engine.reset(np.arange(EPISODES))
        frames = 0
        for lanes in lanes_of:
            running = lanes
            for now in actions:
                frames += SKIP * len(running)
                _, _, done = engine.step(now[: len(running)], running)
                running = running[~done] if done.any() else running
                if not len(running):
                    break
        return frames

    return play


def vector_env_alone(problem: Problem, steps: int) -> Callable[[], float]:
    """ale-py's own, one thread; what has ended begins anew by itself."""
    envs = ale_py.AtariVectorEnv(game_of(problem.env), LANES, num_threads=1, reward_clipping=False)
    envs.reset(seed=np.arange(LANES))
    actions = np.random.default_rng(SEED).integers(0, 6, (steps, LANES))

    def play() -> float:
        for now in actions:
            envs.step(now)
        return float(SKIP * actions.size)

    return play


def emulator_alone(problem: Problem, steps: int) -> Callable[[], float]:
    """Frames and nothing else."""
    console = Console(game_of(problem.env), "grey")
    start = console.starts()[0]
    actions = np.random.default_rng(SEED).integers(0, 6, EPISODES * steps)
    held = [console.actions[action] for action in actions]

    def play() -> float:
        console.begin(start)
        act = console.ale.act
        for action in held:
            act(action), act(action), act(action), act(action)
            if console.ale.game_over():
                console.begin(start)
        return float(SKIP * len(held))

    return play


def one_at_a_time(problem: Problem, policy: Policy, steps: int) -> Callable[[], float]:
    """Environment and torch module are made for each evaluation; one observation at a time."""
    theta = policy.initial_theta(np.random.default_rng(SEED))

    def play() -> float:
        env = make(problem.env)
        module = policy.module()
        module.load_state_dict(policy.state_dict(theta))
        seen, _ = env.reset(seed=SEED)
        number, over, cut = 0, False, False
        while number < steps and not (over or cut):
            with torch.no_grad():
                outputs = module(torch.from_numpy(seen))
            seen, _, over, cut, _ = env.step(int(outputs.argmax()))
            number += 1
        env.close()
        return float(SKIP * number)

    return play


if __name__ == "__main__":
    main()
