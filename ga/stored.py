"""A run of a genetic algorithm, read back from the store."""

from dataclasses import replace
from typing import Any

from pymongo.database import Database

from evolution.decoder import Genome
from evolution.problem import Problem, problem_of
from ga.genome_text import GenomeText, text_of
from ga.survivors import FILE, Survivors, read_survivors
from store.reader import ReadError, RunReader, listed


class StoredRun:
    """A run of the store whose survivors were kept.

    Attributes:
        problem: as the run had it, as far as this machine can play it.
    """

    def __init__(self, store: Database, run_id: int) -> None:
        """Read it.

        Raises:
            ReadError: there is no such run, or it is of another algorithm.
            ValueError: its environment or network cannot be made here.
        """
        self.reader = RunReader(store, run_id)
        if self.reader.name != "GA":
            raise ReadError(f"run {run_id} is of experiment {self.reader.name}: it has no genomes")
        self.problem = _problem(self.reader.config, self.reader.info)
        self.policy = self.problem.make_policy()
        matches = ((FILE.fullmatch(each.name), each) for each in self.reader.artifacts)
        self._files = {int(match[1]): each for match, each in matches if match}

    @property
    def generations(self) -> list[int]:
        """Those whose survivors were kept, ascending."""
        return sorted(self._files)

    def survivors(self, generation: int | None = None) -> Survivors:
        """Those of a generation; None: of the newest.

        Raises:
            ReadError: they were not kept; says which were.
            SurvivorsError: the file is damaged.
        """
        run = f"run {self.reader.id}"
        if not self._files:
            raise ReadError(f"{run} has kept no survivors, or not yet: see save_generations")
        number = max(self._files) if generation is None else generation
        if number not in self._files:
            there = listed(self._files, "generation")
            raise ReadError(f"{run} has no survivors of generation {number}; there {there}")
        artifact = self._files[number]
        return read_survivors(self.reader.load(artifact), f"{run}, {artifact.name}")

    def text(self, survivors: Survivors, genome: Genome) -> GenomeText:
        """One of its genomes, so that others can play it."""
        config, dim = self.reader.config, self.policy.num_params
        return replace(text_of(self.problem, config, survivors.noise, dim), genome=genome)


def _problem(config: dict[str, Any], info: dict[str, Any]) -> Problem:
    """What the run optimized, on the engine that it used."""
    problem = problem_of({**config, "engine": "gymnasium"})  # which every machine has
    problem = replace(problem, engine=info.get("engine", problem.engine))
    return replace(problem, versions=problem.versions_here())
