"""What is promised of every provider, whatever its machines are."""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from commands import HAS_PROC, run_here, setting, wait_until
from slurm_real import HOW, RealSlurm, missing
from slurm_stub import StubSlurm

from cluster.providers import (
    CLOUDS,
    PROVIDERS,
    Change,
    CloudPlan,
    Plan,
    Provider,
    ProviderError,
    provider,
)

ENDLESS = {"num_generations": 10_000_000, "noise_size": 50_000, "pop_size": 4}
WORDS = ("sphere", *setting(**ENDLESS))
CANNOT = {  # what there is no sense in, and the words for it
    "slurm": ("change the nodes of a job", "set prices", "upload"),
    "local": ("set prices", "upload"),
    "aws": (),
    "ibm": ("run commands", "set prices"),
}


@dataclass
class Case:
    """A provider whose clusters are this test's own."""

    provider: Provider
    plan: Plan
    speaks: Callable[[], None]  # have a machine say "generation 1", unless it does by itself

    def does(self, what: Callable[[], object]) -> bool:
        """True if the provider does it, false if it says in one line that it cannot."""
        try:
            what()
        except ProviderError as error:
            cannot = [f"{self.provider.name} cannot {w}: " for w in CANNOT[self.provider.name]]
            assert str(error).startswith(tuple(cannot)) and "\n" not in str(error)
            return False
        return True


REAL = pytest.mark.skipif(bool(missing()), reason=f"lacks {', '.join(missing())}; as root: {HOW}")


@pytest.fixture(
    params=[
        *(pytest.param(n, marks=[pytest.mark.slow] * (n not in CLOUDS)) for n in PROVIDERS),
        pytest.param("slurm, real", marks=[pytest.mark.slow, REAL]),
    ]
)
def case(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Case]:
    name, made = request.param, ("one", "es", WORDS, 1, 1.0, 1)
    if name == "aws":
        moto = request.getfixturevalue("moto")

        def speaks() -> None:
            (head,) = moto.machines_of(cluster="one", role="head")
            moto.machines[head["InstanceId"]] = {"EVO": str(tmp_path)}
            (tmp_path / "log.txt").write_text("generation 1\n")

        yield Case(request.getfixturevalue("aws"), CloudPlan(*made), speaks)
        return
    if name == "ibm":
        request.getfixturevalue("ibm_cloud")
        store = request.getfixturevalue("moto").client("s3")

        def stores() -> None:
            store.put_object(Bucket="evo-of-ann", Key="runs/ann/one/head.txt", Body=b"generation 1")

        yield Case(request.getfixturevalue("ibm"), CloudPlan(*made), stores)
        return
    with contextlib.ExitStack() as until_the_end:
        if name == "slurm":
            for key, value in StubSlurm(tmp_path / "slurm").env.items():
                monkeypatch.setenv(key, value)
        if name == "slurm, real":
            there = until_the_end.enter_context(RealSlurm())
            monkeypatch.setenv("SLURM_CONF", there.env["SLURM_CONF"])
        chosen = provider(name.partition(",")[0], tmp_path / "jobs")
        yield Case(chosen, Plan(*made), lambda: None)
        for each in chosen.list():
            if each.status == "running":
                chosen.destroy(each.name)


def test_a_cluster_is_created_shown_changed_and_ended(case: Case) -> None:
    chosen = case.provider
    plan = chosen.check(case.plan)
    assert plan.cpus_per_node and plan.name == "one"
    assert "hour" in chosen.estimate(plan) and "one" in chosen.preview(plan)
    assert chosen.list() == []
    made = chosen.create(plan)
    assert (made.name, made.provider, made.nodes) == ("one", chosen.name, 1) and made.job
    with pytest.raises(ProviderError, match="already"):
        chosen.create(chosen.check(plan))
    (shown,) = chosen.list()
    assert (shown.name, shown.job, shown.nodes) == ("one", made.job, 1) and shown.status
    case.speaks()
    wait_until(lambda: "generation" in said(chosen), chosen, 60)
    assert len(chosen.tail("one", 1).splitlines()) == 1
    if case.does(lambda: chosen.exec("one", "true")):
        assert chosen.exec("one", "echo 'hello  you'; pwd >&2") == "hello  you\n"
        with pytest.raises(ProviderError, match="no such thing"):
            chosen.exec("one", "echo no such thing >&2; exit 3")
    if case.does(lambda: chosen.resize("one", 2)):
        wait_until(lambda: chosen.list()[0].nodes == 2, chosen, 60)
        chosen.resize("one", 1)
        wait_until(lambda: chosen.list()[0].nodes == 1, chosen, 60)
    case.does(lambda: chosen.set_price("one", Change()))
    case.does(lambda: chosen.upload(made.job, dry_run=True))
    chosen.destroy("one")
    assert [each.name for each in chosen.list() if each.status == "running"] == []


@pytest.mark.slow
def test_machines_that_are_this_one_give_the_same_bits(tmp_path: Path) -> None:
    """Also if there are more of them while the run goes on."""
    config = {**ENDLESS, "num_generations": 10, "seed": 7, "final_episodes": 3}
    chosen = provider("local", tmp_path)
    chosen.create(chosen.check(Plan("one", "es", ("sphere", *setting(**config)), 2, 1.0, 1)))
    chosen.resize("one", 3)
    wait_until(lambda: chosen.list()[0].status == "done", lambda: chosen.tail("one", 9), 60)
    assert [(tmp_path / "one" / f"node_{number}.txt").exists() for number in range(3)] == [True] * 3
    expected = run_here("sphere", evaluator="local", **config)
    assert expected.info["theta sha256"] in chosen.tail("one", 100)
    with pytest.raises(ProviderError, match="one is not at work: it is done"):
        chosen.destroy("one")


@pytest.mark.slow
@pytest.mark.skipif(not HAS_PROC, reason="no /proc")
def test_a_job_that_was_killed_here_leaves_no_process(tmp_path: Path) -> None:
    chosen = provider("local", tmp_path)
    made = chosen.create(chosen.check(Plan("one", "es", WORDS, 1, 1.0, 1)))
    wait_until(lambda: "generation 1/" in said(chosen), chosen, 60)
    os.kill(int(made.job), signal.SIGKILL)
    wait_until(lambda: chosen.list()[0].status == "lost", chosen, 60)
    chosen.destroy("one")
    assert chosen.list()[0].status == "interrupted"
    wait_until(lambda: not _processes_of(tmp_path / "one"), lambda: _processes_of(tmp_path), 60)


def _processes_of(folder: Path) -> list[bytes]:
    """The command lines of those that have a job's folder in their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and bytes(folder) in (entry / "environ").read_bytes():
                found.append((entry / "cmdline").read_bytes())
    return found


def said(chosen: Provider) -> str:
    try:
        return chosen.tail("one", 50)
    except ProviderError:
        return ""  # nothing yet


def test_a_cluster_that_there_is_not_is_refused(case: Case) -> None:
    chosen = case.provider
    for what in (
        lambda: chosen.tail("none", 3),
        lambda: chosen.exec("none", "true"),
        lambda: chosen.resize("none", 2),
        lambda: chosen.set_price("none", Change()),
        lambda: chosen.destroy("none"),
    ):
        with pytest.raises(ProviderError, match="no cluster 'none'; there are: none"):
            what()
