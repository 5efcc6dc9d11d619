"""The noise of Gaussian outputs: one stream per lane, set by the seed of its episode."""

import numpy as np

BLOCK = 32  # steps drawn at a time: one call of a generator costs about as much as 32 numbers
STREAM = 0x6E6F697365  # keeps these streams apart from others that begin at the same seed


class LaneNoise:
    """Standard normal noise that depends on the episode's seed and the step alone."""

    def __init__(self, outputs: int) -> None:
        self._outputs = outputs
        self.load(0)

    def load(self, lanes: int) -> None:
        """Serve `lanes` lanes, each at the beginning of the stream of seed 0."""
        self._drawn = np.zeros((lanes, BLOCK, self._outputs), np.float32)
        self._steps = np.zeros(lanes, np.int64)
        self._seeds = np.zeros(lanes, np.uint64)
        self._generators: dict[int, np.random.Generator] = {}

    def reset(self, lanes: np.ndarray, seeds: np.ndarray | None) -> None:
        """Begin the streams of these lanes: int64[n] lanes, int64[n] seeds (None: all 0)."""
        self._steps[lanes] = 0
        self._seeds[lanes] = 0 if seeds is None else np.asarray(seeds, np.int64).astype(np.uint64)

    def draw(self, lanes: np.ndarray) -> np.ndarray:
        """Draw the next step's float32[n, outputs] of these lanes."""
        steps = self._steps[lanes]
        within = steps % BLOCK
        for lane in lanes[steps == 0].tolist():
            sequence = np.random.SeedSequence((int(self._seeds[lane]), STREAM))
            self._generators[lane] = np.random.Generator(np.random.SFC64(sequence))
        for lane in lanes[within == 0].tolist():
            self._generators[lane].standard_normal(dtype=np.float32, out=self._drawn[lane])
        self._steps[lanes] = steps + 1
        return self._drawn[lanes, within]
