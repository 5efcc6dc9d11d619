"""Start scripts of IBM Cloud, run for real against the object storage that moto plays."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aws_moto import Moto, plan
from booted import Cloud, Machine, code_of_ours
from commands import HAS_PROC, PATH, ROOT, run_here, setting, wait_until
from ibm_account import BUCKET, keys
from ibm_stub import IbmStub

from cluster import bundle
from cluster.providers.ibm import IbmProvider

pytestmark = [
    pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no git checkout"),
    pytest.mark.skipif(not HAS_PROC, reason="no /proc"),
]
SPHERE = {"num_generations": 3, "noise_size": 50_000, "seed": 7, "final_episodes": 3}
HOSTNAME = "#!/bin/sh\necho 127.0.0.1 10.0.0.5\n"


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    """Machines that have the real curl, for links, and neither AWS's program nor its address."""
    monkeypatch.setattr(bundle, "ROOT", ROOT)
    with Cloud() as cloud:
        programs = cloud.folder / "bin"
        for name in ("aws", "curl"):
            (programs / name).unlink()
        (programs / "hostname").write_text(HOSTNAME)
        (programs / "hostname").chmod(0o700)
        for name in [name for name in cloud.env if name.startswith(("AWS_", "EVO_IBM"))]:
            del cloud.env[name]
        cloud.env["PATH"] = f"{programs}{os.pathsep}{PATH}"
        yield cloud


def boot(cloud: Cloud, stub: IbmStub, name: str) -> Machine:
    """Run what a machine was given."""
    return Machine(cloud, name, stub.user_data[stub.named(name)["id"]])


def launched(ibm: IbmProvider, **more: Any) -> None:
    asked = plan("one", nodes=1, cpus_per_node=2, committed_only=True, **more)
    ibm.create(ibm.check(asked))


@pytest.mark.slow
def test_a126_a_run_ends_and_its_machines_stop_though_nobody_waits(
    ibm_cloud: IbmStub, ibm: IbmProvider, moto: Moto, cloud: Cloud, tmp_path: Path
) -> None:
    """And the result is that of a run on one machine."""
    launched(ibm, config=("sphere", *setting(**SPHERE)))
    head, worker = boot(cloud, ibm_cloud, "one-0"), boot(cloud, ibm_cloud, "one-1")
    wait_until(lambda: head.text("ended"), lambda: head.log + worker.log, 100)
    expected = run_here("sphere", evaluator="local", **SPHERE)
    assert expected.info["theta sha256"] in ibm.tail("one", 100)
    assert ibm.attend("one", lambda line: None) == "done"
    assert set(keys(moto, "runs/ann/one/")) >= {
        *(f"runs/ann/one/{name}" for name in ("head.txt", "runs.tar.gz", "state.txt")),
    }
    wait_until(lambda: worker.text("ended"), lambda: worker.log, 60)
    assert "the run has ended: its workers take no more work" in ibm.tail("one", 100, 0)
    stored = moto.client("s3").get_object(Bucket=BUCKET, Key="code/ann/one/redis-password")
    password = stored["Body"].read().decode()
    assert (head.evo / "redis-password").read_text() == password
    said = head.log + worker.log + "".join(cloud.processes().values())
    assert password not in said and "X-Amz-Signature" not in said


def test_a126_a_head_whose_run_cannot_begin_stops_and_says_so(
    ibm_cloud: IbmStub, ibm: IbmProvider, moto: Moto, cloud: Cloud
) -> None:
    launched(ibm, config=("sphere",))
    moto.client("s3").put_object(Bucket=BUCKET, Key="code/ann/one/bundle.tar.gz", Body=b"other")
    head = boot(cloud, ibm_cloud, "one-0")
    wait_until(lambda: head.text("ended"), lambda: head.log, 60)
    assert ibm.attend("one", lambda line: None) == "failed before the run began"
    assert code_of_ours().sha256 in ibm_cloud.user_data[ibm_cloud.named("one-0")["id"]]
