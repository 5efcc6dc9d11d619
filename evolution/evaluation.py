"""From candidates to fitness: what an evaluator promises, and the one that needs no workers."""

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from evolution.answers import HERE, Answer, Layout, PartShape
from evolution.decoder import Decoder
from evolution.noise import NoiseTable, check_room
from evolution.population import Lineages, Population
from evolution.problem import Problem
from evolution.simulator import Simulator


@dataclass(frozen=True, eq=False)
class Part:
    """Candidates and the episodes they play; several parts make the task of a generation.

    Neighbours of a population's ``group`` play the same episodes and are evaluated together:
    they are a *piece*, the unit of work.
    """

    population: Population
    env_seeds: np.ndarray  # int64[pieces, episodes]
    role: str = "candidate"  # what they are called in the list of results
    first: int = 0  # number of the first of them there

    def __post_init__(self) -> None:
        if self.env_seeds.ndim != 2 or len(self.env_seeds) != self.pieces:
            raise ValueError(
                f"env_seeds has shape {self.env_seeds.shape}, {len(self.population)} candidates"
                f" need ({self.pieces}, episodes)"
            )

    @property
    def pieces(self) -> int:
        return len(self.population) // self.population.group

    @property
    def shape(self) -> PartShape:
        group, episodes = self.population.group, self.env_seeds.shape[1]
        return PartShape(self.role, self.pieces, group, episodes, self.first)


@dataclass(frozen=True, eq=False)
class Evaluations:
    """How a population did; row i belongs to candidate i."""

    fitness: np.ndarray  # float32[candidates], mean return over the episodes
    steps: np.ndarray  # int64[candidates], environment steps, all episodes together
    worker: np.ndarray  # int64[candidates], who evaluated it; differs from run to run
    seconds: np.ndarray  # float32[candidates], that it took; differs from run to run
    episodes: int  # played by each candidate


def joined(evaluations: Sequence[Evaluations]) -> Evaluations:
    """Those of several populations whose candidates play equally many episodes, as of one."""
    if len(evaluations) == 1:
        return evaluations[0]
    fitness, steps, worker, seconds = (
        np.concatenate([getattr(each, name) for each in evaluations])
        for name in ("fitness", "steps", "worker", "seconds")
    )
    return Evaluations(fitness, steps, worker, seconds, evaluations[0].episodes)


def split(parts: Sequence[Part], *columns: np.ndarray) -> list[Evaluations]:
    """Cut columns over all candidates of a task into the ``Evaluations`` of its parts.

    Args:
        columns: fitness, steps, worker, seconds; each one value for every candidate.
    """
    ends = np.cumsum([len(part.population) for part in parts])[:-1]
    cut = zip(*(np.split(column, ends) for column in columns), strict=True)
    return [
        Evaluations(fitness, steps, worker, seconds, part.env_seeds.shape[1])
        for part, (fitness, steps, worker, seconds) in zip(parts, cut, strict=True)
    ]


class Evaluator(Protocol):
    """Evaluates tasks; for equal tasks of equal problems all evaluators give equal bits."""

    def submit(self, parts: Sequence[Part]) -> None:
        """Have every episode of every candidate played; several tasks may be on their way."""

    def gather(self) -> list[Evaluations]:
        """Wait for the task that was submitted first: one ``Evaluations`` for each part."""

    def gather_any(self) -> tuple[int, list[Evaluations]]:
        """Wait for the task that is complete first: its place among those on their way, and it."""

    def discard(self) -> None:
        """Forget the tasks that were submitted and not gathered."""

    def evaluate(self, parts: Sequence[Part]) -> list[Evaluations]:
        """Submit and gather, with nothing else on its way."""

    def metrics(self) -> dict[str, float]:
        """What the evaluator has to say of its last task; never influences the evolution."""

    def answers(self) -> list[Answer]:
        """All that came to the last task, and too late to those before, in that order."""

    def __enter__(self) -> "Evaluator": ...

    def __exit__(self, *_: object) -> None: ...


