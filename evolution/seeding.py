"""Every random number of a run, drawn from its one seed and keyed by generation."""

from dataclasses import dataclass

import numpy as np

# Environment seeds of evaluation never occur in training: the two halves of the 31 bits that
# every engine accepts.
TRAINING = (0, 1 << 30)
EVALUATION = (1 << 30, 1 << 31)

_INIT, _ASK, _TRAIN, _EVALUATE = range(4)


@dataclass(frozen=True)
class Seeding:
    """The generators of a run.

    Attributes:
        seed: of the run.
        env_seed: -1 fresh environment seeds for every piece; None one set per generation, the
            same for all; a number: always the same set, episode k has seed ``env_seed + k``.
    """

    seed: int
    env_seed: int | None = -1

    def __post_init__(self) -> None:
        value = self.env_seed
        if value is not None and not -1 <= value < TRAINING[1] - 1_000_000:
            raise ValueError(
                f"env_seed={value}: choose -1 (fresh for every pair), None (one set per"
                f" generation) or a number from 0 to {TRAINING[1] - 1_000_000}"
            )

    def init(self) -> np.random.Generator:
        """For the first theta."""
        return self._generator(_INIT)

    def ask(self, generation: int, again: int = 0) -> np.random.Generator:
        """For the candidates of a generation; ``again``: how often it was asked before."""
        return self._generator(_ASK, generation, again)

    def training(self, generation: int, pieces: int, episodes: int, which: int = 0) -> np.ndarray:
        """Environment seeds of a generation's populations: int64[pieces, episodes].

        Args:
            which: of the populations.
        """
        shape = (pieces, episodes)
        if self.env_seed is not None and self.env_seed >= 0:
            return np.broadcast_to(self.env_seed + np.arange(episodes), shape)
        generator = self._generator(_TRAIN, generation, which)
        if self.env_seed is None:
            return np.broadcast_to(generator.integers(*TRAINING, episodes), shape)
        return generator.integers(*TRAINING, shape)

    def evaluation(self, generation: int, episodes: int) -> np.ndarray:
        """Environment seeds on which a theta is judged, one episode a row: int64[episodes, 1]."""
        return self._generator(_EVALUATE, generation).integers(*EVALUATION, (episodes, 1))

    def _generator(self, purpose: int, generation: int = 0, which: int = 0) -> np.random.Generator:
        key = (purpose, generation, which) if which else (purpose, generation)
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=key))
