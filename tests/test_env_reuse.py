"""An engine that has played for long plays like a new one, and takes no more memory."""

import os
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from test_env_engines import play

from env.engines import make_engine

STATM = Path("/proc/self/statm")


@pytest.mark.parametrize(
    ("env_id", "steps"),
    [
        ("LunarLanderContinuous-v3", 200),
        ("CartPole-v1", 100),
        ("PartiallyObservablePendulum-v0", 60),
        ("BipedalWalker-v3", 200),
        ("HalfCheetah-v5", 40),
    ],
)
@pytest.mark.parametrize("name", ["gymnasium", "envpool"])
def test_a068_reuse_equals_fresh(name: str, env_id: str, steps: int) -> None:
    seeds = np.arange(6)
    fresh: dict = {}
    for seed in seeds:
        new = make_engine(name, env_id)
        fresh |= play(new, seeds[seed : seed + 1], steps=steps)
        new.close()
    used = make_engine(name, env_id)
    for order in (seeds[::-1], seeds[[3, 1, 4]], np.roll(seeds, 2)):
        played = play(used, order, steps=steps)
        assert played == {seed: fresh[seed] for seed in played}
    used.close()


def test_a068_environment_may_ask_not_to_be_reused() -> None:
    class Worn(gym.Env):
        """Observes how often it was reset."""

        metadata = {"reusable": False}  # noqa: RUF012
        observation_space = gym.spaces.Box(0, 9, (1,), np.float32)
        action_space = gym.spaces.Discrete(2)
        resets = 0

        def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple:
            self.resets += 1
            return np.full(1, self.resets, np.float32), {}

    gym.register("Worn-v0", entry_point=Worn)
    engine = make_engine("gymnasium", "Worn-v0")
    assert [engine.reset(np.arange(2)).ravel().tolist() for _ in range(3)] == [[1, 1]] * 3
    del gym.registry["Worn-v0"]


@pytest.mark.skipif(not STATM.exists(), reason="reads /proc/self/statm, which is Linux's")
@pytest.mark.parametrize(
    ("name", "env_id"),
    [("gymnasium", "CartPole-v1"), ("envpool", "CartPole-v1"), ("batched", "Sphere-v0")],
)
def test_a068_memory_is_flat_over_10000_short_episodes(name: str, env_id: str) -> None:
    engine = make_engine(name, env_id)
    lanes = 50
    count = 0

    def episodes(number: int) -> None:
        nonlocal count
        for _ in range(number // lanes):
            engine.reset(np.arange(count, count + lanes))
            count += lanes
            running = np.arange(lanes)
            while running.size:
                shape = (running.size, *(engine.action_space.shape or ()))
                _, _, done = engine.step(np.zeros(shape, np.int64), running)
                running = running[~done]

    episodes(2_000)  # first uses allocate
    before = _resident_megabytes()
    episodes(10_000)
    assert _resident_megabytes() - before < 4
    engine.close()


def _resident_megabytes() -> float:
    return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
