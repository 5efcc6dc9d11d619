"""The survivors of a generation, as a NumPy file that needs no pickle.

It is read back without this program, too; here the file is one that a run with ``-F`` has left:

    import numpy as np

    d = np.load("Generation_12.npz")  # allow_pickle=False, as always
    best_score = d["scores"][-1]  # scores ascend: the best survivor is last
    best_genes = d["genes"][-1]  # its genome, int64[longest] ...
    best_genome = best_genes[: d["lengths"][-1]].tolist()  # ... without the -1 behind it
    elite_genome = d["genes"][d["order"][0]]  # whose score is the mean of fresh episodes
"""

import io
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evolution.decoder import Genome

FILE = re.compile(r"Generation_(\d+)\.npz")
NONE = -1  # behind the last index of a genome that is shorter than the longest


class SurvivorsError(ValueError):
    """A file that holds no survivors; the message is one line for the user."""


@dataclass(frozen=True)
class Survivors:
    """Who survived a generation, by ascending score: the best is last.

    In the file, which ``np.load`` opens, these are the arrays ``scores``, float64[n], ``genes``,
    int64[n, longest], with -1 behind shorter genomes, ``lengths`` and ``order``, int64[n],
    ``sigma`` and ``noise``.
    """

    scores: tuple[float, ...]  # of a child its mean return; of a champion over fresh episodes
    genomes: tuple[Genome, ...]
    order: tuple[int, ...]  # the rows as the algorithm ranks them: champions first
    sigma: float  # of the mutations
    noise: str  # fingerprint of the table that the indices point into

    @property
    def elite(self) -> Genome:
        """The first champion: its score was earned on fresh episodes, after generation 0."""
        return self.genomes[self.order[0]]

    def to_bytes(self) -> bytes:
        """The content of the file."""
        lengths = np.array([len(each) for each in self.genomes], np.int64)
        genes = np.full((len(lengths), lengths.max()), NONE, np.int64)
        for row, genome in zip(genes, self.genomes, strict=True):
            row[: len(genome)] = genome
        file = io.BytesIO()
        np.savez_compressed(
            file,
            scores=np.array(self.scores, np.float64),
            genes=genes,
            lengths=lengths,
            order=np.array(self.order, np.int64),
            sigma=np.array(self.sigma),
            noise=np.array(self.noise),
        )
        return file.getvalue()

    def ranked(self, rank: int) -> Genome:
        """The genome with the rank-th best score, from 1.

        Raises:
            SurvivorsError: there are not so many.
        """
        if not 1 <= rank <= len(self.genomes):
            raise SurvivorsError(f"rank {rank}: {len(self.genomes)} survivors, choose from 1")
        return self.genomes[-rank]


def file_name(generation: int) -> str:
    """What the file of a generation is called."""
    return f"Generation_{generation}.npz"


def genome_of(genes: np.ndarray) -> Genome:
    """The genome in a row of ``genes``: what comes before the first -1."""
    return tuple(int(index) for index in genes if index != NONE)


def read_survivors(source: Path | bytes, name: str = "") -> Survivors:
    """What ``to_bytes`` wrote, in tuples.

    Args:
        source: a file, or its content.
        name: what to call the content in an error.
    Raises:
        SurvivorsError: it is damaged, or none of ours.
    """
    name = name or str(source)
    try:
        file = io.BytesIO(source) if isinstance(source, bytes) else source
        with np.load(file, allow_pickle=False) as found:
            scores, genes, lengths = found["scores"], found["genes"], found["lengths"]
            genomes = tuple(map(genome_of, genes))
            order = tuple(found["order"].tolist())
            sigma, noise = float(found["sigma"]), str(found["noise"])
    except FileNotFoundError as error:
        raise SurvivorsError(f"{name}: no such file") from error
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise SurvivorsError(f"{name} holds no survivors of a generation: {reason}") from error
    rows = list(range(len(scores)))
    if [len(each) for each in genomes] != lengths.tolist() or sorted(order) != rows:
        raise SurvivorsError(f"{name} holds no survivors of a generation: its rows do not fit")
    return Survivors(tuple(scores.tolist()), genomes, order, sigma, noise)
