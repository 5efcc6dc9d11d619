"""A policy to play with, of a run or from a file, and what is known about it."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evolution.playback.policy_file import CONFIG_KEYS, INFO_KEYS, PolicyFile, PolicyFileError
from evolution.problem import Problem, problem_of
from evolution.seeding import Seeding
from store.reader import ReadError, RunReader, SavedPolicy
from store.recorder import theta_sha256

if TYPE_CHECKING:
    from pymongo.database import Database

RECORDED = "recorded"  # the engine that the run was evaluated on


@dataclass(frozen=True)
class Logged:
    """What the run itself found out about the policy."""

    fitness: float  # the metric "current fitness" of its generation
    seeds: np.ndarray  # int64[episodes], whose mean return it is
    of_candidate: bool = False  # "overall best fitness" instead, of episodes of training


@dataclass(frozen=True, eq=False)
class Subject:
    """A saved policy, and all it takes to play with it."""

    label: str  # with which names of films begin
    title: str  # where it comes from, in brackets how the run stands
    origin: str  # the same for a file to say
    name: str  # what it is called there
    generation: int | None  # None: not known
    config: dict[str, Any]
    info: dict[str, Any]
    problem: Problem
    theta: np.ndarray  # float32[dim]
    logged: Logged | None

    def write(self, path: Path) -> None:
        """Put all of it into one text file.

        Raises:
            PolicyFileError: it cannot be written.
        """
        logged = self.logged if self.logged and not self.logged.of_candidate else None
        PolicyFile(
            origin=self.origin,
            name=self.name,
            generation=self.generation,
            config={key: ({"env_kwargs": {}} | self.config)[key] for key in CONFIG_KEYS},
            info={key: self.info[key] for key in INFO_KEYS if key in self.info},
            fitness=None if logged is None else logged.fitness,
            seeds=np.empty(0, np.int64) if logged is None else logged.seeds,
            theta=self.theta,
        ).write(path)


def subject_of_run(
    store: "Database",
    run_id: int,
    generation: int | None,
    best: bool,
    engine: str = RECORDED,
    *,
    candidate: bool = False,
) -> Subject:
    """A policy that a run has stored.

    Args:
        generation: of the policy; None: the newest.
        best: take the best one instead.
        engine: on which it is to play.
        candidate: take the candidate with the overall best fitness instead.
    Raises:
        ReadError: there is no such run or policy.
        ValueError: the run's environment or network cannot be made here.
    """
    run = RunReader(store, run_id)
    policy = run.policy(generation, best, candidate)
    try:
        problem = _problem(run.config, run.info, engine)
        logged = _logged(run, policy)
    except KeyError as error:
        raise ReadError(f"run {run_id} has no config key {error}: no experiment of ours") from error
    theta = problem.make_policy().theta_from_state_dict(policy.state_dict)
    generation = policy.generation
    if policy.digest is not None and policy.digest != theta_sha256(theta):
        # The run has stored another one since it wrote its notes.
        logged, generation = None, None
    return Subject(
        label=str(run_id),
        title=f"run {run_id} ({run.name}, {run.status})",
        origin=f"run {run_id}, {run.name}",
        name=policy.name,
        generation=generation,
        config=run.config,
        info=run.info,
        problem=problem,
        theta=theta,
        logged=logged,
    )


def subject_of_file(path: Path, engine: str = RECORDED) -> Subject:
    """The policy in a text file; needs no store.

    Raises:
        PolicyFileError: it holds none.
        ValueError: its environment or network cannot be made here.
    """
    file = PolicyFile.read(path)
    problem = _problem(file.config, file.info, engine)
    needed = problem.make_policy().num_params
    if len(file.theta) != needed:
        raise PolicyFileError(
            f"{path} holds {len(file.theta)} parameters, its network needs {needed}"
        )
    return Subject(
        label=path.stem,
        title=f"{path} ({file.origin})",
        origin=file.origin,
        name=file.name,
        generation=file.generation,
        config=file.config,
        info=file.info,
        problem=problem,
        theta=file.theta,
        logged=None if file.fitness is None else Logged(file.fitness, file.seeds),
    )


def _problem(config: dict[str, Any], info: dict[str, Any], engine: str) -> Problem:
    """What the run optimized, as this machine can play it."""
    if engine == RECORDED and "engine" not in info:  # its first notes are still to come
        return problem_of({"engine": "auto", **config})
    engine = info["engine"] if engine == RECORDED else engine
    problem = problem_of({**config, "engine": "gymnasium"})  # which every machine has
    problem = replace(problem, engine=engine)
    return replace(problem, versions=problem.versions_here())


def _logged(run: RunReader, policy: SavedPolicy) -> Logged | None:
    """The evaluation of the policy's generation; None if there was none, or not yet."""
    if {"fitness", "environment seeds"} <= set(policy.noted):
        played = np.array(policy.noted["environment seeds"], np.int64)
        return Logged(policy.noted["fitness"], played, of_candidate=True)
    metrics, config = run.metrics(), run.config
    current = metrics.get("current fitness")
    if policy.generation is None or current is None or policy.generation not in current.steps:
        return None
    # The theta after the last generation has no population, and was judged on more episodes.
    asked = policy.generation in metrics["mean fitness"].steps
    episodes = config["eval_episodes" if asked else "final_episodes"]
    seeds = Seeding(config["seed"]).evaluation(policy.generation, episodes)[:, 0]
    return Logged(float(current.values[current.steps == policy.generation][0]), seeds)
