"""What a run of a genetic algorithm leaves behind, beside what every run does."""

from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import replace
from typing import Any

from evolution.loop import Generation
from evolution.problem import Problem
from ga.deep_ga import DeepGA, Individual
from ga.genome_text import text_of
from ga.listing import GenomeListing
from ga.report import report
from ga.survivors import Survivors, file_name

ELITE = "EliteGenome"  # ga-dist's name, in the run's info: text, as ga/genome.py prints it


class Outputs:
    """Files of survivors, the elite's genome as text, and metrics under ga-dist's names.

    Attributes:
        listing: how evaluations are written down.
    """

    def __init__(
        self,
        ga: DeepGA,
        keep: Callable[[str, bytes], None],
        info: MutableMapping[str, Any],
        config: Mapping[str, Any],
        problem: Problem,
    ) -> None:
        """Of a run that begins or goes on.

        Args:
            keep: keeps a file of that name and content.
            info: of the run.
        """
        self._ga, self._keep, self._info = ga, keep, info
        self._period, self._n_evals = int(config["save_generations"]), config["n_evals"]
        self._last = config["num_generations"] - 1
        self.listing = GenomeListing(ga, config["overlap"])
        self._text = text_of(problem, config, ga.noise.fingerprint, len(ga.theta))

    def add(self, generation: Generation) -> Generation:
        """Keep what is due of a generation that was just learnt from.

        Returns:
            The same with all metrics.
        """
        elite, number = self._ga.elite, generation.number
        assert elite is not None
        self.listing.note(generation)
        self._info[ELITE] = str(replace(self._text, genome=elite.genome))
        if self._period and (number % self._period == 0 or number == self._last):
            self._keep(file_name(number), survivors_of(self._ga).to_bytes())
        metrics = generation.metrics | report(generation, self._n_evals)
        return replace(generation, metrics=metrics)


def survivors_of(ga: DeepGA) -> Survivors:
    """Those of an algorithm that has been told a generation, by ascending score."""
    found: tuple[Individual, ...] = ga.survivors
    scores = [each.score for each in found]
    ascending = sorted(reversed(range(len(found))), key=scores.__getitem__)  # the elite above ties
    return Survivors(
        scores=tuple(scores[place] for place in ascending),
        genomes=tuple(found[place].genome for place in ascending),
        order=tuple(ascending.index(place) for place in range(len(found))),
        sigma=ga.sigma,
        noise=ga.noise.fingerprint,
    )
