"""Evolution Strategies as in Salimans et al. 2017, arXiv:1703.03864, Algorithm 2."""

import copy
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import numpy as np
import torch

from evolution.evaluation import Evaluations
from evolution.noise import NoiseTable, check_room
from evolution.population import Mirrored, Population
from evolution.shaping import SHAPINGS
from utils.names import did_you_mean


def make_optimizer(
    name: str, theta: torch.Tensor, *, lr: float, weight_decay: float, **settings: Any
) -> torch.optim.Optimizer:
    """An optimizer of ``torch.optim`` that climbs.

    Args:
        settings: ``betas`` and ``eps``; handed on where the optimizer has them.
    Raises:
        ValueError: no optimizer of that name, or one that needs more than a gradient.
    """
    known = sorted(n for n in torch.optim.__all__ if n[0].isupper() and n != "Optimizer")
    cls = getattr(torch.optim, name, None) if name in known else None
    if cls is None:
        hint = did_you_mean(name, known)
        raise ValueError(f"no optimizer {name!r} in torch.optim.{hint} Known: {', '.join(known)}")
    accepted = cls.__init__.__code__.co_varnames
    fitting = {key: value for key, value in settings.items() if key in accepted}
    if "maximize" not in accepted or name == "LBFGS":
        raise ValueError(f"optimizer {name!r} cannot maximize a plain gradient: choose another")
    try:
        return cls([theta], lr=lr, weight_decay=weight_decay, maximize=True, **fitting)
    except (TypeError, ValueError) as error:
        raise ValueError(f"optimizer {name!r}: {error}") from error


class OpenAIES:
    """Follows the rank-shaped gradient estimate of antithetic pairs with a torch optimizer."""

    roles: ClassVar[tuple[str, ...]] = ("candidate",)

    def __init__(
        self,
        theta: np.ndarray,
        noise: NoiseTable,
        *,
        pop_size: int,
        sigma: float,
        shaping: str = "centered_ranks",
        lr: float,
        lr_decay: float = 1.0,
        l2coeff: float = 0.005,
        optimizer: str = "Adam",
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        """Start at ``theta``.

        Args:
            theta: float32[dim].
            pop_size: candidates per generation, both members of each pair counted.
            sigma: standard deviation of the perturbations.
            shaping: one of ``evolution.shaping.SHAPINGS``.
            lr_decay: factor of ``lr`` after each step.
            l2coeff: weight decay; what the optimizer named does with it.
        Raises:
            ValueError: a setting out of range, or a noise table too small for theta.
        """
        if pop_size < 2 or pop_size % 2:
            raise ValueError(f"pop_size={pop_size}: candidates come in pairs, choose 2, 4, 6, …")
        for name, value in (("sigma", sigma), ("lr", lr)):
            if not 0 < value < float("inf"):
                raise ValueError(f"{name}={value}: must be a positive number")
        if not 0 < lr_decay <= 1:
            raise ValueError(f"lr_decay={lr_decay}: must be above 0, and at most 1")
        if not 0 <= l2coeff < float("inf"):
            raise ValueError(f"l2coeff={l2coeff}: must be zero or a positive number")
        check_room(noise.size, len(theta))
        self._noise, self._pairs, self._sigma = noise, pop_size // 2, sigma
        self._shaped, self._lr_decay = SHAPINGS[shaping], lr_decay
        self._theta = torch.tensor(theta, dtype=torch.float32)
        # torch.optim takes a second to import what it needs: that goes on while the first
        # generation is evaluated.
        pool = ThreadPoolExecutor(1)
        settings: dict[str, Any] = {"weight_decay": l2coeff, "betas": betas, "eps": eps}
        self._making = pool.submit(make_optimizer, optimizer, self._theta, lr=lr, **settings)
        pool.shutdown(wait=False)

    @property
    def _optimizer(self) -> torch.optim.Optimizer:
        return self._making.result()

    @property
    def theta(self) -> np.ndarray:
        return self._theta.numpy().copy()

    def ask(self, rng: np.random.Generator) -> list[Mirrored]:
        theta = self.theta
        return [Mirrored(theta, self._sigma, self._noise.sample(rng, self._pairs, len(theta)))]

    def tell(
        self, populations: Sequence[Population], evaluations: Sequence[Evaluations]
    ) -> dict[str, float]:
        (population,), (told,) = populations, evaluations
        assert isinstance(population, Mirrored)
        utilities = self._shaped(told.fitness).reshape(-1, 2)
        weights = utilities[:, 0] - utilities[:, 1]  # float32[pairs], how much better + was than -
        gradient = self._noise.weighted_sum(weights, population.noise_indices, population.dim)
        gradient /= len(population)
        before = self._theta.clone()
        self._theta.grad = torch.from_numpy(gradient)
        self._optimizer.step()
        for group in self._optimizer.param_groups:
            group["lr"] *= self._lr_decay
        step, norm = torch.linalg.norm(self._theta - before), torch.linalg.norm(before)
        return {
            "grad norm": float(np.linalg.norm(gradient)),
            "update ratio": float(step / norm) if norm > 0 else float("inf"),
        }

    def state(self) -> dict[str, Any]:
        # Copies both ways: torch hands out, and takes over, the tensors that it works on.
        return copy.deepcopy({"theta": self._theta, "optimizer": self._optimizer.state_dict()})

    def restore(self, state: dict[str, Any]) -> None:
        self._theta.copy_(state["theta"])
        self._optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
