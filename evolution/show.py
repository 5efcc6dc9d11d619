"""A window in which a policy plays an episode."""

import time

import numpy as np

from env.actions import decoder
from env.engines import make_engine
from evolution.problem import Problem
from policy.registry import make_policy


def show_episode(problem: Problem, theta: np.ndarray, seed: int, sleep: float) -> float:
    """Play one episode in a window, in Gymnasium; returns its return.

    Args:
        theta: float32[dim].
        sleep: seconds between two steps.
    """
    engine = make_engine("gymnasium", problem.env, {"render_mode": "human"})
    try:
        spaces = engine.observation_space, engine.action_space
        policy = make_policy(problem.network, *spaces, **problem.policy_kwargs)
        decode = decoder(engine.action_space, problem.action_scaling)
        lanes, seeds = np.zeros(1, np.int64), np.array([seed])
        policy.load(theta[None])
        policy.reset(lanes, seeds)
        observations, earned, steps, over = engine.reset(seeds), 0.0, 0, False
        while not over:
            actions = decode(policy.act(observations, lanes))
            observations, rewards, done = engine.step(actions, lanes)
            earned, steps = earned + float(rewards[0]), steps + 1
            over = bool(done[0]) or steps == problem.max_steps
            time.sleep(sleep)
        return earned
    finally:
        engine.close()
