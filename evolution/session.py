"""A run of any experiment: everything is opened, kept and closed around the visible loop.

with Session(run, config, checked_config(config), make_strategy) as session:
    for generation in session.generations():
        session.record(generation)
    return session.finish()
"""

import contextlib
import secrets
import sys
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from redis import RedisError

from cluster.clients import AnotherHeadError
from cluster.keys import who
from cluster.redis_server import ServerError
from evolution.decoder import Decoder
from evolution.exchange.lookout import WorkerFailure
from evolution.loop import Generation, History, assess, evolve
from evolution.noise import NoiseTable
from evolution.playback.show import show_episode
from evolution.problem import Problem
from evolution.seeding import Seeding
from evolution.settings import RunSettings
from evolution.simulator import EpisodeError
from evolution.strategy import Strategy
from evolution.workplace import open_workplace
from policy.base import Policy
from store.experiment import RunError, end_on_sigterm, in_one_line
from store.keeper import Restorable, RunKeeper
from store.recorder import SacredRecorder
from store.results import Listing
from utils.progress import Progress

if TYPE_CHECKING:
    from sacred.run import Run

MakeStrategy = Callable[[Mapping[str, Any], Policy, NoiseTable, Seeding], Strategy]
EXPECTED = ServerError, RedisError, AnotherHeadError, WorkerFailure, EpisodeError


class Session:
    """What a run needs, from its first generation or last checkpoint to its end."""

    def __init__(
        self,
        run: "Run",
        config: Mapping[str, Any],
        checked: tuple[RunSettings, Problem],
        make_strategy: MakeStrategy,
    ) -> None:
        """Prepare a run.

        Args:
            checked: what the config says, after all its values have been looked at.
            make_strategy: makes the algorithm, when workers have been started.
        """
        self._run, self._config, self._make_strategy = run, config, make_strategy
        self._settings, self._problem = checked
        self._history, self._seeding = History(), self._settings.seeding()
        self._open = contextlib.ExitStack()

    def __enter__(self) -> "Session":
        end_on_sigterm()
        with contextlib.ExitStack() as opening:
            opening.enter_context(in_one_line(RunError, *EXPECTED))
            self._begin(opening)
            self._open = opening.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        return self._open.__exit__(kind, error, trace)

    def _begin(self, opening: contextlib.ExitStack) -> None:
        settings, problem, run = self._settings, self._problem, self._run
        run.info.update({"head": who(), **problem.described()})
        workplace = opening.enter_context(open_workplace(settings, problem.engine))
        noise = opening.enter_context(settings.noise_table())
        self._decoder = Decoder(noise)
        policy = problem.make_policy()
        self._strategy = self._make_strategy(self._config, policy, noise, self._seeding)
        period, log_evaluations = settings.serialization_period, self._config["log_evaluations"]
        self._recorder = SacredRecorder(run, policy, period, log_evaluations)
        run_id = f"{run._id or 'unobserved'}-{secrets.token_hex(4)}"
        how = settings.min_task_runtime, settings.audit
        self._evaluator = opening.enter_context(workplace.evaluator(problem, noise, run_id, *how))
        parts: dict[str, Restorable] = {
            "strategy": self._strategy,
            "history": self._history,
            "recorder": self._recorder,
        }
        keeper = RunKeeper(run, parts, every=settings.checkpoint_every)
        self._keeper = opening.enter_context(keeper)
        opening.enter_context(self._recorder)
        first = self._history.next_generation
        progress = Progress(settings.num_generations, "generation", first)
        self._progress = opening.enter_context(progress)

    @property
    def strategy(self) -> Strategy:
        """The algorithm, as it is after the last generation."""
        return self._strategy

    def keep(self, name: str, data: bytes) -> None:
        """Keep a file with the run; before ``record``, so that no run that goes on lacks it."""
        self._recorder.keep(name, data)

    def keep_candidate(self, generation: Generation) -> None:
        """Keep a generation's best candidate, if none before was as good; before ``record``."""
        (_, population), fitness = generation.asked[0], generation.population.fitness
        row, group = int(fitness.argmax()), population.group
        (theta,) = population.thetas([row], self._decoder)
        pieces, episodes = len(population) // group, self._settings.num_episodes
        played = self._seeding.training(generation.number, pieces, episodes)[row // group]
        self._recorder.keep_candidate(theta, generation.number, float(fitness[row]), played)

    def list_as(self, listing: Listing) -> None:
        """Write evaluations down in another way; to be said before the first generation."""
        self._recorder.list_as(listing)

    def generations(
        self, loop: Callable[..., Iterator[Generation]] | None = None
    ) -> Iterator[Generation]:
        """Those that are left, each when it has been evaluated and learnt from.

        Args:
            loop: what asks and tells the algorithm, with the arguments of `evolve`; None: that.
        """
        settings = self._settings
        return (loop or evolve)(
            self._strategy,
            self._evaluator,
            generations=settings.num_generations,
            episodes=settings.num_episodes,
            eval_episodes=settings.eval_episodes,
            seeding=self._seeding,
            stop_fitness=settings.stop_fitness,
            max_steps=settings.n_tsteps,
            max_hours=settings.max_hours,
            history=self._history,
            overlap=settings.overlap,
        )

    def record(self, generation: Generation) -> None:
        """Log it, save what is due, and show it if that is wanted."""
        self._recorder.record(generation, self._strategy.theta)
        self._keeper.settle(self._history.next_generation)
        self._progress.advance(generation.shown())
        if self._config["render"] and self._recorder.is_due(generation.number):
            seed, sleep = self._config["seed"], self._config["sleep"]
            show_episode(self._problem, generation.theta, seed, sleep)

    def finish(self) -> float:
        """Judge the last theta, and say how good it is: its mean return on fresh episodes."""
        final = assess(
            self._strategy.theta,
            self._evaluator,
            number=self._history.next_generation,
            episodes=self._settings.final_episodes,
            seeding=self._seeding,
            history=self._history,
        )
        digest = self._recorder.finish(final)
        self._progress.close()
        ended_by = self._run.info["ended by"] = self._history.ended_by
        said = f"ended by {ended_by}", final.sentence(), f"theta sha256 {digest}"
        sys.stdout.write("\n".join([*said, ""]))
        return final.fitness
