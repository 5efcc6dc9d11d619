"""The genetic algorithm of Such et al. 2018, arXiv:1712.06567; elites have to earn their place."""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from evolution.decoder import Decoder, Genome, tensor_sizes
from evolution.evaluation import Evaluations, joined
from evolution.loop import confidence_interval
from evolution.noise import NoiseTable, check_room
from evolution.population import Lineages, Population
from ga.config import check_sizes

BLOCKS = 4  # of a population: by how many children a generation grows that is too small


@dataclass(frozen=True)
class Individual:
    """A genome and how good it was found."""

    genome: Genome
    score: float  # of a child its mean return; of an elite the mean over fresh episodes


@dataclass(frozen=True, eq=False)
class _Seen:
    """A generation, by what its candidates are for."""

    children: Lineages
    told_children: Evaluations
    elites: tuple[Lineages, Evaluations] | None
    top: tuple[Lineages, Evaluations] | None  # the best children once more


class DeepGA:
    """Truncation selection: children of the best are the best plus Gaussian noise (Algorithm 1).

    Each generation the candidates for elite, which are the champions and the best new survivors,
    are evaluated again on fresh episodes. The best of them are the champions: they are carried on
    unmutated, and the first is the elite. A lucky score therefore lasts one generation. What is
    reported of an elite comes from the generation after the one that chose it.
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
        episodes_per_batch: int = 0,
        timesteps_per_batch: int = 0,
        reevaluate_top: int = 0,
        n_reevals: int = 1,
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
            episodes_per_batch: episodes of a generation at least, those of elites included.
            timesteps_per_batch: likewise steps of the environment.
            reevaluate_top: of a generation's children so many, the best, play again before
                survivors are chosen, …
            n_reevals: … so many times a child's episodes, and are ranked by these alone.
        Raises:
            ValueError: sizes that do not fit together, with what would.
        """
        check_sizes(
            pop_size=pop_size,
            n_parents=n_parents,
            champions=champions,
            n_elite_candidates=n_elite_candidates,
            n_evals=n_evals,
            reevaluate_top=reevaluate_top,
            n_reevals=n_reevals,
        )
        self._least = episodes_per_batch, timesteps_per_batch
        self._reevaluate_top, self._n_reevals = reevaluate_top, n_reevals
        if not 0 < sigma < float("inf"):
            raise ValueError(f"sigma={sigma}: must be a positive number")
        self._shapes, self._sigma, self._decoder = shapes, sigma, Decoder(noise)
        self._pop_size, self._n_parents, self._champions = pop_size, n_parents, champions
        self._n_candidates, self._n_evals = n_elite_candidates, n_evals
        self._dim = int(tensor_sizes(shapes).sum())
        check_room(noise.size, self._dim)
        self._survivors: list[Individual] = []  # champions first, then new ones, best first
        self._crowned = 0  # survivors that have earned their place, if children come at any time
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

    @property
    def pop_size(self) -> int:
        """Children of a generation."""
        return self._pop_size

    def described(self) -> Lineages | None:
        """See ``DescribesItself``."""
        if self.elite is None:
            return None
        return self._lineages([self.elite.genome], np.zeros(1), np.full(1, -1))

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

    # --- asynchronously; see `evolution.steady`

    def breed(self, rng: np.random.Generator, count: int) -> Lineages:
        mutations = self._decoder.noise.sample(rng, count, self._dim)
        genomes = [each.genome for each in self._survivors]
        parents = rng.integers(len(genomes), size=count) if genomes else np.full(count, -1)
        return self._lineages(genomes, parents, mutations)

    def absorb(self, children: Lineages, told: Evaluations) -> None:
        new = [
            Individual(children.genome(n), float(told.fitness[n])) for n in range(len(told.fitness))
        ]
        champions, others = self._survivors[: self._crowned], self._survivors[self._crowned :]
        self._survivors = (champions + _sorted(others + new))[: self._n_parents]

    def candidates(self) -> Lineages:
        count = min(self._n_candidates, len(self._survivors))
        genomes = [each.genome for each in self._survivors[:count]]
        rows = np.repeat(np.arange(count), self._n_evals)
        return self._lineages(genomes, rows, np.full_like(rows, -1))

    def crown(
        self, children: Evaluations, candidates: Lineages, told: Evaluations
    ) -> dict[str, float]:
        ranked = self._ranked(candidates, told, self._n_evals)
        earned = {each.genome for each in ranked}
        others = [each for each in self._survivors if each.genome not in earned]
        champions, rest = ranked[: self._champions], ranked[self._champions :]
        self._survivors = (champions + _sorted(rest + others))[: self._n_parents]
        self._crowned, self.elite = len(champions), champions[0]
        return measures(self.elite, children, told, self._n_evals, self._n_parents)

    # --- generation by generation

    def further(
        self,
        populations: Sequence[Population],
        evaluations: Sequence[Evaluations],
        rng: np.random.Generator,
    ) -> list[tuple[str, Population]]:
        """Children until both minima hold; then the best of them again, if that is wanted."""
        seen = self._sorted(populations, evaluations)
        if missing := self._missing(evaluations, seen.told_children):
            first = seen.children
            mutations = self._decoder.noise.sample(rng, missing, self._dim)
            parents = np.full(missing, -1)
            if len(first.lengths):
                parents = rng.integers(len(first.lengths), size=missing)
            return [("child", replace(first, parent_of=parents, mutations=mutations))]
        if self._reevaluate_top and seen.top is None:
            order = best_first(seen.told_children.fitness, seen.children.mutations)
            genomes = [seen.children.genome(row) for row in order[: self._reevaluate_top]]
            rows = np.repeat(np.arange(len(genomes)), self._n_reevals)
            return [("top", self._lineages(genomes, rows, np.full_like(rows, -1)))]
        return []

    def _missing(self, evaluations: Sequence[Evaluations], children: Evaluations) -> int:
        """Children that are to be asked yet, in blocks: as many as those so far let expect."""
        episodes = sum(len(each.fitness) * each.episodes for each in evaluations)
        steps = sum(int(each.steps.sum()) for each in evaluations)
        least_episodes, least_steps = self._least
        missing = max(
            (least_episodes - episodes) / children.episodes,
            (least_steps - steps) / float(children.steps.mean()),
        )
        block = -(-self._pop_size // BLOCKS)
        return max(math.ceil(missing / block), 0) * block

    def _sorted(
        self, populations: Sequence[Population], evaluations: Sequence[Evaluations]
    ) -> "_Seen":
        """What was asked, by what it is for: all children together, elites, the best children."""
        children, again = list[tuple[Lineages, Evaluations]](), list[tuple[Lineages, Evaluations]]()
        for population, told in zip(populations, evaluations, strict=True):
            assert isinstance(population, Lineages)
            (again if population.repeats else children).append((population, told))
        first = children[0][0]
        all_children = replace(
            first,
            parent_of=np.concatenate([each.parent_of for each, _ in children]),
            mutations=np.concatenate([each.mutations for each, _ in children]),
        )
        had_elites = bool(again) and (not self._reevaluate_top or bool(self._survivors))
        elites, top = (again[:1], again[1:]) if had_elites else ([], again)
        told_children = joined([told for _, told in children])
        return _Seen(all_children, told_children, next(iter(elites), None), next(iter(top), None))

    def tell(
        self, populations: Sequence[Population], evaluations: Sequence[Evaluations]
    ) -> dict[str, float]:
        seen = self._sorted(populations, evaluations)
        champions = self._ranked(*seen.elites, self._n_evals) if seen.elites else []
        champions = champions[: self._champions]
        room = self._n_parents - len(champions)
        self._survivors = champions + self._best_children(seen)[:room]
        self.elite = self._survivors[0]
        elites = None if seen.elites is None else seen.elites[1]
        return measures(self.elite, seen.told_children, elites, self._n_evals, self._n_parents)

    def _ranked(self, population: Lineages, told: Evaluations, times: int) -> list[Individual]:
        """Genomes that were evaluated so often on fresh episodes, by their mean, best first."""
        means = told.fitness.astype(np.float64).reshape(-1, times).mean(axis=1)
        genomes = [population.genome(row * times) for row in range(len(means))]
        order = best_first(means, np.array([genome[-1] for genome in genomes]))
        return [Individual(genomes[row], float(means[row])) for row in order]

    def _best_children(self, seen: "_Seen") -> list[Individual]:
        """Those that played again by that; the others, behind them, by their one evaluation."""
        population, told = seen.children, seen.told_children
        most = self._n_parents + self._reevaluate_top
        order = best_first(told.fitness, population.mutations)[:most]
        best = [Individual(population.genome(row), float(told.fitness[row])) for row in order]
        again = self._ranked(*seen.top, self._n_reevals) if seen.top else []
        return again + best[len(again) :]

    def state(self) -> dict[str, Any]:
        plain = [(list(each.genome), each.score) for each in self._survivors]
        return {"survivors": copy.deepcopy(plain), "crowned": self._crowned}

    def restore(self, state: dict[str, Any]) -> None:
        self._survivors = [Individual(tuple(g), score) for g, score in state["survivors"]]
        self.elite = self._survivors[0] if self._survivors else None
        self._crowned = state.get("crowned", 0)  # of survivors that were read back, none are


def _sorted(individuals: list[Individual]) -> list[Individual]:
    """The best first."""
    if not individuals:
        return []
    scores = np.array([each.score for each in individuals])
    last = np.array([each.genome[-1] for each in individuals])
    return [individuals[row] for row in best_first(scores, last)]


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
    elite: Individual,
    children: Evaluations,
    elites: Evaluations | None,
    n_evals: int,
    n_parents: int,
) -> dict[str, float]:
    """What there is to say of a generation, under ga-dist's names.

    "elite score" is of the elite with which the generation began: these episodes had no part in
    choosing it, so they do not flatter it. The score by which the next one is chosen, the best of
    several means, does; it is told beside.

    Args:
        elites: the candidates, the elite so far first, ``n_evals`` rows each; None: none yet.
    """
    best = np.sort(children.fitness)[::-1]
    found = {
        "elite score when chosen": elite.score,
        "genome indices": float(len(elite.genome)),
        "MutEps": float(len(children.fitness) * children.episodes),
        **_spread("MutRet", children.fitness),
        "MutRetParentMin": float(best[n_parents - 1]),
        **_spread("MutLen", children.steps / children.episodes),
    }
    if elites is None:
        return found
    returns = elites.fitness.reshape(-1, n_evals)
    means = returns.mean(axis=1, dtype=np.float64)
    row = int(means.argmax())
    found |= _spread("EliteRet", returns[row]) | {"EliteRetMean": float(returns[row].mean())}
    found |= _spread("EliteLen", elites.steps.reshape(-1, n_evals)[row] / elites.episodes)
    found |= _spread("EvalMean", means)
    found |= {"elite score": float(means[0]), "elite score ci": confidence_interval(returns[0])}
    return found


def _spread(name: str, values: np.ndarray) -> dict[str, float]:
    return {
        f"{name}Max": float(values.max()),
        f"{name}Med": float(np.median(values)),
        f"{name}Min": float(values.min()),
    }
