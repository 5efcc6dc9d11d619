"""Clusters on AWS whose machines are booted: what they do, and what they may not."""

from collections.abc import Iterator

import pytest
from aws_moto import NOTHING, launch, manage
from commands import ROOT, run_here, setting, wait_until
from fake_cloud import Cloud, booting_cloud
from network import why_not

REASON = why_not() or ("" if (ROOT / ".git").exists() else "no git checkout")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(REASON), reason=REASON)]
LANDER = {"num_generations": 20, "noise_size": 200_000, "seed": 7, "pop_size": 8}
LANDER |= {"final_episodes": 3}


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    with booting_cloud(tmp_path_factory.mktemp("cloud")) as cloud:
        yield cloud


def test_a_cluster_runs_and_ends_by_itself(cloud: Cloud) -> None:
    config = " ".join(["lander", *setting(**LANDER)])
    options = ["--name=one", "--workers_per_machine=2", "-y", "--committed-only"]
    done = launch(*options, f"--config={config}")
    assert done.exit_code == 0, done.output
    wait_until(lambda: cloud.moto.everything() == NOTHING, cloud.logs)
    expected = run_here("lander", evaluator="local", **LANDER)
    said = manage("tail", "one", "-n", "100").output
    assert expected.info["theta sha256"] in said and " done\n" in said
