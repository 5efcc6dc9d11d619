"""SLURM jobs: what is submitted, and what a job does, with SLURM's programs played by a stub."""

import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from commands import PATH, Command, Place, complaint, run_here, setting, wait_until
from slurm_stub import StubSlurm

from cluster import slurm_node
from cluster.jobs import DONE, JobFolder
from cluster.launch import cli
from cluster.providers import Plan, ProviderError, provider
from cluster.providers.slurm import job_script, parse_limit

LAUNCH_HERE = ["launch", "--provider=slurm"]
LAUNCH, MANAGE = "cluster/launch.py", "cluster/manage.py"
SPHERE = {"num_generations": 4, "noise_size": 50_000, "seed": 7, "final_episodes": 3}
PLAN = Plan("lander", "es", ("lander", "seed=3"), nodes=8, hours=5.0, cpus_per_node=32)


class Cluster(Place):
    """A private machine with a stub of SLURM."""

    def __init__(self) -> None:
        super().__init__()
        self.slurm = StubSlurm(self.folder / "slurm")
        self.env |= self.slurm.env
        self.jobs = self.runs / "clusters"

    def launch(self, *words: str) -> Command:
        return self.start(LAUNCH, "launch", "--provider=slurm", *words)

    def job(self, name: str) -> JobFolder:
        return JobFolder(self.jobs / name)


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Cluster() as cluster:
        yield cluster


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StubSlurm:
    """A stub for this process."""
    stub = StubSlurm(tmp_path / "slurm")
    for name, value in stub.env.items():
        monkeypatch.setenv(name, value)
    return stub


def words(**config: object) -> str:
    return " ".join(["sphere", *setting(**{**SPHERE, **config})])


# --- the script


def test_a121_the_script_is_rendered_for_nodes_and_hours(tmp_path: Path) -> None:
    script = job_script(PLAN, tmp_path / "lander")
    options = dict(re.findall(r"^#SBATCH --([a-z-]+)(?:=(.*))?$", script, re.MULTILINE))
    assert options["nodes"] == "8" and options["time"] == "300"
    assert options["cpus-per-task"] == "32" and options["ntasks-per-node"] == "1"
    assert options["signal"] == "B:USR1@120"
    assert {"requeue", "no-kill"} <= set(options)
    assert script.splitlines()[-1].endswith(f"cluster/slurm_job.py {tmp_path / 'lander'}")


def test_the_script_is_good_bash_wherever_it_lies(tmp_path: Path) -> None:
    """Its own folder, and all that a shell would take for something else."""
    if (shellcheck := shutil.which("shellcheck", path=PATH)) is None:
        pytest.skip("no shellcheck here: pip install -r requirements-dev.txt")
    folder = tmp_path / 'it\'s $HOME; 100% "odd" `id`'
    folder.mkdir()
    script = folder / "job.sbatch"
    script.write_text(job_script(PLAN, folder))
    plain = tmp_path / "plain.sbatch"
    plain.write_text(job_script(PLAN, tmp_path))
    for command in ([shellcheck, plain], [shellcheck, "--exclude=SC2016", script]):  # it is meant
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout
    text = script.read_text().replace("exec ", "printf '%s\\n' ")
    shown = subprocess.run(["/bin/bash", "-c", text], capture_output=True, text=True, check=True)
    assert shown.stdout.splitlines()[-1] == str(folder)


@pytest.mark.parametrize(
    ("limit", "minutes"),
    [("1-00:00:00", 1440), ("5:00:00", 300), ("30:00", 30), ("0:30", 0.5), ("infinite", None)],
)
def test_time_limits_are_understood(limit: str, minutes: float | None) -> None:
    assert parse_limit(limit) == (float("inf") if minutes is None else minutes)


# --- a job


@pytest.mark.slow
def test_a121_the_first_node_is_the_head_and_all_of_them_work(cluster: Cluster) -> None:
    cluster.env["gym"] = "Sphere-v0"
    config = words().replace("sphere ", "") + " hidden_sizes=[] env_name=CartPole-v1"
    plan = ("--nodes=2", "--cpus-per-node=1", "--name=one", f"--config={config}")
    assert "env_name=Sphere-v0, from the variable gym" in cluster.launch(*plan, "-y").succeed()
    job = cluster.job("one")
    wait_until(lambda: job.status == DONE, job, 60)
    calls = cluster.slurm.calls("srun")
    nodes = sorted(next(w for w in call if "nodelist" in w) for call in calls)
    assert nodes == ["--nodelist=node0", "--nodelist=node1"]
    said = (job.path / "slurm.txt").read_text()
    assert "head on node0" in said and "workers on node0, node1" in said
    for number in range(2):
        assert "serves run" in (job.path / f"node_{number}.txt").read_text()
    expected = run_here(evaluator="local", env_name="Sphere-v0", hidden_sizes=[], **SPHERE)
    assert expected.info["theta sha256"] in job.said()
    assert job.state()["run"] == 1
    wait_until(lambda: cluster.leftovers() == [], cluster.leftovers)