class PieceRunner:
    """Evaluates pieces of a task in this process: what workers and the local evaluator share."""

    def __init__(
        self,
        problem: Problem,
        noise: NoiseTable,
        fetch: Callable[[str], np.ndarray] | None = None,
    ) -> None:
        """Set up for a run; ``fetch`` is for the `Decoder`."""
        engine, policy, decode = problem.build()
        check_room(noise.size, policy.num_params)
        self.simulator = Simulator(engine, policy, decode, problem.max_steps)
        self._decoder = Decoder(noise, fetch=fetch)
        self._thetas = np.empty((0, policy.num_params), np.float32)

    def evaluate(
        self, parts: Sequence[Part], pieces: Sequence[int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Fitness and steps of the candidates of some pieces.

        Args:
            parts: the task; its pieces are numbered through, part after part.
            pieces: ascending numbers.
        Returns:
            float32[rows] and int64[rows]: the pieces' candidates in that order.
        """
        work, start = list[tuple[Part, int]](), 0
        for part in parts:
            end = start + part.pieces
            work += [(part, piece - start) for piece in pieces if start <= piece < end]
            start = end
        columns = [self._play(chunk) for chunk in self._chunks(work)]
        fitness, steps = zip(*columns, strict=True)
        return np.concatenate(fitness), np.concatenate(steps)

    def _chunks(self, work: list[tuple[Part, int]]) -> Iterator[list[tuple[Part, int]]]:
        """Cut the work into near-equal lots of at most a batch: no more thetas are written out."""
        costs = [part.population.group * part.env_seeds.shape[1] for part, _ in work]
        lots = -(-sum(costs) // self.simulator.batch)
        ends = np.cumsum(costs)
        lot_of = ((ends - 1) * lots) // ends[-1]
        for lot in np.unique(lot_of):
            yield [work[i] for i in np.flatnonzero(lot_of == lot)]

    def _play(self, work: list[tuple[Part, int]]) -> tuple[np.ndarray, np.ndarray]:
        thetas = self._room(sum(part.population.group for part, _ in work))
        seeds = list[np.ndarray]()
        for part, own in itertools.groupby(work, key=lambda entry: entry[0]):
            pieces = [piece for _, piece in own]
            group = part.population.group
            rows = [piece * group + member for piece in pieces for member in range(group)]
            here = thetas[len(seeds) : len(seeds) + len(rows)]
            if isinstance(part.population, Lineages):
                part.population.write(rows, self._decoder, here)
            else:
                here[:] = part.population.thetas(rows, self._decoder)
            seeds += list(np.repeat(part.env_seeds[pieces], group, axis=0))
        episodes = np.array([len(row) for row in seeds])
        owners = np.repeat(np.arange(len(seeds)), episodes)
        flat = np.concatenate(seeds)
        returns, lengths = self.simulator.play(thetas, owners, flat)
        first = np.cumsum(episodes) - episodes
        fitness = np.add.reduceat(returns, first) / episodes
        return fitness.astype(np.float32), np.add.reduceat(lengths, first)

    def _room(self, rows: int) -> np.ndarray:
        """Where to write thetas until the next call: float32[rows, dim]."""
        if len(self._thetas) < rows:
            self._thetas = np.empty((rows, self.simulator.policy.num_params), np.float32)
        return self._thetas[:rows]

    def close(self) -> None:
        self.simulator.engine.close()


class LocalEvaluator:
    """Evaluates in this process: the reference for all others."""

    def __init__(self, problem: Problem, noise: NoiseTable) -> None:
        self._runner = PieceRunner(problem, noise)
        self._submitted = deque[Sequence[Part]]()
        self._answers: list[Answer] = []

    def submit(self, parts: Sequence[Part]) -> None:
        self._submitted.append(parts)

    def discard(self) -> None:
        self._submitted.clear()

    def evaluate(self, parts: Sequence[Part]) -> list[Evaluations]:
        self.submit(parts)
        return self.gather()

    def gather_any(self) -> tuple[int, list[Evaluations]]:
        return 0, self.gather()

    def gather(self) -> list[Evaluations]:
        parts = self._submitted.popleft()
        started, cpu_started = time.perf_counter(), time.process_time()
        layout = Layout(tuple(part.shape for part in parts))
        fitness, steps = self._runner.evaluate(parts, range(len(layout.group_of)))
        spent, rows = time.perf_counter() - started, np.arange(len(layout))
        cpu, now = time.process_time() - cpu_started, time.monotonic()
        used = np.ones(len(rows), np.bool_)
        lot = [HERE], np.array([len(rows)])
        spending = np.array([spent]), np.array([cpu])
        self._answers = [Answer(*lot, 0, now, *spending, layout, rows, fitness, steps, used)]
        worker = np.zeros(len(rows), np.int64)
        seconds = np.full(len(rows), spent / len(rows), np.float32)
        return split(parts, fitness, steps, worker, seconds)

    def metrics(self) -> dict[str, float]:
        return {"results skipped": 0.0, "frac. results skipped": 0.0, "time_to_obtain": 0.0}

    def answers(self) -> list[Answer]:
        return self._answers

    def __enter__(self) -> "LocalEvaluator":
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.close()
