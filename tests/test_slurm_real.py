"""Runs on a real SLURM: to the end of the time and beyond it, without a node, and cancelled."""

import re
import signal
from collections.abc import Callable, Iterator

import pytest
from commands import ROOT, run_here, setting, wait_until
from paced import PACE
from sacred.run import Run
from slurm_real import HOW, RealSlurm, missing

from cluster.jobs import DONE, INTERRUPTED, JobFolder
from ga.experiment import ex as ga_experiment

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(missing()), reason=f"lacks {', '.join(missing())}; as root: {HOW}"),
]
LAUNCH, MANAGE = "cluster/launch.py", "cluster/manage.py"
COMMON = {
    **{"env_name": "paced:PacedSphere-v0", "hidden_sizes": [], "output_activation": "none"},
    **{"seed": 5, "noise_size": 50_000, "eval_episodes": 1, "final_episodes": 2},
}
ES = {**COMMON, "num_generations": 160, "pop_size": 2}  # of 0.2 s or more each
GA = {
    **{**COMMON, "num_generations": 30, "pop_size": 6, "n_parents": 3, "champions": 1},
    **{"n_elite_candidates": 1, "n_evals": 1},
}
ENDLESS = {**COMMON, "num_generations": 10_000_000, "pop_size": 2}


@pytest.fixture(scope="module")
def slurm() -> Iterator[RealSlurm]:
    with RealSlurm() as slurm:
        slurm.env |= {"PYTHONPATH": str(ROOT / "tests"), PACE: "0.1"}
        yield slurm


def launch(slurm: RealSlurm, name: str, config: dict[str, object], *words: str) -> JobFolder:
    said = f"--config={' '.join(setting(**config))}"
    common = ("launch", "--provider=slurm", "--cpus-per-node=1", "-y")
    slurm.run(LAUNCH, *common, f"--name={name}", said, *words)
    return slurm.job(name)


def generations(job: JobFolder) -> int:
    return max(map(int, re.findall(r"generation (\d+)/", job.said())), default=0)


def test_three_jobs_at_once(slurm: RealSlurm) -> None:
    """One is stopped by the time limit, one loses a node, one is cancelled; the rest is as ever."""
    timed = launch(slurm, "timed", ES, "--nodes=2", "--hours=0.01", "--warning-seconds=58")
    broken = launch(slurm, "broken", GA, "--nodes=3", "--experiment=ga")
    cancelled = launch(slurm, "cancelled", ENDLESS)
    wait_until(lambda: generations(broken) > 5, broken.said)
    assert "serves run" in (broken.path / "node_2.txt").read_text()
    slurm.kill_node("n3")
    slurm.start_node("n3")

    wait_until(lambda: generations(cancelled) > 0, cancelled.said)
    assert "running" in slurm.run(MANAGE, "list")
    assert "generation" in slurm.run(MANAGE, "tail", "cancelled")
    assert "cancelled has ended" in slurm.run(MANAGE, "kill", "cancelled", "-y")
    assert cancelled.status == INTERRUPTED

    wait_until(lambda: "Aborted" in timed.said(), timed.said)  # for a checkpoint
    slurm.say("scontrol", "update", f"JobId={timed.read()['job']}", "TimeLimit=60")
    wait_until(lambda: broken.status == DONE, broken.said)
    assert digest(broken) == expected(run_ga_here, GA)
    wait_until(lambda: timed.status == DONE, timed.said)
    assert digest(timed) == expected(run_here, ES)
    assert "timed: requeued" in said(timed) and "timed: done" in said(timed)
    wait_until(lambda: not slurm.say("squeue", "--noheader"), "an empty queue")
    wait_until(lambda: not slurm.strangers(), slurm.processes())


def said(job: JobFolder) -> str:
    """What its program on the first node has said."""
    return (job.path / "slurm.txt").read_text()


def digest(job: JobFolder) -> str:
    (found,) = re.findall(r"^theta sha256 (\w+)$", job.said(), re.MULTILINE)
    return found


def expected(run: Callable[..., Run], config: dict[str, object]) -> str:
    return run(evaluator="local", **config).info["theta sha256"]


def run_ga_here(**config: object) -> Run:
    handler = signal.getsignal(signal.SIGTERM)
    try:
        return ga_experiment.run(config_updates=config, options={"--unobserved": True})
    finally:
        signal.signal(signal.SIGTERM, handler)


def test_more_nodes_than_there_are_is_refused(slurm: RealSlurm) -> None:
    words = ("--nodes=9", "--config=sphere", "-y")
    command = slurm.start(LAUNCH, "launch", "--provider=slurm", *words)
    assert command.end() == 1
    assert "--nodes=9: partition debug has 3" in command.err
    assert not (slurm.jobs / "sphere").exists()
