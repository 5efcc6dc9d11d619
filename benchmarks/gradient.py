"""The gradient against memory, and what it takes to make a noise table.

    python benchmarks/gradient.py [--quick] [--json FILE]

`NoiseTable.weighted_sum` reads every perturbation of a population once. The table counts
4 · slices · dim bytes for that, and compares with how fast one thread reads memory at best: the
best of several readings of an array far larger than the caches, in each of three ways.

`batched_weighted_sum` is distributed_es's: slices are copied into matrices of 500 rows, which are
multiplied with their weights.
"""

import os
import time
from collections.abc import Callable

import numpy as np
import torch
from common import Row, machine, parser, show, take_turns, use_one_core, write_json

from evolution.noise import NoiseTable

SLICES = 1000
DIMS = (10_000, 1_000_000)
TABLE = 25_000_000  # floats
BATCH = 500
BIG = 100_000_000  # floats, read to measure the bandwidth


def main() -> None:
    chosen = parser(__doc__).parse_args()
    print(machine())
    creation = table_rows((TABLE,) if chosen.quick else (TABLE, 10 * TABLE))
    show("making a noise table, all cores", creation)
    use_one_core()
    rounds = 3 if chosen.quick else 7
    bandwidth = read_bandwidth(3 * rounds)
    print(f"\none thread reads {bandwidth / 1e9:.1f} GB/s")
    with NoiseTable(TABLE, 1) as noise:
        rows = [gradient_row(noise, dim, bandwidth, rounds) for dim in DIMS]
    show(f"gradient, one thread, {SLICES} slices of a table of {TABLE / 1e6:.0f} M floats", rows)
    write_json(chosen.json, rows + creation)


def read_bandwidth(rounds: int) -> float:
    """Bytes per second that one thread reads: the best of some rounds of three ways."""
    array = np.ones(BIG, np.float32)
    tensor, half = torch.from_numpy(array), BIG // 2
    ways: tuple[Callable[[], object], ...] = (
        lambda: np.dot(array[:half], array[half:]),
        lambda: torch.sum(tensor),
        lambda: np.max(array),
    )
    best = float("inf")
    for _ in range(rounds):
        for read in ways:
            started = time.process_time()
            read()
            best = min(best, time.process_time() - started)
    return array.nbytes / best


def gradient_row(noise: NoiseTable, dim: int, bandwidth: float, rounds: int) -> Row:
    """Time both ways in turns on the same slices."""
    rng = np.random.default_rng(dim)
    weights = rng.standard_normal(SLICES, dtype=np.float32)
    indices = noise.sample(rng, SLICES, dim)
    ours = noise.weighted_sum(weights, indices, dim)
    theirs = batched_weighted_sum(weights, indices, dim, noise)
    assert np.allclose(ours, theirs, atol=1e-3 * np.abs(theirs).max())
    counted, repeats = 4.0 * SLICES * dim, max(1, 50_000 // dim)

    def sum_ours() -> float:
        for _ in range(repeats):
            noise.weighted_sum(weights, indices, dim)
        return counted * repeats

    def sum_theirs() -> float:
        batched_weighted_sum(weights, indices, dim, noise)
        return counted

    found = take_turns({"ours": sum_ours, "batched_weighted_sum": sum_theirs}, rounds)
    return {
        "task": "gradient",
        "dim": dim,
        "slices": SLICES,
        "milliseconds": round(1e3 * counted / found.rate("ours"), 3),
        "of_bandwidth": round(found.rate("ours") / bandwidth, 3),
        "times_batched_weighted_sum": round(found.ratio("ours", "batched_weighted_sum"), 2),
    }


def batched_weighted_sum(
    weights: np.ndarray, indices: np.ndarray, dim: int, noise: NoiseTable
) -> np.ndarray:
    """The way of GoodAI's distributed_es: float32[dim]."""
    total = np.zeros(dim, np.float32)
    for start in range(0, len(weights), BATCH):
        batch = slice(start, start + BATCH)
        slices = [noise.get(int(index), dim) for index in indices[batch]]
        total += np.dot(weights[batch], np.array(slices))
    return total


def table_rows(sizes: tuple[int, ...]) -> list[Row]:
    """How long the first and the second holder of a table wait."""
    rows = []
    for size in sizes:
        seed = 1_000_000_000 + os.getpid()  # a table that nobody else holds
        started = time.perf_counter()
        with NoiseTable(size, seed):
            made = time.perf_counter()
            with NoiseTable(size, seed):
                attached = time.perf_counter()
        rows.append(
            {
                "task": "noise table",
                "floats": size,
                "seconds_to_make": round(made - started, 3),
                "seconds_to_attach": round(attached - made, 4),
            }
        )
    return rows


if __name__ == "__main__":
    main()
