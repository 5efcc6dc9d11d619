"""A network's twin in torch: what it is defined, initialised, saved and shared by."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


class Twin(ABC):
    """The part of `policy.base.Policy` that needs torch, which is imported when it is asked for."""

    @abstractmethod
    def _build(self) -> "torch.nn.Module":
        """Make the torch module, initialised from torch's global generator."""

    def initial_theta(self, rng: np.random.Generator) -> np.ndarray:
        """Draw float32[num_params] as PyTorch initialises the module, from `rng` alone."""
        from policy import modules

        return modules.theta_of(modules.seeded(self._build, int(rng.integers(2**63))))

    def module(self) -> "torch.nn.Module":
        """Make the network as a torch module in eval mode; Gaussian outputs give their mean."""
        from policy import modules

        return modules.seeded(self._build, 0).eval()

    def state_dict(self, theta: np.ndarray) -> dict[str, "torch.Tensor"]:
        """Write float32[num_params] as the state_dict of `module()`."""
        from policy import modules

        return modules.state_dict(self.module(), theta)

    def theta_from_state_dict(self, state_dict: dict[str, "torch.Tensor"]) -> np.ndarray:
        """Read float32[num_params] from a state_dict of `module()`.

        Raises:
            PolicyError: if keys, shapes or buffers are not this network's.
        """
        from policy import modules

        return modules.theta_from_state_dict(self.module(), state_dict)
