"""The genetic algorithm of Such et al. 2018, arXiv:1712.06567; elites have to earn their place."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from evolution.decoder import Decoder, Genome, tensor_sizes
from evolution.evaluation import Evaluations
from evolution.noise import NoiseTable, check_room
from evolution.population import Lineages, Population
from ga.config import check_sizes


@dataclass(frozen=True)
class Individual:
    """A genome and how good it was found."""

    genome: Genome
    score: float  # of a child its mean return; of an elite the mean over fresh episodes


class DeepGA:
    """Truncation selection: children of the best are the best plus Gaussian noise (Algorithm 1).

    Each generation the candidates for elite, which are the champions and the best new survivors,
    are evaluated again on fresh episodes. The best of them are the champions: they are carried on
    unmutated, and the first is the elite. A lucky score therefore lasts one generation.
    """

    roles: ClassVar[tuple[str, ...]] = ("child", "elite")

    def __init__(
        self,
        shapes: np.ndarray,
        noise: NoiseTable,
        *,
        pop_size: int,
        n_parents: int,
        champions: int,
        n_elite_candidates: int,
        n_evals: int,
        sigma: float,
    ) -> None:
        """Begin with random ancestors.

        Args:
            shapes: int64[tensors, 2], of the network; see `Decoder.ancestor`.
            pop_size: children per generation.
            n_parents: survivors, of which children are made.
            champions: survivors that are carried on unmutated.
            n_elite_candidates: survivors that are evaluated again.
            n_evals: times each of them plays a candidate's episodes.
            sigma: standard deviation of a mutation.
        Raises:
            ValueError: sizes that do not fit together, with what would.
        """
        check_sizes(
            pop_size=pop_size,
            n_parents=n_parents,
            champions=champions,
            n_elite_candidates=n_elite_candidates,
            n_evals=n_evals,
        )
        if not 0 < sigma < float("inf"):
            raise ValueError(f"sigma={sigma}: must be a positive number")
        self._shapes, self._sigma, self._decoder = shapes, sigma, Decoder(noise)
        self._pop_size, self._n_parents, self._champions = pop_size, n_parents, champions
        self._n_candidates, self._n_evals = n_elite_candidates, n_evals
        self._dim = int(tensor_sizes(shapes).sum())
        check_room(noise.size, self._dim)
        self._survivors: list[Individual] = []  # champions first, then new ones, best first
        self.elite: Individual | None = None

    @property
    def theta(self) -> np.ndarray:
        """The elite's parameters; zeros before the first generation."""
        if self.elite is None:
            return np.zeros(self._dim, np.float32)
        return self._decoder.write(self.elite.genome, self._shapes, self._sigma).copy()

    @property
    def noise(self) -> NoiseTable:
        """The table into which genomes point."""
        return self._decoder.noise

    @property
    def sigma(self) -> float:
        """Standard deviation of a mutation."""
        return self._sigma

    @property
    def survivors(self) -> tuple[Individual, ...]:
        """The parents of the next generation; champions first, then the others, best first."""
        return tuple(self._survivors)

    def ask(self, rng: np.random.Generator) -> list[Lineages]:
        mutations = self._decoder.noise.sample(rng, self._pop_size, self._dim)
        if not self._survivors:
            return [self._lineages([], np.full(self._pop_size, -1), mutations)]
        genomes = [each.genome for each in self._survivors]
        parents = rng.integers(len(genomes), size=self._pop_size)
        candidates = np.repeat(np.arange(self._n_candidates), self._n_evals)
        return [
            self._lineages(genomes, parents, mutations),
            self._lineages(genomes[: self._n_candidates], candidates, np.full_like(candidates, -1)),
        ]

    def _lineages(
        self, genomes: Sequence[Genome], parent_of: np.ndarray, mutations: np.ndarray
    ) -> Lineages:
        return Lineages(
            shapes=self._shapes,
            sigma=self._sigma,
            parents=np.array([index for genome in genomes for index in genome], np.int64),
            lengths=np.array([len(genome) for genome in genomes], np.int64),
            parent_of=parent_of.astype(np.int64),
            mutations=mutations.astype(np.int64),
        )

    def tell(
        self, populations: Sequence[Population], evaluations: Sequence[Evaluations]
    ) -> dict[str, float]:
        children, *elites = zip(populations, evaluations, strict=True)
        champions = [ranked for pair in elites for ranked in self._rank_elites(*pair)]
        champions = champions[: self._champions]
        room = self._n_parents - len(champions)
        self._survivors = champions + self._best_children(*children)[:room]
        self.elite = self._survivors[0]
        return measures(self.elite, evaluations, self._n_evals, self._n_parents)

    def _rank_elites(self, population: Population, told: Evaluations) -> list[Individual]:
        """The candidates by their mean over fresh episodes, best first."""
        assert isinstance(population, Lineages)
        means = told.fitness.astype(np.float64).reshape(-1, self._n_evals).mean(axis=1)
        genomes = [population.genome(row * self._n_evals) for row in range(len(means))]
        order = best_first(means, np.array([genome[-1] for genome in genomes]))
        return [Individual(genomes[row], float(means[row])) for row in order]

    def _best_children(self, population: Population, told: Evaluations) -> list[Individual]:
        assert isinstance(population, Lineages)
        order = best_first(told.fitness, population.mutations)[: self._n_parents]
        return [Individual(population.genome(row), float(told.fitness[row])) for row in order]

    def state(self) -> dict[str, Any]:
        plain = [(list(each.genome), each.score) for each in self._survivors]
        return {"survivors": copy.deepcopy(plain)}

    def restore(self, state: dict[str, Any]) -> None:
        self._survivors = [Individual(tuple(g), score) for g, score in state["survivors"]]
        self.elite = self._survivors[0] if self._survivors else None


def best_first(scores: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """The order of the scores, descending; equal ones in an order that is as good as random.

    Args:
        scores: float[n].
        indices: int64[n], drawn at random, by which ties are broken: by their scrambled bits, for
            by themselves the largest would always win.
    """
    return np.lexsort((scrambled(indices), -np.asarray(scores, np.float64)))


def scrambled(numbers: np.ndarray) -> np.ndarray:
    """uint64[n]: the output function of SplitMix64 (Steele et al. 2014, figure 13)."""
    z = np.asarray(numbers).astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def measures(
    elite: Individual, evaluations: Sequence[Evaluations], n_evals: int, n_parents: int
) -> dict[str, float]:
    """What there is to say of a generation, under ga-dist's names."""
    children, *elites = evaluations
    best = np.sort(children.fitness)[::-1]
    found = {
        "elite score": elite.score,
        "genome indices": float(len(elite.genome)),
        "MutEps": float(len(children.fitness) * children.episodes),
        **_spread("MutRet", children.fitness),
        "MutRetParentMin": float(best[n_parents - 1]),
        **_spread("MutLen", children.steps / children.episodes),
    }
    for told in elites:
        means = told.fitness.reshape(-1, n_evals).mean(axis=1, dtype=np.float64)
        row = int(means.argmax())
        returns = told.fitness.reshape(-1, n_evals)[row]
        found |= _spread("EliteRet", returns) | {"EliteRetMean": float(returns.mean())}
        found |= _spread("EliteLen", told.steps.reshape(-1, n_evals)[row] / told.episodes)
        found |= _spread("EvalMean", means)
    return found


def _spread(name: str, values: np.ndarray) -> dict[str, float]:
    return {
        f"{name}Max": float(values.max()),
        f"{name}Med": float(np.median(values)),
        f"{name}Min": float(values.min()),
    }
