"""Candidates × episodes, played side by side in one process."""

from collections.abc import Callable

import numpy as np

from env.engines import VectorEngine
from policy.base import Policy
from utils.threads import one_blas_thread

# A batch's parameters stay below this, whatever the policy's size.
MAX_THETA_BYTES = 1 << 28


class EpisodeError(RuntimeError):
    """An episode whose return is not a number."""


class Simulator:
    """A policy and an engine, kept for a whole run; plays any number of episodes in batches.

    A lane that ends its episode takes the next one of the batch, so that the engine always has
    its hands full. The result of an episode does not depend on the others.
    """

    def __init__(
        self,
        engine: VectorEngine,
        policy: Policy,
        decode: Callable[[np.ndarray], np.ndarray],
        max_steps: int | None = None,
    ) -> None:
        self.engine, self.policy = engine, policy
        self._decode, self._max_steps = decode, max_steps

    @property
    def batch(self) -> int:
        """Episodes that one batch can hold; fewer at a time make poor use of the engine."""
        fitting = MAX_THETA_BYTES // (4 * max(1, self.policy.num_params))
        return int(np.clip(fitting, 1, self.engine.max_lanes))

    def play(
        self, thetas: np.ndarray, owners: np.ndarray, seeds: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """One episode for every seed.

        Args:
            thetas: float32[candidates, dim].
            owners: int64[episodes], the row of ``thetas`` that plays each episode.
            seeds: int64[episodes], of the environments.
        Returns:
            The undiscounted returns, float64[episodes], and the lengths in steps,
            int64[episodes].
        Raises:
            EpisodeError: a return is NaN or infinite.
        """
        total = len(seeds)
        returns, lengths = np.empty(total), np.empty(total, np.int64)
        batches = -(-total // self.batch)
        for number in range(batches):
            part = slice(number * total // batches, (number + 1) * total // batches)
            needed, owners_of_part = np.unique(owners[part], return_inverse=True)
            # New memory for large thetas costs more than to fill it.
            played = thetas if len(needed) == len(thetas) else thetas[needed]
            with one_blas_thread():
                returns[part], lengths[part] = self._play_batch(played, owners_of_part, seeds[part])
        if not np.isfinite(returns).all():
            bad = int(np.flatnonzero(~np.isfinite(returns))[0])
            raise EpisodeError(f"the episode of seed {seeds[bad]} returned {returns[bad]}")
        return returns, lengths

    def _play_batch(
        self, thetas: np.ndarray, owners: np.ndarray, seeds: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        engine, act, decode = self.engine, self.policy.act, self._decode
        total = len(seeds)
        self.policy.load(thetas, owners)
        first = engine.reset(seeds)
        self.policy.reset(np.arange(total), seeds)
        slots = _slots(total, engine.best_lanes, -(-total // len(thetas)))
        table = _Lanes(total, slots, self._max_steps)
        lanes = table.lanes
        observations = first[lanes]
        while len(lanes):
            observations, rewards, done = engine.step(decode(act(observations, lanes)), lanes)
            if table.count(rewards, done):
                observations = table.turn_over(observations, done, first)
                lanes = table.lanes
        return table.returns, table.lengths


def _slots(total: int, best: int, together: int) -> int:
    """How many lanes step at a time: about ``best``, and such that episodes of equal length fit.

    Of these no few are left for the end then, and the ``together`` episodes of a candidate stay
    neighbours, which saves a policy memory traffic.
    """
    even = -(-total // max(1, round(total / best)))
    return min(total, -(-even // together) * together)


class _Lanes:
    """Who is playing: ``lanes[slot]`` is an episode of the batch, ``len(lanes)`` are running."""

    def __init__(self, total: int, slots: int, max_steps: int | None) -> None:
        self.lanes = np.arange(slots)
        self.returns, self.lengths = np.zeros(total), np.zeros(total, np.int64)
        self._earned = np.zeros(slots)
        self._started = np.zeros(slots, np.int64)
        self._waiting, self._step = slots, 0
        self._max_steps = max_steps
        self._deadline = max_steps

    def count(self, rewards: np.ndarray, done: np.ndarray) -> bool:
        """Add up one step; true if an episode has ended."""
        self._step += 1
        self._earned += rewards
        return bool(np.count_nonzero(done)) or self._step == self._deadline

    def turn_over(
        self, observations: np.ndarray, done: np.ndarray, first: np.ndarray
    ) -> np.ndarray:
        """Close the ended episodes; waiting ones take their slots, else the last slot moves in.

        Args:
            observations: float32[slots, ...], of the running lanes.
            done: bool[slots].
            first: float32[episodes, ...], where each episode begins.
        Returns:
            The observations that belong to the new ``lanes``.
        """
        if self._max_steps is not None:
            done = done | (self._step - self._started >= self._max_steps)
        lanes, observations = self.lanes.copy(), observations.copy()
        running = len(lanes)
        # From the back, so that the last slot is never one that has ended. One or two end in most
        # calls: a loop is faster than arrays of indices.
        for slot in reversed(done.nonzero()[0].tolist()):
            episode = lanes[slot]
            self.returns[episode] = self._earned[slot]
            self.lengths[episode] = self._step - self._started[slot]
            if self._waiting < len(first):
                lanes[slot], observations[slot] = self._waiting, first[self._waiting]
                self._earned[slot], self._started[slot] = 0.0, self._step
                self._waiting += 1
            else:
                running -= 1
                for array in (lanes, observations, self._earned, self._started):
                    array[slot] = array[running]
        self.lanes, observations = lanes[:running], observations[:running]
        self._earned, self._started = self._earned[:running], self._started[:running]
        if self._max_steps is not None and running:
            self._deadline = int(self._started.min()) + self._max_steps
        return observations
