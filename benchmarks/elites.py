"""How honest the score of an elite is: what is reported against what is true.

    python benchmarks/elites.py [--quick] [--json FILE]

A toy whose truth is known: a mutation adds a normal number (st.dev. 0.3) to the true mean of its
parent, and each evaluation a normal error (st.dev. 5). Three rules report a score of the best
individual so far, in each generation of many runs:

- `lucky champion`: the best single score ever seen, kept with its owner, as IBM's and cshenton's
  systems keep it;
- `best of means`: the best of 10 candidates by their mean of 30 evaluations, and that mean;
- `ours`: the same elite, by 30 evaluations of the next generation, which did not choose it.

Bias is the mean of reported minus true over runs, with its 95 % interval. `inside` is the share of
reports whose own 95 % interval holds the true mean: 0.95 if they are honest.
"""

import numpy as np
from common import Row, machine, parser, show, write_json

from evolution.evaluation import Evaluations
from evolution.noise import NoiseTable
from evolution.population import Lineages
from ga.deep_ga import DeepGA

SHAPES = np.array([[1, 1]])
STEP, ERROR = 0.3, 5.0  # standard deviations, of a mutation's worth and of one evaluation
SIZES = {"pop_size": 100, "n_parents": 20, "champions": 3, "n_elite_candidates": 10, "n_evals": 30}
GENERATIONS, FIRST = 20, 3  # generations of a run, and the first that counts
RULES = "lucky champion", "best of means", "ours"


def main() -> None:
    chosen = parser(__doc__).parse_args()
    print(machine())
    runs = 20 if chosen.quick else 200
    with NoiseTable(1_000_000, 1) as noise:
        found = [Toy(noise, seed).run() for seed in range(runs)]
    rows = [row(rule, np.array([each[rule] for each in found])) for rule in RULES]
    show(f"the score of the elite, {runs} runs of {GENERATIONS} generations", rows)
    write_json(chosen.json, rows)


def row(rule: str, reports: np.ndarray) -> Row:
    """One line of the table.

    Args:
        reports: float64[runs, generations, 2], reported and true.
    """
    errors = reports[..., 0] - reports[..., 1]
    of_runs = errors.mean(axis=1)
    interval = 1.96 * of_runs.std(ddof=1) / np.sqrt(len(of_runs))
    half = 1.96 * ERROR / np.sqrt(1 if rule == RULES[0] else SIZES["n_evals"])
    return {
        "rule": rule,
        "bias": round(float(of_runs.mean()), 3),
        "interval": round(float(interval), 3),
        "unbiased": str(bool(abs(of_runs.mean()) <= interval)),
        "inside": round(float((abs(errors) <= half).mean()), 3),
        "true_at_the_end": round(float(reports[:, -1, 1].mean()), 2),
    }


class Toy:
    """One run of the algorithm on genomes whose true means are known."""

    def __init__(self, noise: NoiseTable, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._truth: dict[tuple[int, ...], float] = {}
        self._ga = DeepGA(SHAPES, noise, sigma=0.1, **SIZES)

    def run(self) -> dict[str, list[tuple[float, float]]]:
        """What each rule reported, and what was true, generation by generation."""
        found: dict[str, list[tuple[float, float]]] = {rule: [] for rule in RULES}
        lucky = -np.inf, 0.0
        for number in range(GENERATIONS):
            before = self._ga.elite
            asked = self._ga.ask(self._rng)
            truths = [self._true(each) for each in asked]
            told = [self._evaluated(each) for each in truths]
            best = int(told[0].fitness.argmax())
            lucky = max(lucky, (float(told[0].fitness[best]), float(truths[0][best])))
            metrics = self._ga.tell(asked, told)
            if number < FIRST:
                continue
            assert before is not None
            assert self._ga.elite is not None
            now = self._truth[self._ga.elite.genome]
            found["lucky champion"].append(lucky)
            found["best of means"].append((metrics["elite score when chosen"], now))
            found["ours"].append((metrics["elite score"], self._truth[before.genome]))
        return found

    def _true(self, population: Lineages) -> np.ndarray:
        return np.array([self._mean(population.genome(row)) for row in range(len(population))])

    def _mean(self, genome: tuple[int, ...]) -> float:
        if genome not in self._truth:
            parent = self._truth.get(genome[:-1], 0.0)
            self._truth[genome] = parent + self._rng.normal(0, STEP)
        return self._truth[genome]

    def _evaluated(self, means: np.ndarray) -> Evaluations:
        fitness = (means + self._rng.normal(0, ERROR, len(means))).astype(np.float32)
        ones = np.ones(len(means), np.int64)
        return Evaluations(fitness, ones, ones, ones.astype(np.float32), 1)


if __name__ == "__main__":
    main()
