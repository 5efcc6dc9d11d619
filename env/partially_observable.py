"""Tasks with some components of the observation hidden (set to zero), so that memory is needed.

`VARIANTS` is the one place that says what is hidden; the Gymnasium environments and the engines,
whichever plays the base task, both read it.
"""

from typing import Any

import gymnasium as gym
import numpy as np

# Our id -> (the task underneath, the components of its observation that are hidden).
VARIANTS = {
    "PartiallyObservablePendulum-v0": ("Pendulum-v1", (2,)),
    "PartiallyObservableCartPole-v0": ("CartPole-v1", (1, 3)),
    "PartiallyObservableCartPoleEasy-v0": ("CartPole-v1", (3,)),
}


class PartiallyObservable(gym.ObservationWrapper):
    """An environment some of whose observation's components always read 0."""

    def __init__(self, env: gym.Env, hidden: tuple[int, ...]) -> None:
        super().__init__(env)
        self.hidden = list(hidden)

    def observation(self, observation: np.ndarray) -> np.ndarray:
        """Return a copy with the hidden components at 0."""
        masked = np.array(observation)
        masked[self.hidden] = 0
        return masked


def make_variant(base: str, hidden: tuple[int, ...], **kwargs: Any) -> gym.Env:
    """Make the base task and hide the components; what Gymnasium calls for our ids.

    The time limit is that of our id, so `gym.make(..., max_episode_steps=...)` holds.
    """
    task = gym.make(base, disable_env_checker=True, max_episode_steps=-1, **kwargs)
    return PartiallyObservable(task, hidden)


for _id, (_base, _hidden) in VARIANTS.items():
    gym.register(
        id=_id,
        entry_point="env.partially_observable:make_variant",
        max_episode_steps=gym.spec(_base).max_episode_steps,
        kwargs={"base": _base, "hidden": _hidden},
    )
