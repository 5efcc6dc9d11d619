"""What a rollout is measured against: engines alone, and one evaluation at a time.

The engines play recorded actions, so that they simulate the very same steps as the run that was
recorded.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import nn

from env.engines import VectorEngine


@dataclass
class Batch:
    """One reset of an engine and the steps that followed."""

    seeds: list[int]
    steps: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)  # actions, lanes

    @property
    def count(self) -> int:
        """Environment steps."""
        return sum(len(lanes) for _, lanes in self.steps)


class Recorder:
    """An engine that notes what it is asked to do."""

    def __init__(self, engine: VectorEngine) -> None:
        self._engine = engine
        self.batches: list[Batch] = []
        self.earned = 0.0

    def __getattr__(self, name: str) -> object:
        return getattr(self._engine, name)

    def reset(self, seeds: np.ndarray) -> np.ndarray:
        """Begin a batch."""
        self.batches.append(Batch([int(seed) for seed in seeds]))
        return self._engine.reset(seeds)

    def step(
        self, actions: np.ndarray, lanes: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Step and take a copy of what was asked."""
        self.batches[-1].steps.append((actions.copy(), lanes.copy()))
        answer = self._engine.step(actions, lanes)
        self.earned += float(answer[1].sum())
        return answer


def envpool_limit(task: str, batches: Sequence[Batch]) -> Callable[[], float]:
    """EnvPool alone, as its documentation says: make, reset, `step(actions, env_id)`.

    Returns:
        A function that plays all batches and returns the number of steps.
    """
    prepared = _prepared(task, batches)

    def play() -> float:
        for batch in prepared:
            pool = _pool(task, batch.seeds)
            pool.reset()
            for actions, lanes in batch.steps:
                pool.step(actions, lanes)
            pool.close()
        return sum(batch.count for batch in prepared)

    return play


def envpool_raw_limit(task: str, batches: Sequence[Batch]) -> Callable[[], float]:
    """EnvPool's C++ layer alone, without the dictionaries of its Python layer."""
    prepared = _prepared(task, batches)

    def play() -> float:
        for batch in prepared:
            pool = _pool(task, batch.seeds)
            pool.reset()
            send, receive = pool._send, pool._recv
            for actions, lanes in batch.steps:
                send([lanes, lanes, actions])
                receive()
            pool.close()
        return sum(batch.count for batch in prepared)

    return play


def _pool(task: str, seeds: list[int]) -> Any:
    import envpool

    return envpool.make_gymnasium(task, num_envs=len(seeds), seed=seeds, num_threads=1)


def _prepared(task: str, batches: Sequence[Batch]) -> list[Batch]:
    """The batches with the types that EnvPool wants, so that it converts nothing."""
    pool = _pool(task, [0])
    dtype = pool.spec.action_array_spec["action"].dtype
    pool.close()
    return [
        Batch(
            b.seeds, [(a.astype(dtype, order="C"), lanes.astype(np.int32)) for a, lanes in b.steps]
        )
        for b in batches
    ]


def gymnasium_limit(env_id: str, batches: Sequence[Batch]) -> Callable[[], float]:
    """Gymnasium alone: one environment, made once; per episode a reset and a plain loop of steps.

    Returns:
        A function that plays all episodes and returns the number of steps.
    """
    env = gym.make(env_id, disable_env_checker=True)
    episodes = [
        (batch.seeds[lane], actions) for batch in batches for lane, actions in by_lane(batch)
    ]

    def play() -> float:
        for seed, actions in episodes:
            env.reset(seed=seed)
            for action in actions:
                env.step(action)
        return sum(len(actions) for _, actions in episodes)

    return play


def by_lane(batch: Batch) -> list[tuple[int, list[np.ndarray]]]:
    """Each lane with its actions in order."""
    actions_of: dict[int, list[np.ndarray]] = {lane: [] for lane in range(len(batch.seeds))}
    for actions, lanes in batch.steps:
        for action, lane in zip(actions, lanes.tolist(), strict=True):
            actions_of[lane].append(action)
    return list(actions_of.items())


def one_at_a_time(
    env_id: str,
    hidden_sizes: Sequence[int],
    activation: Callable[[], nn.Module],
    thetas: np.ndarray,
    seeds: np.ndarray,
) -> Callable[[], float]:
    """The way of GoodAI's distributed_es: environment and policy are built for each evaluation.

    A torch module computes every step; one environment runs at a time.

    Args:
        thetas: float32[candidates, dim].
        seeds: int64[candidates, episodes].
    Returns:
        A function that evaluates all candidates and returns the number of steps.
    """

    def evaluate(theta: np.ndarray, seeds: list[int]) -> int:
        env = gym.make(env_id, disable_env_checker=True)
        policy = network(env, hidden_sizes, activation)
        nn.utils.vector_to_parameters(torch.from_numpy(theta), policy.parameters())
        steps = 0
        for seed in seeds:
            observation, _ = env.reset(seed=seed)
            done = False
            while not done:
                with torch.no_grad():
                    output = policy(torch.from_numpy(observation).float().unsqueeze(0))
                action = output.squeeze(0).numpy()
                observation, _, terminated, truncated, _ = env.step(action)
                done = terminated or truncated
                steps += 1
        env.close()
        return steps

    def play() -> float:
        rows = zip(thetas, seeds.tolist(), strict=True)
        return sum(evaluate(theta, episodes) for theta, episodes in rows)

    return play


def network(
    env: gym.Env, hidden_sizes: Sequence[int], activation: Callable[[], nn.Module]
) -> nn.Sequential:
    """A plain multi-layer network; its parameters are in the order of our theta."""
    layers: list[nn.Module] = []
    width = int(np.prod(env.observation_space.shape))
    for size in hidden_sizes:
        layers += [nn.Linear(width, size), activation()]
        width = size
    layers.append(nn.Linear(width, int(np.prod(env.action_space.shape))))
    return nn.Sequential(*layers)
