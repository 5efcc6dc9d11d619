"""The generation loop that every algorithm shares, and the metrics common to all."""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evolution.answers import HERE, Answer
from evolution.evaluation import Evaluations, Evaluator, Part
from evolution.limits import Limits
from evolution.population import Lineages, Population, Repeated, from_fields, to_fields
from evolution.rounds import Rounds, training_parts
from evolution.seeding import Seeding
from evolution.strategy import DescribesItself, Strategy
from store.results import Result

THETA = "theta"  # how its own evaluations are called in the list of results
STOP_WINDOW = 10  # generations whose mean "current fitness" is compared with stop_fitness


@dataclass(frozen=True, eq=False)
class Generation:
    """What happened in one generation.

    ``theta``, ``current`` and the metric "current fitness" belong together: the theta from which
    the population was asked, before the update that the population caused.
    """

    number: int
    theta: np.ndarray  # float32[dim]
    told: dict[str, Evaluations]  # by the role of the population; the first is the main one
    current: Evaluations  # of theta, one episode a row, on seeds never used for training
    metrics: dict[str, float]
    answers: Sequence[Answer]  # all that came meanwhile
    began: float  # the run, on time.monotonic()
    asked: Sequence[tuple[str, Population]]  # with their roles

    @property
    def population(self) -> Evaluations:
        """Of the first population, of which the metrics common to all are."""
        return next(iter(self.told.values()))

    @property
    def fitness(self) -> float:
        """The mean return of theta."""
        return self.metrics["current fitness"]

    def results(self) -> Iterator[Result]:
        """Each evaluation, in the order of their coming."""
        return _results(self.answers, self.number, self.began)

    def shown(self) -> dict[str, str]:
        """What a user wants to see while waiting."""
        return {
            "fitness": f"{self.fitness:.1f}",
            "mean": f"{self.metrics['mean fitness']:.1f}",
            "steps/s": f"{self.metrics['steps/s']:,.0f}",
        }


@dataclass(frozen=True, eq=False)
class Final:
    """How good the last theta of a run is, on fresh episodes."""

    number: int  # of updates that led to it
    theta: np.ndarray  # float32[dim]
    current: Evaluations  # one episode a row
    answers: Sequence[Answer]  # all that came meanwhile
    began: float  # the run, on time.monotonic()

    @property
    def fitness(self) -> float:
        """The mean return of theta."""
        return float(self.current.fitness.mean(dtype=np.float64))

    @property
    def metrics(self) -> dict[str, float]:
        return {
            "current fitness": self.fitness,
            "current fitness ci": confidence_interval(self.current.fitness),
        }

    def results(self) -> Iterator[Result]:
        """Each evaluation, in the order of their coming."""
        return _results(self.answers, self.number, self.began)

    def sentence(self) -> str:
        """The result with its uncertainty."""
        half = confidence_interval(self.current.fitness)
        return (
            f"final fitness {self.fitness:.2f} ± {half:.2f}"
            f" (95 % confidence, {len(self.current.fitness)} fresh episodes,"
            f" after {self.number} generations)"
        )


@dataclass(frozen=True, eq=False)
class Asked:
    """A generation whose candidates are known."""

    number: int
    theta: np.ndarray  # float32[dim], from which they were asked
    populations: list[Population]
    described: Population | None = None  # theta in fewer bytes, if there are

    def task(
        self, roles: Sequence[str], episodes: int, eval_episodes: int, seeding: Seeding
    ) -> list[Part]:
        """What is evaluated: the candidates, and theta itself."""
        named = zip(roles, self.populations, strict=False)
        parts = training_parts(self.number, list(named), episodes, seeding)
        theta: Population = Repeated(self.theta, eval_episodes)
        if isinstance(self.described, Lineages):
            theta = self.described.repeated(eval_episodes)
        return [*parts, Part(theta, seeding.evaluation(self.number, eval_episodes), THETA)]

    def state(self) -> dict[str, Any]:
        """All of it, for a checkpoint."""
        populations = [to_fields(each) for each in self.populations]
        described = to_fields(self.described) if self.described is not None else None
        own = {"number": self.number, "theta": self.theta, "described": described}
        return {**own, "populations": populations}

    @classmethod
    def restored(cls, state: dict[str, Any]) -> "Asked":
        populations = [from_fields(each) for each in state["populations"]]
        described = state.get("described")
        short = from_fields(described) if described else None
        return cls(state["number"], state["theta"], populations, short)


