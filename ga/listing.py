"""Every evaluation of a run with its genome, under ga-dist's names."""

from collections.abc import Sequence

import numpy as np

from evolution.decoder import Genome
from evolution.loop import THETA, Generation
from evolution.population import Lineages, Population
from ga.deep_ga import DeepGA
from store.results import Result

REMEMBERED = 100  # generations whose late results are known for what they are


class GenomeListing:
    """How the evaluations of a genetic algorithm are written down; see `store.results.Listing`.

    A generation is one task, so "worker_gen" and "worker_task_id" are the generation for which an
    evaluation was asked; "master_task_id" is the one in which it came.
    """

    columns: Sequence[str] = (
        *("worker_id", "noise_list", "ret", "n_steps", "n_seconds", "finish_time", "is_eval"),
        *("worker_gen", "worker_task_id", "master_task_id", "is_valid"),
        *("kind", "candidate", "episodes"),
    )

    def __init__(self, ga: DeepGA, overlap: int) -> None:
        """Of a run that begins or goes on.

        Args:
            overlap: generations that are asked ahead.
        """
        self._ga, self._overlap, self._number = ga, overlap, -1
        self._asked: dict[int, Sequence[tuple[str, Population]]] = {}
        self._elites: dict[int, Genome] = {}
        self._first = self._elite()

    def note(self, generation: Generation) -> None:
        """A generation has been learnt from: its evaluations are to come."""
        number = generation.number
        if not self._elites:
            self._elites[number - 1] = self._first
        self._number, self._elites[number] = number, self._elite()
        self._asked[number] = generation.asked
        for held in (self._asked, self._elites):
            held.pop(number - REMEMBERED, None)

    def cells(self, result: Result) -> Sequence[object]:
        """What stands in the columns."""
        generation, came = result.generation, max(self._number, result.generation)
        return (
            result.worker,
            "-".join(map(str, self._genome(result))),
            str(np.float32(result.fitness)),
            result.steps,
            f"{result.seconds:.6f}",
            f"{result.finished:.6f}",
            result.kind != self._ga.roles[0],
            *(generation, generation, came),
            result.valid,
            *(result.kind, result.candidate, result.episodes),
        )

    def _genome(self, result: Result) -> Genome:
        """Its genome; empty if it is not known any more."""
        if result.kind == THETA:
            asked_from = result.generation - 1 - self._overlap
            final = result.generation > self._number
            return self._elite() if final else self._elites.get(asked_from, ())
        number = result.candidate
        for role, population in self._asked.get(result.generation, ()):
            if role == result.kind and isinstance(population, Lineages):
                if number < len(population):
                    return population.genome(number)
                number -= len(population)  # of one role they are numbered through
        return ()

    def _elite(self) -> Genome:
        return () if self._ga.elite is None else self._ga.elite.genome
