"""What it costs to write out a genome, and to tell it, at any length.

    python benchmarks/genome.py [--quick] [--json FILE]

A *warm* worker has written the parents of a generation's parents: it adds once for each parent and
once for each child. A *cold* one starts from nothing, as one that has just come: it reads the
anchor out of the head's message and adds what follows, 64 mutations at most. G is the number of a
parent's mutations.

`replay` adds up the whole genome for each candidate, as ga-dist does; it is played in full.
IBM's and cshenton's systems draw the noise of each mutation anew from its seed: `redraw` does so
for a few mutations, and is counted as many times as the genome is long.
"""

import time

import numpy as np
from common import Row, machine, parser, show, take_turns, use_one_core, write_json

from cluster.wire import pack, unpack
from evolution.anchors import Anchors
from evolution.decoder import Decoder, Genome
from evolution.evaluation import Part
from evolution.exchange.messages import task_fields, task_parts
from evolution.noise import NoiseTable
from evolution.population import Lineages

NETWORKS = {  # units and weights into each, of every tensor
    "1.7 M": [(32, 256), (32, 0), (64, 512), (64, 0), (64, 576), (64, 0), (512, 3136), (512, 0)],
    "4.0 M": [(64, 256), (64, 0), (128, 1024), (128, 0), (128, 1152), (128, 0), (560, 6656)],
}
LENGTHS = (1, 10, 100, 1000)
TABLE = 25_000_000  # floats
SIGMA = 0.002
PARENTS, CHILDREN = 4, 25  # of each parent, as one of two workers meets them with 1,000 of 20
REDRAWN = 3  # mutations


def main() -> None:
    chosen = parser(__doc__).parse_args()
    print(machine())
    use_one_core()
    rounds = 3 if chosen.quick else 5
    rows = []
    with NoiseTable(TABLE, 1) as noise:
        for name, network in NETWORKS.items():
            rows += network_rows(noise, name, np.array(network), rounds, chosen.quick)
    show("milliseconds to write out one candidate, one thread, and bytes to tell a parent", rows)
    write_json(chosen.json, rows)


def network_rows(
    noise: NoiseTable, name: str, shapes: np.ndarray, rounds: int, quick: bool
) -> list[Row]:
    """Each length of genome, warm in turns and then cold, beside what a full replay takes."""
    generations = {length: Generation(noise, shapes, length, rounds) for length in LENGTHS}
    warm = take_turns({str(n): each.warm for n, each in generations.items()}, rounds)
    rows = []
    for length, generation in generations.items():
        milliseconds = 1e3 / warm.rate(str(length))
        replayed = 1e3 * replay(generation, noise, 100 if quick else length + 1)
        redrawn = 1e3 * redraw(generation.dim) * (length + 1)
        rows.append(
            {
                "parameters": name,
                "generation": length,
                "warm": round(milliseconds, 2),
                "warm_of_G1": round(1 / warm.ratio(str(length), "1"), 2),
                "cold": round(min(1e3 * generation.cold() for _ in range(rounds)), 1),
                "replay": round(replayed, 1),
                "redraw": round(redrawn),
                "times_replay": round(replayed / milliseconds, 1),
                "times_redraw": round(redrawn / milliseconds),
                "task_bytes": generation.task_bytes,
            }
        )
    return rows


class Generation:
    """Tasks as they reach a worker, each with new parents, and one who has followed so far."""

    def __init__(self, noise: NoiseTable, shapes: np.ndarray, length: int, tasks: int) -> None:
        self._noise, self.shapes = noise, shapes
        self._rng = np.random.default_rng(length)
        self.dim = int((shapes[:, 0] * np.maximum(shapes[:, 1], 1)).sum())
        shared = self._draw(length)
        self.genome: Genome = (*shared, *self._draw(1))
        anchors = Anchors(noise)
        self._messages: dict[str, bytes] = {}
        self._room = np.zeros((1, self.dim), np.float32)
        self._tasks = [self._posted(anchors, [self.genome])]
        for _ in range(tasks):
            parents = [(*shared, index) for index in self._draw(PARENTS)]
            self._tasks.append(self._posted(anchors, parents))
        self._worker = Decoder(noise, fetch=self._fetch)
        self._worker.write(shared, shapes, SIGMA)
        self._check()

    def _draw(self, count: int) -> list[int]:
        return self._noise.sample(self._rng, count, self.dim).tolist()

    def _posted(self, anchors: Anchors, parents: list[Genome]) -> Lineages:
        """A task of these parents' children, after its way over the wire."""
        population = Lineages(
            shapes=self.shapes,
            sigma=SIGMA,
            parents=np.array([index for genome in parents for index in genome]),
            lengths=np.array([len(genome) for genome in parents]),
            parent_of=np.repeat(np.arange(len(parents)), CHILDREN),
            mutations=np.array(self._draw(len(parents) * CHILDREN)),
        )
        seeds = np.zeros((len(population), 1), np.int64)
        (short,), supplies = anchors.abridged([Part(population, seeds)])
        for name in supplies.keys() - self._messages.keys():
            self._messages[name] = pack({"values": supplies[name]()})
        message = pack(task_fields([short], 1, 0.0, 1.0))
        self.task_bytes = len(message)
        told = task_parts(unpack(message))[0].population
        assert isinstance(told, Lineages)
        return told

    def _fetch(self, name: str) -> np.ndarray:
        """The anchor, read and checked as it came over the wire."""
        return unpack(self._messages[name])["values"]

    def _check(self) -> None:
        """The cold worker writes what a replay gives, to the last bit."""
        told = self._tasks[0]
        (theta,) = told.thetas([0], Decoder(self._noise, fetch=self._fetch))
        genome = (*self.genome, int(told.mutations[0]))
        assert theta.tobytes() == replayed(self._noise, genome, self.shapes).tobytes()

    def warm(self) -> float:
        """A worker's share of the next task; returns how many candidates that is."""
        told = self._tasks.pop()
        for row in range(len(told)):
            told.write([row], self._worker, self._room)
        return len(told)

    def cold(self) -> float:
        """Seconds until a new worker has its first candidate."""
        started = time.process_time()
        self._tasks[0].thetas([0], Decoder(self._noise, fetch=self._fetch))
        return time.process_time() - started


def replayed(noise: NoiseTable, genome: Genome, shapes: np.ndarray) -> np.ndarray:
    """All of a genome, one addition after the other: float32[dim]."""
    theta = Decoder(noise).ancestor(genome[0], shapes)
    for index in genome[1:]:
        theta = theta + np.float32(SIGMA) * noise.get(index, len(theta))
    return theta


def replay(generation: Generation, noise: NoiseTable, most: int) -> float:
    """Seconds that a replay takes; played up to so many indices, counted for all."""
    genome = generation.genome
    played = genome[:most]
    started = time.process_time()
    replayed(noise, played, generation.shapes)
    return (time.process_time() - started) * len(genome) / len(played)


def redraw(dim: int) -> float:
    """Seconds per mutation if its noise is drawn from its seed."""
    theta = np.zeros(dim, np.float32)
    started = time.process_time()
    for seed in range(REDRAWN):
        theta += SIGMA * np.random.RandomState(seed).randn(dim).astype(np.float32)
    return (time.process_time() - started) / REDRAWN


if __name__ == "__main__":
    main()
