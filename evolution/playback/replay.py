"""Playing with a policy what its run has played, or as many fresh episodes as one likes."""

from collections.abc import Iterable, Iterator

import numpy as np

from evolution.problem import Problem
from evolution.seeding import EVALUATION
from evolution.simulator import Simulator


def play_episodes(
    problem: Problem, theta: np.ndarray, seeds: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Play one episode for every seed, on the problem's engine, as workers do.

    Args:
        theta: float32[dim].
        seeds: int64[episodes].
    Returns:
        The returns as an evaluator gives them, float32[episodes], and the lengths in steps,
        int64[episodes].
    Raises:
        ProblemError: the versions of this process are not those of the problem.
        EpisodeError: a return is NaN or infinite.
    """
    ((returns, lengths),) = play_parts(problem, theta, [seeds])
    return returns, lengths


def play_candidate(problem: Problem, theta: np.ndarray, seeds: np.ndarray) -> float:
    """Have a theta play what a candidate has played; returns its fitness, as evaluators round it.

    See ``play_episodes``.
    """
    engine, policy, decode = problem.build()
    try:
        simulator = Simulator(engine, policy, decode, problem.max_steps)
        returns, _ = simulator.play(theta[None], np.zeros(len(seeds), np.int64), seeds)
        return float(np.float32(np.add.reduceat(returns, [0])[0] / len(seeds)))
    finally:
        engine.close()


def play_parts(
    problem: Problem, theta: np.ndarray, parts: Iterable[np.ndarray]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """As ``play_episodes`` for each part of the seeds: the same episodes, told as they come."""
    engine, policy, decode = problem.build()
    try:
        simulator = Simulator(engine, policy, decode, problem.max_steps)
        for seeds in parts:
            owners = np.zeros(len(seeds), np.int64)
            returns, lengths = simulator.play(theta[None], owners, seeds)
            yield returns.astype(np.float32), lengths
    finally:
        engine.close()


def fresh_seeds(seed: int, episodes: int) -> np.ndarray:
    """Environment seeds that no training uses: int64[episodes], decided by ``seed``."""
    return np.random.default_rng(seed).integers(*EVALUATION, episodes)