@pytest.mark.slow
def test_a_job_is_listed_followed_and_ended(cluster: Cluster) -> None:
    endless = words(num_generations=10_000_000)
    plan = ("--cpus-per-node=1", "--name=endless", f"--config={endless}")
    cluster.launch(*plan, "-y").succeed()
    job = cluster.job("endless")
    wait_until(lambda: "generation 1/" in job.said(), job)
    assert "running" in cluster.run(MANAGE, "list") and "endless" in cluster.run(MANAGE, "list")
    assert "generation" in cluster.run(MANAGE, "tail", "endless")
    assert "serves run" in cluster.run(MANAGE, "tail", "endless", "--node=0", "-n", "50")
    password = (job.path / "password").read_text()
    assert (job.path / "password").stat().st_mode & 0o777 == 0o600
    lines = [*cluster.processes().values(), (job.path / "job.sbatch").read_text()]
    assert password not in "".join(lines) + str(cluster.slurm.calls("srun"))
    again = cluster.launch(*plan, "-y")
    assert again.end() == 1 and "already" in complaint(again.err)
    assert "has ended" in cluster.run(MANAGE, "kill", "endless", "-y")
    wait_until(lambda: cluster.leftovers() == [], cluster.leftovers)
    assert job.status == "interrupted"
    assert "interrupted" in cluster.run(MANAGE, "list")
    gone = cluster.start(MANAGE, "kill", "endless", "-y")
    assert gone.end() == 1 and "not in the queue" in complaint(gone.err)


def test_nodes_that_lost_the_first_one_have_the_job_begin_again(
    slurm: StubSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("EVO_REDIS_PASSWORD", "secret")
    monkeypatch.setattr(slurm_node, "LOST_SECONDS", 0.2)
    monkeypatch.setattr(slurm_node, "LOOK_SECONDS", 0.05)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    try:
        done = CliRunner().invoke(slurm_node.cli, ["127.0.0.1", str(port), "1"])
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert done.exit_code == 0, done.output
    assert slurm.calls("scontrol") == [["requeue", "7"]]


# --- bad input


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        ({"nodes": 4}, "--nodes=4: partition debug has 3"),
        ({"nodes": 3, "partition": "long"}, "partition long has 2 that are up, of 3"),
        ({"cpus_per_node": 3}, "--cpus-per-node=3: partition debug has nodes with 2"),
        ({"hours": 25.0}, "--hours=25: partition debug has a limit of 24 hours"),
        ({"partition": "lng"}, "--partition=lng: there is none; known: debug, long"),
        ({"hours": 0.02}, "--warning-seconds=120: must be less than the 120 seconds"),
        ({"options": ("account=x",)}, "--option='account=x': write it as --account=NAME"),
    ],
)
def test_what_the_partition_does_not_have_is_refused(
    plan: dict, said: str, tmp_path: Path, slurm: StubSlurm
) -> None:
    values = {"name": "x", "experiment": "es", "config": (), "nodes": 1, "hours": 1.0}
    with pytest.raises(ProviderError, match=re.escape(said)):
        provider("slurm", tmp_path).check(Plan(**{**values, **plan}))
    assert slurm.calls("sbatch") == []


def test_nobody_knows_other_providers(tmp_path: Path) -> None:
    with pytest.raises(ProviderError, match="no provider 'cloud'; known: slurm"):
        provider("cloud", tmp_path)


def test_an_sbatch_that_refuses_shows_its_own_words(
    tmp_path: Path, slurm: StubSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusal = "sbatch: error: Batch job submission failed: Invalid account"
    slurm.settle(sbatch=refusal)
    chosen = provider("slurm", tmp_path / "jobs")
    plan = Plan("x", "es", (), nodes=1, hours=1.0)
    with pytest.raises(ProviderError, match=re.escape(refusal)):
        chosen.create(chosen.check(plan))
    slurm.settle()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ProviderError, match="no sinfo on the PATH"):
        chosen.check(plan)


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (["--config=sphere sigmaa=1"], "no config key 'sigmaa'. Did you mean 'sigma'?"),
        (["--config=sphere redis=redis://x"], "redis=redis://x: leave it out, the job decides"),
        (["--experiment=gaa"], "no experiment 'gaa'; known: es, ga"),
        (["--name=a/b"], "name 'a/b': up to 100 letters"),
    ],
)
def test_a_bad_launch_is_refused_before_anything_is_submitted(
    bad: list[str], said: str, slurm: StubSlurm, tmp_path: Path
) -> None:
    done = CliRunner().invoke(cli, [*LAUNCH_HERE, f"--folder={tmp_path}/jobs", *bad, "-y"])
    assert done.exit_code == 1
    assert said in complaint(done.stderr)
    assert slurm.calls("sbatch") == [] and not (tmp_path / "jobs").exists()


def test_a120_a_dry_run_submits_nothing_and_without_yes_it_asks(
    slurm: StubSlurm, tmp_path: Path
) -> None:
    plan = [*LAUNCH_HERE, f"--folder={tmp_path}/jobs", f"--config={words()}", "--nodes=3"]
    shown = CliRunner().invoke(cli, [*plan, "--hours=2", "--sittings=4", "--dry-run"])
    assert shown.exit_code == 0, shown.output
    assert "#SBATCH --nodes=3" in shown.output
    assert "12.0 core-hours a sitting, at most 48.0" in shown.output
    asked = CliRunner().invoke(cli, plan, input="n\n")
    assert asked.exit_code == 1 and "launch? [y/N]" in asked.output
    assert slurm.calls("sbatch") == [] and not (tmp_path / "jobs").exists()
