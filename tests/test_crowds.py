"""What the benchmarks of many workers measure, at a size that is quick."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parent.parent / "benchmarks"))

from head import ingest_row
from scaling import amdahl
from simulated import Crowd

pytestmark = pytest.mark.slow  # processes that come up, and generations that last


@pytest.mark.parametrize("crowd", [Crowd(1), Crowd(10), Crowd(2, 250)])
def test_a079_head_server_and_bytes_are_measured(crowd: Crowd) -> None:
    row = ingest_row(crowd, 2000, generations=2)
    assert row["workers"] == crowd.machines * crowd.workers
    assert row["results_per_head_second"] > 10_000
    assert row["server_ms"] < 500
    assert 8 < row["bytes_in"] < 200  # a fitness and a number of steps, at least
    assert row["bytes_out"] > 8


def test_a080_amdahls_law_is_found_again() -> None:
    rows = [
        {"workers": n, "generations_per_second": 1 / (0.25 + 12 / n)} for n in (1, 2, 10, 100, 1000)
    ]
    assert amdahl(rows) == pytest.approx((0.25, 12))


def test_a083_next_to_nothing_is_done_twice_if_all_is_well() -> None:
    """ga-dist spent 26 % of its workers' time on results that it threw away."""
    population, generations = 2000, 3
    row = ingest_row(Crowd(2, 50, seconds_per_step=0.0002), population, generations)
    assert row["skipped"] <= 0.01 * population
