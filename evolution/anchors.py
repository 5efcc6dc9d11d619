"""Genomes told by an ancestor that the head has written out, and the few indices after it.

A worker that comes late therefore adds up 64 mutations at most, however long genomes have become,
and a task says as little of a genome at generation 1,000 as at generation 100.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from evolution.decoder import Decoder, Names, anchor_length, root_name
from evolution.evaluation import Part
from evolution.noise import NoiseTable
from evolution.population import Lineages

Supplies = dict[str, Callable[[], np.ndarray]]  # names of anchors: what writes them out


class Anchors:
    """The head's: each new anchor costs it 32 additions, since it goes on from an older one."""

    def __init__(self, noise: NoiseTable) -> None:
        self._decoder = Decoder(noise)

    def abridged(self, parts: Sequence[Part]) -> tuple[list[Part], Supplies]:
        """The same task in short, and the anchors that it names."""
        supplies: Supplies = {}
        short = [
            replace(part, population=self._abridged(part.population, supplies))
            if isinstance(part.population, Lineages)
            else part
            for part in parts
        ]
        return short, supplies

    def _abridged(self, population: Lineages, supplies: Supplies) -> Lineages:
        shapes, sigma = population.shapes, population.sigma
        root = root_name(shapes, sigma)
        anchors, rests = [], []
        for number in range(len(population.lengths)):
            genome = population.parent(number)
            end = anchor_length(len(genome))
            rests.append(genome[end:])
            anchors.append(Names(genome[:end], root).at(end) if end else "")
            if end:
                write = partial(self._decoder.write, genome[:end], shapes, sigma)
                supplies.setdefault(anchors[-1], write)
        return replace(
            population,
            parents=np.array([index for rest in rests for index in rest], np.int64),
            lengths=np.array([len(rest) for rest in rests], np.int64),
            anchors=anchors,
        )
