"""Asynchronous evolution: workers never wait for the end of a generation.

What a child brings counts from the moment at which it comes, for the generation that is open then:
its parent may have died out, and it may have been asked a generation ago. A generation closes when
so many children have come as it has; nothing is thrown away. So did cshenton's workers, who "seek"
and "show" at any time. Which child comes first depends on the workers: equal seeds do not give
equal bits, and a run that is resumed asks anew for what was on its way.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from evolution.evaluation import Evaluations, Evaluator, Part, joined
from evolution.limits import Limits
from evolution.loop import THETA, Generation, History, measured
from evolution.population import Lineages, Population, Repeated
from evolution.seeding import Seeding
from evolution.strategy import DescribesItself, Strategy

BLOCKS = 50  # of children, that a generation is asked in
AHEAD = 4  # children on their way for each worker, at least


class Steady(Strategy, Protocol):
    """A strategy that learns from each child when it comes.

    Attributes:
        pop_size: children of a generation.
    """

    @property
    def pop_size(self) -> int: ...

    def breed(self, rng: np.random.Generator, count: int) -> Lineages:
        """Children of those that survive at this moment."""

    def absorb(self, children: Lineages, told: Evaluations) -> None:
        """Let children live that are better than the worst survivor."""

    def candidates(self) -> Lineages:
        """Those that have to earn their place again when a generation closes."""

    def crown(
        self, children: Evaluations, candidates: Lineages, told: Evaluations
    ) -> dict[str, float]:
        """Choose champions; returns the algorithm's own diagnostics as metrics.

        Args:
            children: all of the generation.
        """


@dataclass(frozen=True, eq=False)
class _Sent:
    """A task on its way."""

    population: Lineages
    theta: np.ndarray | None = None  # None: it asks for children


def evolve_steadily(
    strategy: Steady,
    evaluator: Evaluator,
    *,
    generations: int,
    episodes: int,
    eval_episodes: int,
    seeding: Seeding,
    stop_fitness: float | None = None,
    max_steps: int | None = None,
    max_hours: float | None = None,
    history: History | None = None,
    overlap: int = 0,
) -> Iterator[Generation]:
    """As `evolution.loop.evolve`, but nobody waits; ``overlap`` has no meaning here."""
    history = history or History()
    limits = Limits(generations, stop_fitness, max_steps, max_hours)
    stream = _Stream(strategy, evaluator, seeding, history, (episodes, eval_episodes))
    while not history.has_ended(limits):
        yield stream.generation()
    evaluator.discard()


class _Stream:
    """Children that are asked, come and are learnt from without a break."""

    def __init__(
        self,
        strategy: Steady,
        evaluator: Evaluator,
        seeding: Seeding,
        history: History,
        episodes: tuple[int, int],
    ) -> None:
        self._strategy, self._evaluator = strategy, evaluator
        self._seeding, self._history = seeding, history
        self._episodes, self._eval_episodes = episodes
        self._sent: list[_Sent] = []
        self._came: list[tuple[Lineages, Evaluations]] = []  # of the open generation
        self._blocks = 0  # asked so far
        self._answers: list[Any] = []
        self._size = -(-strategy.pop_size // BLOCKS)

    def generation(self) -> Generation:
        """Go on until one has closed and its elites have earned their places again."""
        started, closed = time.monotonic(), None
        while True:
            self._feed()
            sent, told = self._next()
            if sent.theta is not None:
                assert closed is not None
                return self._shown(closed, sent, told, started)
            self._strategy.absorb(sent.population, told[0])
            self._came.append((sent.population, told[0]))
            come = sum(len(population) for population, _ in self._came)
            if closed is None and come >= self._strategy.pop_size:
                closed, self._came = self._came, []
                self._send_elites()

    def _feed(self) -> None:
        """Ask for so many children that no worker is without."""
        while True:
            workers = self._evaluator.metrics().get("workers alive", 1.0)
            children = [each.population for each in self._sent if each.theta is None]
            if len(children) > 1 and sum(map(len, children)) >= AHEAD * workers:
                return
            number, self._blocks = self._history.next_generation, self._blocks + 1
            population = self._strategy.breed(self._seeding.ask(number, self._blocks), self._size)
            seeds = self._seeding.training(number, self._size, self._episodes, self._blocks)
            self._sent.append(_Sent(population))
            self._evaluator.submit([Part(population, seeds, self._strategy.roles[0])])

    def _send_elites(self) -> None:
        """Have the candidates for elite play again, and theta for its fitness."""
        strategy, number = self._strategy, self._history.next_generation
        candidates, theta = strategy.candidates(), strategy.theta
        self._blocks += 1
        seeds = self._seeding.training(number, len(candidates), self._episodes, self._blocks)
        short = strategy.described() if isinstance(strategy, DescribesItself) else None
        shown: Population = Repeated(theta, self._eval_episodes)
        if isinstance(short, Lineages):
            shown = short.repeated(self._eval_episodes)
        of_theta = self._seeding.evaluation(number, self._eval_episodes)
        self._sent.append(_Sent(candidates, theta))
        self._evaluator.submit(
            [Part(candidates, seeds, strategy.roles[1]), Part(shown, of_theta, THETA)]
        )

    def _next(self) -> tuple[_Sent, list[Evaluations]]:
        """Whatever is complete first."""
        place, told = self._evaluator.gather_any()
        self._history.count_work(answers := self._evaluator.answers())
        self._answers += answers
        return self._sent.pop(place), told

    def _shown(
        self,
        closed: list[tuple[Lineages, Evaluations]],
        sent: _Sent,
        told: list[Evaluations],
        started: float,
    ) -> Generation:
        elites, current = told
        children, history = joined([each for _, each in closed]), self._history
        assert sent.theta is not None
        diagnostics = self._strategy.crown(children, sent.population, elites)
        seconds, number = time.monotonic() - started, history.next_generation
        by_role = dict(zip(self._strategy.roles, (children, elites), strict=True))
        steps = sum(int(each.steps.sum()) for each in (children, elites, current))
        metrics = {
            "gen": float(number),
            **measured(sent.theta, [children, elites], current, history),
            **self._evaluator.metrics(),
            **diagnostics,
            "steps/s": steps / max(seconds, 1e-9),
            **history.times(seconds),
        }
        history.close(metrics["current fitness"])
        answers, self._answers = self._answers, []
        asked = [(self._strategy.roles[0], population) for population, _ in closed]
        asked.append((self._strategy.roles[1], sent.population))
        shown = current, metrics, answers, history.began, asked
        return Generation(number, sent.theta, by_role, *shown)
