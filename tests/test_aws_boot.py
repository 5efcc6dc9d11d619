"""Start scripts, run for real: machines are folders here, AWS's programs a few lines of bash."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from booted import Cloud
from commands import HAS_PROC, ROOT, run_here, setting, wait_until
from stores import embedded_url, served

pytestmark = [
    pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no git checkout"),
    pytest.mark.skipif(not HAS_PROC, reason="no /proc"),
]
SPHERE = {"num_generations": 3, "noise_size": 50_000, "seed": 7, "final_episodes": 3}


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    with Cloud() as cloud:
        yield cloud


@pytest.mark.slow
def test_a126_the_cluster_ends_when_the_run_has_ended(cloud: Cloud) -> None:
    """And the result is that of a run on one machine."""
    head = cloud.head(config=("sphere", *setting(**SPHERE)))
    worker = cloud.worker()
    wait_until(lambda: head.text("ended"), lambda: head.log + worker.log, 100)
    expected = run_here("sphere", evaluator="local", **SPHERE)
    stored = (cloud.bucket / "runs" / "ann" / "one" / "head.txt").read_text()
    assert expected.info["theta sha256"] in stored
    assert (cloud.bucket / "runs" / "ann" / "one" / "state.txt").read_text() == "done\n"
    assert (cloud.bucket / "runs" / "ann" / "one" / "runs" / "store.sqlite").exists()
    calls = head.text("calls")
    assert "delete-auto-scaling-group --auto-scaling-group-name evo-ann-one --force" in calls
    assert "delete-launch-template --launch-template-name evo-ann-one" in calls
    assert not list((cloud.bucket / "code").rglob("*.gz"))
    assert head.text("ended") == "-h now\n"
    assert (head.evo / "redis-password").stat().st_mode & 0o777 == 0o600
    assert "a password" not in head.log + worker.log + "".join(cloud.processes().values())
    assert "autoscaling" not in worker.text("calls") and worker.text("ended") == ""


@pytest.mark.slow
def test_a122_results_go_to_the_users_mongodb_whose_address_stays_secret(
    cloud: Cloud, tmp_path: Path
) -> None:
    """The head's process is given it; no script, log, file or process line has it."""
    with served(tmp_path / "store.sqlite") as store:
        url = embedded_url(tmp_path / "store.sqlite")
        password = url.partition("@")[0].rpartition(":")[2]
        (cloud.secrets / "mongo-url").write_text(f"{url}\n")
        cloud.start_of = replace(cloud.start_of, store_url=cloud.start_of.names.store_url)
        head = cloud.head(config=("sphere", *setting(**SPHERE)))
        wait_until(lambda: f"MONGO_URL={url}" in environment(head.text("experiment.pid")), head)
        worker, lines, of_workers = cloud.worker(), set[str](), set[str]()

        def has_ended() -> str:
            processes = cloud.processes()
            lines.update(processes.values())
            found = [str(pid) for pid, line in processes.items() if "es/worker.py" in line]
            of_workers.update(map(environment, found))
            return head.text("ended")

        wait_until(has_ended, lambda: head.log + worker.log, 100)
        assert "2 workers for" in worker.log
        assert any(of_workers) and not any(password in each for each in of_workers)
        (run,) = store["sacred"]["runs"].find()
        assert run["status"] == "COMPLETED"
    assert any("es/experiment.py with sphere" in line for line in lines)
    assert not any(password in line for line in lines)
    files = [path for path in cloud.folder.rglob("*") if path.is_file()]
    assert [path for path in files if password.encode() in path.read_bytes()] == [
        cloud.secrets / "mongo-url"
    ]
    assert "ssm delete-parameter --name /evo/ann/clusters/one/mongo-url" in head.text("calls")
    assert (cloud.bucket / "runs" / "ann" / "one" / "state.txt").read_text() == "done\n"
    assert not (cloud.bucket / "runs" / "ann" / "one" / "runs").exists()


def environment(pid: str) -> str:
    """What a process was started with, "" if there is none."""
    with contextlib.suppress(OSError, ValueError):
        return Path(f"/proc/{int(pid)}/environ").read_text().replace("\0", "\n")
    return ""


@pytest.mark.slow
def test_a126_the_cluster_ends_when_its_time_is_over(cloud: Cloud) -> None:
    """The run has left a checkpoint; whoever has launched it may be gone."""
    endless = {**SPHERE, "num_generations": 10_000_000}
    head = cloud.head(config=("sphere", *setting(**endless)), lasts=20)  # so that it begins
    wait_until(lambda: head.text("ended"), lambda: head.log, 100)
    assert "the time is over" in head.log
    assert "ended with exit code" in head.text("state.txt")
    assert "delete-auto-scaling-group" in head.text("calls")


def test_a126_the_cluster_ends_when_the_run_cannot_begin(cloud: Cloud) -> None:
    (code,) = (cloud.bucket / "code").rglob("*.gz")
    code.write_bytes(b"something else")
    head = cloud.head(config=("sphere",))
    wait_until(lambda: head.text("ended"), lambda: head.log, 60)
    assert "failed before the run began" in head.log
    assert "delete-auto-scaling-group" in head.text("calls")


def test_a126_machines_that_are_to_stay_do(cloud: Cloud) -> None:
    (code,) = (cloud.bucket / "code").rglob("*.gz")
    code.write_bytes(b"something else")
    head = cloud.head(config=("sphere",), keep=True)
    wait_until(lambda: "stay until their time is over" in head.log, lambda: head.log, 60)
    assert "delete" not in head.text("calls") and head.text("ended") == ""


def test_workers_of_a_machine_that_is_taken_back_take_no_more_work(cloud: Cloud) -> None:
    command = (
        "sh -c 'trap \"echo told to end; exit\" TERM; echo at work; while :; do sleep 0.1; done'"
    )
    worker = cloud.worker(worker_command=command)
    wait_until(lambda: "at work" in worker.log, lambda: worker.log, 60)
    (worker.evo / "notice").write_text('{"action": "terminate"}\n')
    wait_until(lambda: "told to end" in worker.log, lambda: worker.log, 60)
    stored = cloud.bucket / "runs" / "ann" / "one" / "worker-i-1.txt"
    wait_until(stored.exists, lambda: worker.log, 60)
    assert "is taken back" in stored.read_text()
