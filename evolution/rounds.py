"""The tasks of one generation: mostly one, but a strategy may want to see more."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

from evolution.answers import Answer
from evolution.evaluation import Evaluations, Evaluator, Part, joined
from evolution.population import Population
from evolution.seeding import Seeding
from evolution.strategy import AsksAgain, Strategy

REMEMBERED = 100  # tasks whose generation is known, for answers that come late
COUNTS = "results skipped", "results audited", "messages rejected", "time_to_obtain"
SHARE = "frac. results skipped"


@dataclass(frozen=True, eq=False)
class Seen:
    """All of a generation."""

    roles: list[str]  # of the populations
    populations: list[Population]
    told: list[Evaluations]
    current: Evaluations  # of theta
    metrics: dict[str, float]  # of the evaluator
    answers: list[Answer]

    def named(self) -> list[tuple[str, Population]]:
        """The populations with their roles."""
        return list(zip(self.roles, self.populations, strict=True))

    def by_role(self) -> dict[str, Evaluations]:
        """As ``told``, but those of one role together, in the order of their first."""
        found: dict[str, list[Evaluations]] = {}
        for role, told in zip(self.roles, self.told, strict=True):
            found.setdefault(role, []).append(told)
        return {role: joined(each) for role, each in found.items()}


class Rounds:
    """Gathers what was submitted for a generation, and what its strategy asks then.

    Each round is decided by the results of the rounds before it alone, all of them complete: who
    evaluates, and how fast, changes nothing.
    """

    def __init__(
        self, strategy: Strategy, evaluator: Evaluator, episodes: int, seeding: Seeding
    ) -> None:
        self._strategy, self._evaluator = strategy, evaluator
        self._episodes, self._seeding = episodes, seeding
        self._generations = deque[int](maxlen=REMEMBERED)  # of the tasks gathered

    def gather(self, number: int, populations: Sequence[Population], ahead: int = 0) -> Seen:
        """Wait for the first round of generation ``number``, and play all others.

        Args:
            ahead: tasks of later generations that have been submitted.
        Raises:
            ValueError: the strategy asks again, although there are some.
        """
        *told, current = self._evaluator.gather()
        seen = Seen([], [*populations], told, current, self._evaluator.metrics(), [])
        seen.roles.extend(self._strategy.roles[: len(populations)])
        seen.answers.extend(self._answers(number))
        if isinstance(self._strategy, AsksAgain):
            again = 1
            while further := self._further(self._strategy, number, again, seen):
                if ahead:
                    raise ValueError("a strategy that asks again needs overlap=0")
                self._play(number, further, seen)
                again += 1
        return seen

    def _further(
        self, strategy: AsksAgain, number: int, again: int, seen: Seen
    ) -> Sequence[tuple[str, Population]]:
        return strategy.further(seen.populations, seen.told, self._seeding.ask(number, again))

    def _play(self, number: int, further: Sequence[tuple[str, Population]], seen: Seen) -> None:
        before = list(zip(seen.roles, seen.populations, strict=True))
        parts = training_parts(number, further, self._episodes, self._seeding, before)
        seen.told.extend(self._evaluator.evaluate(parts))
        seen.roles.extend(role for role, _ in further)
        seen.populations.extend(population for _, population in further)
        _add(seen.metrics, self._evaluator.metrics())
        seen.answers.extend(self._answers(number))

    def _answers(self, number: int) -> list[Answer]:
        """What came, each with its age in generations: to the evaluator it is one in tasks."""
        self._generations.append(number)
        of_task = list(self._generations)
        return [
            answer
            if answer.age == 0
            else replace(answer, age=number - of_task[max(-1 - answer.age, -len(of_task))])
            for answer in self._evaluator.answers()
        ]


def training_parts(
    number: int,
    named: Sequence[tuple[str, Population]],
    episodes: int,
    seeding: Seeding,
    before: Sequence[tuple[str, Population]] = (),
) -> list[Part]:
    """Populations of generation ``number``, with the episodes that they play.

    Args:
        named: their roles, and they.
        before: those that the generation has had already.
    """
    parts, asked = list[Part](), list(before)
    for role, population in named:
        first = sum(len(each) for other, each in asked if other == role)
        pieces = len(population) // population.group
        seeds = seeding.training(number, pieces, episodes, len(asked))
        parts.append(Part(population, seeds, role, first))
        asked.append((role, population))
    return parts


def _add(total: dict[str, float], more: dict[str, float]) -> None:
    """Add up the counts of two tasks of a generation; of all else the worse, or later, is told."""
    counts = {name: total[name] + more[name] for name in COUNTS if name in total}
    share = max(total.get(SHARE, 0.0), more.get(SHARE, 0.0))
    total |= more | counts
    if SHARE in total:
        total[SHARE] = share
