"""Every algorithm gives the same bits wherever its candidates are evaluated; Ray: `test_ray`."""

from collections.abc import Iterator

import pytest
from algorithms import EXPERIMENTS, found, found_alone
from machines import Site

pytestmark = pytest.mark.slow  # workers that are programs, which take seconds to start


@pytest.fixture(scope="module")
def two_machines() -> Iterator[Site]:
    """A head's server, and two machines that reach it over TCP: a relay and a worker each."""
    with Site() as site:
        for machine in [site.machine(1), site.machine(1)]:
            machine.works()
        yield site


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a095_several_machines_find_what_one_process_finds(
    name: str, two_machines: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVO_REDIS", two_machines.url)
    assert found(name, evaluator="redis", local=False) == found_alone(name)
    assert two_machines.alive() == 2


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a018_workers_find_what_one_process_finds(name: str, count: int) -> None:
    assert found(name, evaluator="redis", num_workers=count) == found_alone(name)


def test_the_algorithms_differ() -> None:
    assert len({found_alone(name) for name in EXPERIMENTS}) == len(EXPERIMENTS)
