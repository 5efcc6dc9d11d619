"""The sphere at a steady pace: runs that last equally long on any machine, and cost it little."""

import os
import time
from typing import Any

import gymnasium as gym
import numpy as np

from env.sphere import Sphere

PACE = "PACED_SPHERE_SECONDS"  # variable: what an episode lasts; its return does not depend on it


class PacedSphere(Sphere):
    """See `Sphere`."""

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        time.sleep(float(os.environ.get(PACE) or 0))
        return super().step(action)


class BrokenSphere(Sphere):
    """Fails when it is played, and not before."""

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        raise RuntimeError("a broken sphere")


gym.register(id="BrokenSphere-v0", entry_point="paced:BrokenSphere")
gym.register(id="PacedSphere-v0", entry_point="paced:PacedSphere")
