"""Any optimizer of Nevergrad's registry, https://facebookresearch.github.io/nevergrad."""

import contextlib
import logging
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np

from evolution.evaluation import Evaluations
from evolution.population import Dense, Population
from nevergrad_es.draws import Draws
from nevergrad_es.ledger import WORDS, Ledger, replayed
from nevergrad_es.registry import THREADS, Parameter, ng, registry, unbounded_cma
from nevergrad_es.tools import ToolError

log = logging.getLogger(__name__)

WIDE = 4000  # parameters, from which on the matrix of CMA is too slow for most


class NevergradStrategy:
    """Asks an optimizer for every candidate, and tells it how each of them did, in their order.

    Nevergrad minimizes, so what it is told is the fitness with its sign changed. It computes with
    float64, and candidates are float32: it is told of what it asked for how the nearest float32
    did, and goes on from its own numbers. ``theta`` is its recommendation, rounded likewise; one
    that is a candidate it has asked for is the same to the last bit as what was evaluated.

    Its state is the ledger of what was asked and told: going back to a state does all of it once
    more, and finds out whether the tool asks for the same candidates again.
    """

    roles: ClassVar[tuple[str, ...]] = ("candidate",)

    def __init__(
        self,
        theta: np.ndarray,
        rng: np.random.Generator,
        *,
        tool: str,
        pop_size: int,
        generations: int,
        sigma: float,
        noisy: bool = True,
        overlap: int = 0,
    ) -> None:
        """Start at ``theta``.

        Args:
            theta: float32[dim].
            rng: for what an optimizer draws when it is made.
            tool: its name in ``nevergrad.optimizers.registry``.
            pop_size: candidates per generation; how many workers the optimizer is told of.
            generations: to come; with ``pop_size`` the budget that the optimizer is told of.
            sigma: of the parameters, what is 1 to the optimizer.
            noisy: whether it is told that equal candidates may have unequal fitness.
            overlap: generations that are asked ahead; so many more are at work at once.
        Raises:
            ToolError: the optimizer refuses to be made.
        """
        self._tool, self._pop_size, self._generations = tool, pop_size, generations
        self._sigma, self._noisy = sigma, noisy
        self._num_workers = pop_size * min(overlap + 1, generations)
        self._first = theta.astype(np.float32)
        self._birth = _words(rng)
        self._begin()
        self._warn(len(theta))

    def _warn(self, dim: int) -> None:
        """Say what a user would hardly guess of CMA with these settings."""
        own, budget = self._own_population, self._pop_size * self._generations
        if own > budget:
            log.warning(
                "tool=%s learns from %d candidates at a time: a budget of %d teaches it nothing",
                *(self._tool, own, budget),
            )
        elif own % self._pop_size:
            log.warning(
                "tool=%s has a population of %d of its own: with pop_size=%d, which does not divide"
                " it, some of what it is told is lost to it",
                *(self._tool, own, self._pop_size),
            )
        if self._whole_covariance and dim >= WIDE:
            log.warning(
                "tool=%s works with matrices of %d x %d, %.1f GB each, which take it seconds to"
                " minutes per generation; DiagonalCMA does without",
                *(self._tool, dim, dim, 8e-9 * dim**2),
            )

    def _begin(self) -> None:
        """As if nothing had been asked."""
        self._theta, self._draws = self._first, Draws(self._birth)
        self._ledger = Ledger(self._pop_size)
        self._waiting = deque[list[Parameter]]()
        array = ng.p.Array(init=self._first.astype(np.float64)).set_mutation(sigma=self._sigma)
        array.random_state = np.random.RandomState(self._birth)
        array.function.deterministic = not self._noisy
        self._random_state = array.random_state
        with self._calling("be made"):
            self._optimizer = registry[self._tool](
                parametrization=array,
                budget=self._pop_size * self._generations,
                num_workers=self._num_workers,
            )
            cma = unbounded_cma(self._optimizer)
        # pycma wants 4 + 3 ln(dim) at once, at least. If whole generations do not make that up, it
        # is told twice between two asks now and then: it refuses, and Nevergrad goes on.
        self._own_population = cma._popsize if cma else 0
        self._whole_covariance = cma is not None and not cma._config.diagonal

    @property
    def theta(self) -> np.ndarray:
        return self._theta

    @property
    def evaluations(self) -> int:
        """Candidates that the optimizer has been told of, by its own count."""
        return self._optimizer.num_tell

    def ask(self, rng: np.random.Generator) -> list[Dense]:
        return [self._ask(_words(rng))]

    def _ask(self, seed: np.ndarray) -> Dense:
        if self._ledger.asked == self._generations:
            raise ToolError(f"tool={self._tool}: its budget is {self._generations} generations")
        self._random_state.seed(seed)
        self._draws.seed(seed)
        with self._calling("give candidates"):
            candidates = [self._optimizer.ask() for _ in range(self._pop_size)]
            values = np.array([each.value for each in candidates]).astype(np.float32)
        if not np.isfinite(values).all():
            raise ToolError(f"tool={self._tool} asked for a candidate with NaN or infinity in it")
        self._waiting.append(candidates)
        self._ledger.ask(seed, values)
        return Dense(values)

    def tell(
        self, populations: Sequence[Population], evaluations: Sequence[Evaluations]
    ) -> dict[str, float]:
        (population,), (told,) = populations, evaluations
        assert isinstance(population, Dense)
        before = self._theta
        self._tell(told.fitness)
        step, norm = np.linalg.norm(self._theta - before), np.linalg.norm(before)
        return {
            "update ratio": float(step / norm) if norm > 0 else float("inf"),
            "search st.dev": float(np.sqrt(population.values.var(axis=0, dtype=np.float64).mean())),
        }

    def _tell(self, fitness: np.ndarray) -> None:
        if not np.isfinite(fitness).all():
            row = int(np.flatnonzero(~np.isfinite(fitness))[0])
            raise ToolError(f"candidate {row} has fitness {fitness[row]}: no optimizer takes that")
        with self._calling("be told how its candidates did"):
            for candidate, value in zip(self._waiting.popleft(), fitness, strict=True):
                self._optimizer.tell(candidate, -float(value))
        with self._calling("recommend anything"):
            theta = np.array(self._optimizer.provide_recommendation().value, np.float32)
        if not np.isfinite(theta).all():
            raise ToolError(f"tool={self._tool} recommends parameters with NaN or infinity")
        self._theta = theta
        self._ledger.tell(fitness)

    @contextlib.contextmanager
    def _calling(self, what: str) -> Iterator[None]:
        """Around all calls: what is drawn and added up inside is the same on any machine like this.

        An optimizer may raise whatever it likes; of matrices that several threads multiply, the
        last bits depend on how many there are.
        """
        try:
            with self._draws.lent(), THREADS.limit(limits=1):
                yield
        except Exception as error:
            reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            raise ToolError(f"tool={self._tool} cannot {what}: {reason}; choose another") from error

    def state(self) -> dict[str, Any]:
        return self._ledger.state()

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to a ``state``.

        Raises:
            ToolError: the same asks and tells lead to other candidates.
        """
        if len(state["fitness"]):
            log.info("asking and telling %s %d generations anew", self._tool, len(state["fitness"]))
        self._begin()
        for what, data in replayed(state):
            if what == "ask":
                self._ask(data)
            else:
                self._tell(data)
        if self._ledger.digest != state["digest"]:
            raise ToolError(
                f"tool={self._tool} asks for other candidates than before, with equal seeds and"
                " returns: a run of it cannot go on; see list_tools"
            )


def _words(rng: np.random.Generator) -> np.ndarray:
    """uint32[WORDS]."""
    return rng.integers(2**32, size=WORDS, dtype=np.uint32)
