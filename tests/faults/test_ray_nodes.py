"""A Ray cluster of two nodes, each on a host of its own; one of them is lost."""

import contextlib
import importlib.util
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import EXPERIMENT, ROOT, Command, run_here, setting, wait_until
from hosts import Host, network, why_not

pytestmark = [
    *(pytest.mark.slow, pytest.mark.alone),  # two nodes take seconds to start
    pytest.mark.skipif(
        importlib.util.find_spec("ray") is None,
        reason="Ray is not installed: pip install -r requirements-ray.txt",
    ),
    pytest.mark.skipif(bool(why_not()), reason=why_not()),
    pytest.mark.skipif(not shutil.which("nsenter"), reason="hosts are entered with nsenter"),
]
CONFIG = {
    **{"seed": 5, "num_generations": 200, "pop_size": 40, "noise_size": 100_000},
    **{"eval_episodes": 2, "final_episodes": 3, "min_task_runtime": 0.0},
}
PORT, CLIENT_PORT = 6379, 10001
AGENT_PORT = 6380  # given, for Ray's server for clients takes a free one for port 0
ATTEMPTS = 3  # on a busy machine, Ray's parts give up waiting for each other


class Cluster:
    """Nodes of one Ray, one CPU on each host; the first is its head."""

    def __init__(self, folder: Path, opening: contextlib.ExitStack) -> None:
        self.hosts = opening.enter_context(network(2, folder, seed=1))
        self.folder, self._opening = folder, opening
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16)}
        self.env = {**os.environ, **token, "RAY_USAGE_STATS_ENABLED": "0"}
        self.address = f"{self.hosts[0].address}:{PORT}"
        self.client = f"ray://{self.hosts[0].address}:{CLIENT_PORT}"
        head = ["--head", f"--port={PORT}", "--include-dashboard=false", "--no-monitor"]
        head += [f"--runtime-env-agent-port={AGENT_PORT}"]
        self.nodes = [self._start_node(0, head)]
        self.nodes.append(self._start_node(1, [f"--address={self.address}"]))

    def _start_node(self, number: int, role: list[str], attempts: int = ATTEMPTS) -> Command:
        host, folder = self.hosts[number], self.folder / f"node-{number}"
        words = ["-m", "ray.scripts.scripts", "start", "--block", "--num-cpus=1", *role]
        words += [f"--node-ip-address={host.address}", f"--temp-dir={folder}"]
        node = self.start(f"ray-{number}", host, *words, "--include-log-monitor=false")
        try:
            node.says("Ray runtime started")
        except AssertionError:
            if attempts == 1:
                raise
            end(node.process)
            return self._start_node(number, role, attempts - 1)
        return node

    def start(self, name: str, host: Host, *words: str) -> Command:
        """Start Python on a host."""
        out, err = (self.folder / f"{name}.{end}" for end in ("out", "err"))
        with out.open("wb") as out_file, err.open("wb") as err_file:
            process = subprocess.Popen(
                ["nsenter", f"--net=/run/netns/{host.namespace}", sys.executable, *words],
                env=self.env,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=out_file,
                stderr=err_file,
                start_new_session=True,
            )
        self._opening.callback(end, process)
        return Command(process, out, err)


def end(process: "subprocess.Popen[bytes]") -> None:
    """Ray's processes end with the one that has started them."""
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with contextlib.ExitStack() as opening:
        name = opening.enter_context(
            tempfile.TemporaryDirectory(prefix="evo-n-", dir="/tmp", ignore_cleanup_errors=True)
        )
        yield Cluster(Path(name), opening)


def test_a_run_that_is_no_node_of_the_cluster_gets_the_same_bits(cluster: Cluster) -> None:
    """By Ray's client, from the other host."""
    short = {**CONFIG, "num_generations": 3}
    where = {"evaluator": "ray", "ray_address": cluster.client, "num_workers": 1}
    words = ["with", "sphere", *setting(**where, **short), "-F", str(cluster.folder / "far")]
    for _ in range(ATTEMPTS):
        run = cluster.start("far", cluster.hosts[1], str(ROOT / EXPERIMENT), *words)
        if run.end() == 0 or "Starting Ray client server failed" not in run.err:
            break
    expected = run_here("sphere", evaluator="local", **short).info["theta sha256"]
    assert f"theta sha256 {expected}" in run.succeed()


def test_a_node_that_is_lost_changes_nothing(cluster: Cluster) -> None:
    """Its actor is asked for again and waits for a CPU; the other one does all the work."""
    where = {"evaluator": "ray", "ray_address": cluster.address, "num_workers": 2}
    words = ["with", "sphere", *setting(**where, **CONFIG), "-F", str(cluster.folder / "runs")]
    run = cluster.start("run", cluster.hosts[0], str(ROOT / EXPERIMENT), *words)
    expected = run_here("sphere", evaluator="local", **CONFIG).info["theta sha256"]
    wait_until(lambda: run.err.count("INFO worker ") == 2, run)
    run.says("generation ")
    cluster.nodes[1].send(signal.SIGKILL)
    assert f"theta sha256 {expected}" in run.succeed()
    assert "is lost: asking again for" in run.err


def test_the_token_is_nowhere_in_what_runs_leave(cluster: Cluster) -> None:
    """Neither in what the runs of this file have said, nor in their records."""
    token = cluster.env["RAY_AUTH_TOKEN"].encode()
    said = [cluster.folder / f"{name}.{end}" for name in ("far", "run") for end in ("out", "err")]
    kept = [file for name in ("far", "runs") for file in (cluster.folder / name).rglob("*")]
    files = [file for file in (*said, *kept) if file.is_file()]
    assert {"config.json", "run.json", "metrics.json"} <= {file.name for file in files}
    assert not [file for file in files if token in file.read_bytes()]