class History:
    """How far a run is, and what adds up over its generations."""

    def __init__(self) -> None:
        self.next_generation = 0
        self.steps, self.evaluations, self.best = 0, 0, -np.inf
        self.recent: deque[float] = deque(maxlen=STOP_WINDOW)  # "current fitness"
        self.began = time.monotonic()  # or would have, had it been at work without a break
        self._workers_seconds, self._head_began = 0.0, time.process_time()
        self.asked: list[Asked] = []  # generations whose evaluation has begun, the oldest first
        self.ended_by: str | None = None  # which limit, when it has ended

    @property
    def elapsed(self) -> float:
        """Seconds that the run has been at work, in however many sittings."""
        return time.monotonic() - self.began

    @property
    def core_seconds(self) -> float:
        """CPU time of the workers' evaluations, and all of this process's since the run began."""
        return self._workers_seconds + time.process_time() - self._head_began

    def count_work(self, answers: Sequence[Answer]) -> None:
        """Add the workers' part; what this process evaluates itself is in its CPU time."""
        of_others = (a for a in answers if a.workers != [HERE])
        self._workers_seconds += sum(float(a.cpu_seconds.sum()) for a in of_others)

    def times(self, seconds: float) -> dict[str, float]:
        """What a generation took, and all so far."""
        return {
            "time per gen": seconds,
            "total time elapsed": self.elapsed,
            "total core-seconds": self.core_seconds,
        }

    def ask(self, strategy: Strategy, seeding: Seeding, last: int) -> None:
        """Ask the generations up to ``last`` that have not been asked."""
        for number in range(self.next_generation + len(self.asked), last + 1):
            populations = strategy.ask(seeding.ask(number))
            short = strategy.described() if isinstance(strategy, DescribesItself) else None
            self.asked.append(Asked(number, strategy.theta, list(populations), short))

    def close(self, fitness: float) -> None:
        """A generation is over; this was the fitness of the theta from which it was asked."""
        self.recent.append(fitness)
        self.next_generation += 1

    def has_ended(self, limits: Limits) -> bool:
        """True if a limit is reached; ``ended_by`` then says which."""
        full = len(self.recent) == STOP_WINDOW
        self.ended_by = limits.reached(
            generations=self.next_generation,
            fitness=float(np.mean(self.recent)) if full else None,
            steps=self.steps,
            seconds=self.elapsed,
        )
        return self.ended_by is not None

    def state(self) -> dict[str, Any]:
        """All of it, for a checkpoint."""
        return {
            "next_generation": self.next_generation,
            "steps": self.steps,
            "evaluations": self.evaluations,
            "best": float(self.best),
            "recent": list(self.recent),
            "elapsed": self.elapsed,
            "core_seconds": self.core_seconds,
            "asked": [asked.state() for asked in self.asked],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.next_generation = state["next_generation"]
        self.steps, self.evaluations = state["steps"], state["evaluations"]
        self.best = state["best"]
        self.recent.extend(state["recent"])
        self.began = time.monotonic() - state["elapsed"]
        self._workers_seconds, self._head_began = state["core_seconds"], time.process_time()
        self.asked = [Asked.restored(each) for each in state["asked"]]


def evolve(
    strategy: Strategy,
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
    """Run ``generations`` rounds of ask, evaluate, tell; yield after each one.

    The caller owns the ``for``: log, save, stop early or print there.

    Args:
        episodes: played by each candidate; their mean return is its fitness.
        eval_episodes: played by theta itself beside its population.
        stop_fitness: end when "current fitness", averaged over the last 10 generations, is there.
        max_steps: end when the environment has made so many steps in all.
        max_hours: end when the run has been at work for so long.
        history: of a run that goes on; kept up to date, so that with the strategy's state it says
            at every yield how to go on.
        overlap: so many further generations are asked before a generation is told, so that workers
            need not wait for the slowest of each. A fixed rule: the result depends on it, and not
            on who works.
    """
    history = history or History()
    limits, submitted = Limits(generations, stop_fitness, max_steps, max_hours), 0
    rounds = Rounds(strategy, evaluator, episodes, seeding)
    while not history.has_ended(limits):
        started = time.monotonic()
        history.ask(strategy, seeding, min(history.next_generation + overlap, generations - 1))
        for asked in history.asked[submitted:]:
            evaluator.submit(asked.task(strategy.roles, episodes, eval_episodes, seeding))
        asked = history.asked.pop(0)
        submitted = len(history.asked)
        seen = rounds.gather(asked.number, asked.populations, submitted)
        history.count_work(seen.answers)
        diagnostics = strategy.tell(seen.populations, seen.told)
        seconds = time.monotonic() - started
        metrics = {
            "gen": float(asked.number),
            **measured(asked.theta, list(seen.by_role().values()), seen.current, history),
            **seen.metrics,
            **diagnostics,
            "steps/s": _steps(*seen.told, seen.current) / max(seconds, 1e-9),
            **history.times(seconds),
        }
        history.close(metrics["current fitness"])
        shown = seen.current, metrics, seen.answers, history.began, seen.named()
        yield Generation(asked.number, asked.theta, seen.by_role(), *shown)
    evaluator.discard()  # what was asked for generations that will not be


def assess(
    theta: np.ndarray,
    evaluator: Evaluator,
    *,
    number: int,
    episodes: int,
    seeding: Seeding,
    history: History | None = None,
) -> Final:
    """Play fresh episodes with the theta that ``number`` generations led to.

    Args:
        history: of the run, for the time of the results; None: this is all that there is.
    """
    history = history or History()
    part = Part(Repeated(theta, episodes), seeding.evaluation(number, episodes), THETA)
    (current,) = evaluator.evaluate([part])
    return Final(number, theta, current, evaluator.answers(), history.began)


def _results(answers: Sequence[Answer], number: int, began: float) -> Iterator[Result]:
    return (result for answer in answers for result in answer.results(number, began))


def confidence_interval(fitness: np.ndarray) -> float:
    """Half the width of the normal 95 % confidence interval of the mean; NaN below two values."""
    if len(fitness) < 2:
        return float("nan")
    return float(1.96 * fitness.std(ddof=1, dtype=np.float64) / np.sqrt(len(fitness)))


def _steps(*evaluations: Evaluations) -> int:
    return sum(int(each.steps.sum()) for each in evaluations)


def measured(
    theta: np.ndarray, all_told: Sequence[Evaluations], current: Evaluations, history: History
) -> dict[str, float]:
    told, *others = all_told
    fitness = told.fitness.astype(np.float64)
    current_fitness = float(current.fitness.mean(dtype=np.float64))
    history.steps += _steps(*all_told, current)
    history.evaluations += sum(len(each.fitness) for each in all_told)
    history.best = max(history.best, float(fitness.max()))
    workers, used = np.unique(
        np.concatenate([each.worker for each in (told, *others, current)]), return_counts=True
    )
    return {
        "current fitness": current_fitness,
        "current fitness ci": confidence_interval(current.fitness),
        "mean fitness": float(fitness.mean()),
        "best fitness": float(fitness.max()),
        "overall best fitness": history.best,
        "fitness st.dev": float(fitness.std()),
        "success rate": float((fitness > current_fitness).mean()),
        "mean episode length": float(told.steps.mean() / told.episodes),
        "mean steps per eval": float(told.steps.mean()),
        "total sim steps": float(history.steps),
        "total fitness evals": float(history.evaluations),
        "norm": float(np.linalg.norm(theta)),
        "genome length": float(len(theta)),
        "num unique workers": float(len(workers)),
        "worker used times": float(used.mean()),
        "time_to_eval": float(told.seconds.mean()),
    }
