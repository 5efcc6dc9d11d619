"""An episode's return does not depend on who else is played, how many and in which order."""

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import env
from env.actions import decoder
from env.engines import make_engine
from evolution import simulator as simulator_module
from evolution.evaluation import LocalEvaluator, Part
from evolution.noise import NoiseTable
from evolution.population import Dense, Mirrored, Repeated
from evolution.problem import choose_problem
from evolution.simulator import EpisodeError, Simulator
from policy.registry import make_policy

STATM = Path("/proc/self/statm")
CASES = [
    ("CartPole-v1", "feedforward", [], "none", None),
    ("CartPole-v1", "elman", [5], "none", 23),
    ("LunarLanderContinuous-v3", "feedforward", [4], "gaussian", 40),
    ("Pendulum-v1", "lstm", [3], "none", 15),
]


def make_simulator(
    env_id: str, network: str, hidden: list[int], output: str, max_steps: int | None
) -> Simulator:
    engine = make_engine("gymnasium", env_id)
    spaces = engine.observation_space, engine.action_space
    policy = make_policy(network, *spaces, hidden_sizes=hidden, output_activation=output)
    return Simulator(engine, policy, decoder(engine.action_space, "clip"), max_steps)


def play_plainly(simulator: Simulator, env_id: str, theta: np.ndarray, seed: int) -> tuple:
    """Return and length of one episode, by the loop that everybody knows."""
    world, policy, lanes = env.make(env_id), simulator.policy, np.zeros(1, np.int64)
    policy.load(theta[None])
    policy.reset(lanes, np.array([seed]))
    observation, _ = world.reset(seed=seed)
    earned, steps, over = 0.0, 0, False
    while not over:
        outputs = policy.act(observation[None].astype(np.float32), lanes)
        action = decoder(world.action_space, "clip")(outputs)[0]
        observation, reward, terminated, truncated, _ = world.step(action)
        earned, steps = earned + float(reward), steps + 1
        over = terminated or truncated or steps == simulator._max_steps
    return earned, steps


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{case[1]}")
def test_returns_are_the_same_bits_however_they_are_batched(
    case: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulator = make_simulator(*case)
    rng = np.random.default_rng(8)
    thetas = rng.normal(0, 0.7, (9, simulator.policy.num_params)).astype(np.float32)
    owners = np.concatenate([rng.permutation(9), rng.integers(0, 9, 11)])
    seeds = rng.integers(0, 2**31, 20)
    pairs = zip(owners, seeds, strict=True)
    plain = [play_plainly(simulator, case[0], thetas[owner], int(seed)) for owner, seed in pairs]
    returns, lengths = (np.array(column) for column in zip(*plain, strict=True))
    assert len(set(lengths.tolist())) > 5 or case[-1] == lengths.max()

    def check(order: np.ndarray) -> None:
        played, steps = simulator.play(thetas, owners[order], seeds[order])
        assert np.array_equal(played, returns[order])
        assert np.array_equal(steps, lengths[order])

    check(np.arange(20))
    for lanes, batch in itertools.product((1, 3, 64), (1, 7, 64)):
        monkeypatch.setattr(simulator.engine, "best_lanes", lanes)
        theta_bytes = 4 * simulator.policy.num_params
        monkeypatch.setattr(simulator_module, "MAX_THETA_BYTES", batch * theta_bytes)
        assert simulator.batch == batch
        check(rng.permutation(20))
        check(rng.integers(0, 20, 5))


def test_a_policy_larger_than_the_limit_is_played_one_by_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    simulator = make_simulator(*CASES[0])
    monkeypatch.setattr(simulator_module, "MAX_THETA_BYTES", 3)
    assert simulator.batch == 1


class Counting(gym.Env):
    """Never ends by itself; counts what is done to it."""

    observation_space = gym.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    resets = 0
    steps = 0

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple:
        Counting.resets += 1
        return np.zeros(2, np.float32), {}

    def step(self, action: np.ndarray) -> tuple:
        Counting.steps += 1
        return np.zeros(2, np.float32), 0.5, False, False, {}


class Start(gym.Env):
    """Pays what the random start is worth, then lasts the longer the larger the action is.

    Every step draws a random number, as many tasks do.
    """

    observation_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple:
        super().reset(seed=seed)
        self.worth = self.np_random.random()
        return np.ones(1, np.float32), {}

    def step(self, action: np.ndarray) -> tuple:
        reward, self.worth = self.worth, 0.0
        over = self.np_random.random() > 0.5 + 0.45 * float(action[0])
        return np.ones(1, np.float32), reward, over, False, {}


class Broken(gym.Env):
    """Its reward is no number if the action is negative."""

    observation_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    value = float("nan")

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple:
        return np.ones(1, np.float32), {}

    def step(self, action: np.ndarray) -> tuple:
        return np.ones(1, np.float32), self.value if action[0] < 0 else 1.0, True, False, {}


@pytest.fixture
def local(noise: NoiseTable) -> Iterator[Callable[..., LocalEvaluator]]:
    """Make a local evaluator of a linear policy on one of the environments above."""
    made = []

    def make(world: type[gym.Env], **kwargs: Any) -> LocalEvaluator:
        gym.register(f"{world.__name__}-v0", entry_point=lambda **_: world())
        problem = choose_problem(
            env_name=f"{world.__name__}-v0", policy_kwargs={"hidden_sizes": []}, **kwargs
        )
        made.append(f"{world.__name__}-v0")
        return LocalEvaluator(problem, noise)

    yield make
    for name in made:
        gym.registry.pop(name, None)


@pytest.mark.parametrize(("limit", "episodes"), [(1, 1), (7, 3), (100, 2)])
def test_a017_exactly_so_many_steps_and_resets(
    limit: int, episodes: int, local: Callable[..., LocalEvaluator]
) -> None:
    Counting.resets = Counting.steps = 0
    with local(Counting, max_steps=limit) as evaluator:
        Counting.resets = 0
        seeds = np.arange(5 * episodes).reshape(5, episodes)
        population = Dense(np.ones((5, 3), np.float32))
        (evaluations,) = evaluator.evaluate([Part(population, seeds)])
    assert Counting.resets == 5 * episodes
    assert Counting.steps == 5 * episodes * limit
    assert evaluations.steps.tolist() == [episodes * limit] * 5
    assert evaluations.fitness.tolist() == [0.5 * limit] * 5
    assert evaluations.episodes == episodes


def test_a012_each_episode_of_a_pair_starts_alike(local: Callable[..., LocalEvaluator]) -> None:
    """Also when earlier episodes differ in length, and so in the numbers they draw."""
    seeds = np.random.default_rng(3).integers(0, 2**31, (6, 4))
    population = Mirrored(np.zeros(2, np.float32), 1.0, np.arange(6) * 10)

    world = Start()
    worths = np.empty(seeds.shape)
    for place, seed in np.ndenumerate(seeds):
        world.reset(seed=int(seed))
        worths[place] = world.worth
    with local(Start) as evaluator:
        (evaluations,) = evaluator.evaluate([Part(population, seeds)])
    plus, minus = evaluations.fitness.reshape(-1, 2).T
    assert np.array_equal(plus, minus)
    np.testing.assert_allclose(plus, worths.mean(axis=1), rtol=1e-6)
    plus_steps, minus_steps = evaluations.steps.reshape(-1, 2).T
    assert (plus_steps != minus_steps).all()


def test_a011_neighbours_of_a_group_meet_the_same_seeds(
    local: Callable[..., LocalEvaluator], monkeypatch: pytest.MonkeyPatch
) -> None:
    with local(Start) as evaluator:
        simulator = evaluator._runner.simulator
        seen: list[np.ndarray] = []
        plain = simulator.engine.reset

        def recording(seeds: np.ndarray) -> np.ndarray:
            seen.append(seeds)
            return plain(seeds)

        monkeypatch.setattr(simulator.engine, "reset", recording)
        mirrored = Mirrored(np.zeros(2, np.float32), 1.0, np.array([1, 2]))
        parts = [
            Part(mirrored, np.array([[11, 12], [21, 22]])),
            Part(Repeated(np.ones(2, np.float32), 2), np.array([[31], [32]])),
        ]
        evaluator.evaluate(parts)
    assert np.concatenate(seen).tolist() == [11, 12, 11, 12, 21, 22, 21, 22, 31, 32]


@pytest.mark.parametrize("batch", [1, 2, 7, 10_000])
def test_a_task_is_cut_into_lots_that_fit_and_change_nothing(
    batch: int, noise: NoiseTable, make_task: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = choose_problem(
        env_name="CartPole-v1", engine="gymnasium", policy_kwargs={"hidden_sizes": []}
    )
    dim = problem.make_policy().num_params
    parts = make_task(dim, 0, noise)
    with LocalEvaluator(problem, noise) as evaluator:
        expected = evaluator.evaluate(parts)
        simulator, written = evaluator._runner.simulator, list[int]()
        play = simulator.play

        def recording(thetas: np.ndarray, owners: np.ndarray, seeds: np.ndarray) -> tuple:
            written.append(len(thetas))
            return play(thetas, owners, seeds)

        monkeypatch.setattr(simulator, "play", recording)
        monkeypatch.setattr(simulator_module, "MAX_THETA_BYTES", batch * 4 * dim)
        for one, other in zip(evaluator.evaluate(parts), expected, strict=True):
            assert one.fitness.tobytes() == other.fitness.tobytes()
            assert np.array_equal(one.steps, other.steps)
    assert max(written) <= max(batch, 2)  # a pair stays together
    assert sum(written) == sum(len(part.population) for part in parts)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_return_that_is_no_number_is_an_error(
    value: float, local: Callable[..., LocalEvaluator], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Broken, "value", value)
    thetas = np.array([[1, 0], [1, 1], [-1, 0], [2, 0]], np.float32)
    with local(Broken) as evaluator:
        fine = Part(Dense(thetas[[0, 1, 3]]), np.array([[5], [6], [8]]))
        assert evaluator.evaluate([fine])[0].fitness.tolist() == [1.0] * 3
        broken = Part(Dense(thetas), np.array([[5], [6], [7], [8]]))
        with pytest.raises(EpisodeError, match=f"the episode of seed 7 returned {value}"):
            evaluator.evaluate([broken])
        assert evaluator.evaluate([fine])[0].fitness.tolist() == [1.0] * 3


@pytest.mark.skipif(not STATM.exists(), reason="reads /proc/self/statm, which is Linux's")
@pytest.mark.parametrize(
    ("env_id", "network", "hidden"),
    [("Sphere-v0", "feedforward", []), ("CartPole-v1", "lstm", [4])],
)
def test_a068_memory_of_an_evaluator_is_flat_over_10000_short_episodes(
    env_id: str, network: str, hidden: list[int], noise: NoiseTable
) -> None:
    """What the engines do alone is in test_env_reuse."""
    problem = choose_problem(
        env_name=env_id,
        engine="gymnasium",
        network=network,
        policy_kwargs={"hidden_sizes": hidden},
        max_steps=2,
    )
    dim = problem.make_policy().num_params
    rng = np.random.default_rng(0)
    with LocalEvaluator(problem, noise) as evaluator:

        def episodes(count: int) -> None:
            for _ in range(count // 200):
                population = Mirrored(np.zeros(dim, np.float32), 0.1, noise.sample(rng, 50, dim))
                evaluator.evaluate([Part(population, rng.integers(0, 2**31, (50, 2)))])

        episodes(2000)
        before = int(STATM.read_text().split()[1])
        episodes(10_000)
        grown = int(STATM.read_text().split()[1]) - before
    assert grown * os.sysconf("SC_PAGE_SIZE") < 4e6
