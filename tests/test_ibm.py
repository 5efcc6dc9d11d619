"""IBM Cloud, played by a stub: what is made, found again, used again and ended."""

import functools
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from aws_moto import Moto, launch, manage, plan
from botocore.exceptions import EndpointConnectionError
from commands import PATH, ROOT, complaint
from ibm_account import BUCKET, keys, put
from ibm_stub import IbmStub

from cluster import launch as launch_script
from cluster.providers import ProviderError
from cluster.providers.ibm import IbmProvider
from cluster.providers.ibm.session import Ibm
from cluster.providers.ibm.setup import IbmAccount

MONGO = "mongodb+srv://ann:secret@db.example.org/sacred"
IBM = "--provider=ibm"
TYPES = {"head_type": "cx2-2x4", "worker_type": "cx2-4x8"}


def launched(ibm: IbmProvider, name: str, **more: Any) -> None:
    ibm.create(ibm.check(plan(name, **{**TYPES, **more})))


# --- what is made


def test_a122_machines_have_the_names_of_their_cluster(
    ibm_cloud: IbmStub, ibm: IbmProvider, moto: Moto, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MONGO_URL", MONGO)
    launched(ibm, "one", nodes=3)
    assert ibm_cloud.names == ["one-0", "one-1", "one-2", "one-3"]
    profiles = [ibm_cloud.named(name)["profile"]["name"] for name in ibm_cloud.names]
    assert profiles == ["cx2-2x4", "cx2-4x8", "cx2-4x8", "cx2-4x8"]
    image = ibm_cloud.named("one-0")["image"]["id"]
    assert image == "r010-ibm-ubuntu-24-04-3-minimal-amd64-2"  # the newest one
    assert ibm_cloud.named("one-0")["metadata_service"] == {"enabled": False}
    stored = moto.client("s3").get_object(Bucket=BUCKET, Key="code/ann/one/mongo-url")["Body"]
    assert stored.read().decode() == MONGO
    password = moto.client("s3").get_object(Bucket=BUCKET, Key="code/ann/one/redis-password")
    word = password["Body"].read().decode()
    for each in ibm_cloud.instances.values():
        script = ibm_cloud.user_data[each["id"]]
        assert "secret" not in script.replace("EVO_IBM_COS_SECRET", "") and word not in script
        assert ("mongo-url" in script) == (each["name"] == "one-0")
    assert "HEAD=127.0.0.1\n" in ibm_cloud.user_data[ibm_cloud.named("one-2")["id"]]


def test_a124_start_scripts_pass_shellcheck_and_bind_to_the_private_address(
    ibm_cloud: IbmStub, ibm: IbmProvider, tmp_path: Path
) -> None:
    launched(ibm, "one", nodes=1)
    for name in ibm_cloud.names:
        text = ibm_cloud.user_data[ibm_cloud.named(name)["id"]]
        assert "0.0.0.0" not in text and re.search(r"(?m)^PASSWORD='http.*redis-password", text)
        if (shellcheck := shutil.which("shellcheck", path=PATH)) is not None:
            (tmp_path / name).write_text(text)
            done = subprocess.run([shellcheck, tmp_path / name], capture_output=True, check=False)
            assert done.returncode == 0, done.stdout.decode()
    head = ibm_cloud.user_data[ibm_cloud.named("one-0")["id"]]
    assert 'run-server --host "$address"' in head


def test_the_group_lets_in_redis_from_its_own_machines_and_nobody_else(ibm_cloud: IbmStub) -> None:
    (group,) = ibm_cloud.groups.values()
    inbound = [rule for rule in group["rules"] if rule["direction"] == "inbound"]
    (rule,) = inbound
    assert (rule["protocol"], rule["port_min"], rule["port_max"]) == ("tcp", 6379, 6379)
    assert rule["remote"] == {"id": group["id"]}
    world = {"id": "r", "direction": "inbound", "protocol": "tcp", "port_min": 22, "port_max": 22}
    group["rules"].append({**world, "remote": {"cidr_block": "0.0.0.0/0"}})
    account = IbmAccount("ann", Ibm())
    assert "has other rules than it needs" in account.missing()[0]
    group["rules"].remove(rule)  # as many as there should be, but not those
    assert "has other rules than it needs" in account.missing()[0]
    account.setup()
    (again,) = [rule for rule in group["rules"] if rule["direction"] == "inbound"]
    assert {**again, "id": rule["id"]} == rule
    assert account.missing() == []


def test_a_set_up_can_be_repeated_and_removed(ibm_cloud: IbmStub, ibm: IbmProvider) -> None:
    account = IbmAccount("zoe", Ibm())
    assert account.missing() == ["no security group evo-zoe: manage.py setup"]
    made = account.setup()
    assert account.setup() == made and account.missing() == []
    assert account.teardown() == ["security group evo-zoe"] and account.teardown() == []
    launched(ibm, "one", nodes=1)
    done = manage("teardown", IBM, "-y")
    assert "kill these clusters first: one" in complaint(done.stderr)


# --- what is changed


def test_a122_commands_act_on_the_named_cluster_only(
    ibm_cloud: IbmStub, ibm: IbmProvider, moto: Moto
) -> None:
    """Names that begin alike, and a machine of that name that is none of ours."""
    for name in ("one", "one-1"):
        launched(ibm, name, nodes=2)
    ibm_cloud.page = 50
    stranger = {**ibm_cloud.named("one-1-2"), "id": "x", "name": "one-7", "_groups": []}
    stranger["primary_network_interface"] = {"id": "y", "primary_ip": {"address": "10.0.0.9"}}
    ibm_cloud.instances["x"] = stranger
    try:
        listed = manage("list", IBM).output
        assert re.search(r"running +2 +one  head 127\.0\.0\.1; cx2-4x8", listed)
        assert "4 machines" in manage("size", "one", "4", IBM).output
        assert ibm_cloud.names[:5] == ["one-0", "one-1", "one-1-0", "one-1-1", "one-1-2"]
        assert ibm_cloud.names[5:] == ["one-2", "one-3", "one-4", "one-7"]
        script = ibm_cloud.user_data[ibm_cloud.named("one-1")["id"]]
        added = ibm_cloud.user_data[ibm_cloud.named("one-4")["id"]]
        links = functools.partial(re.sub, r"(?m)^\w+(_LINK)?='?http.*\n", "")
        assert links(added) == links(script)
        assert "1 machines" in manage("resize", "one", "1", IBM).output
        assert "1 machines of workers" in manage("size", "one", IBM).output
        put(moto, "runs/ann/one/head.txt", "generation 1\ngeneration 2\n")
        assert manage("tail", "one", "-n", "1", IBM).output == "generation 2\n"
        assert "has ended" in manage("kill", "one", "-y", IBM).output
        assert ibm_cloud.names == ["one-1-0", "one-1-1", "one-1-2", "one-7"]
        assert {key.split("/")[2] for key in keys(moto)} == {"one-1"}
    finally:
        del ibm_cloud.instances["x"]
        ibm_cloud.page = 2


def test_a127_machines_of_the_same_prefix_are_used_again(
    ibm_cloud: IbmStub, ibm: IbmProvider, moto: Moto
) -> None:
    """R-202: the same machines, with new disks and another start script."""
    launched(ibm, "one", nodes=2)
    before = {name: ibm_cloud.named(name)["id"] for name in ibm_cloud.names}
    with pytest.raises(ProviderError, match="'one' is there already, and at work: wait for it"):
        ibm.check(plan("one"))
    put(moto, "runs/ann/one/state.txt", "done\n")
    ibm_cloud.calls.clear()
    asked = ibm.check(plan("one", nodes=3, config=("sphere", "lr=0.5")))
    assert "used again, with new disks: one-0, one-1, one-2" in ibm.estimate(asked)
    assert (asked.head_type, asked.worker_type) == (TYPES["head_type"], TYPES["worker_type"])
    ibm.create(asked)
    assert ibm_cloud.names == ["one-0", "one-1", "one-2", "one-3"]
    assert {name: ibm_cloud.named(name)["id"] for name in before} == before
    assert len([call for call in ibm_cloud.calls if call == "POST /instances"]) == 1
    again = {f"POST /instances/{number}/reinitialize" for number in before.values()}
    assert again <= set(ibm_cloud.calls)
    assert "lr=0.5" in ibm_cloud.user_data[before["one-0"]]
    assert keys(moto, "runs/") == []  # what the run before has said
    put(moto, "runs/ann/one/state.txt", "done\n")
    with pytest.raises(ProviderError, match="one-1 is there, and a cx2-4x8, not a cx2-8x16: kill"):
        ibm.check(plan("one", worker_type="cx2-8x16"))
    launched(ibm, "one", nodes=1)
    ibm.list()
    assert {each["name"] for each in ibm_cloud.instances.values()} >= {"one-0", "one-1"}
    assert [each.nodes for each in ibm.list()] == [1]


def test_a122_upload_gives_a_link_to_the_code(
    ibm: IbmProvider, moto: Moto, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """To be typed on a machine, for none of them takes commands."""
    shown = manage("upload", "10.0.0.7", "--dry_run", IBM).output
    assert f"{BUCKET}/code/ann-upload/bundle.tar.gz" in shown and keys(moto) == []
    done = manage("upload", "10.0.0.7", IBM)
    request.addfinalizer(
        lambda: moto.client("s3").delete_object(Bucket=BUCKET, Key="code/ann-upload/bundle.tar.gz")
    )
    assert done.exit_code == 0, done.output
    said, unpack, begin = done.output.splitlines()
    assert said.endswith("on 10.0.0.7, within the hour:") and "es/experiment.py" in begin
    subprocess.run(["/bin/bash", "-c", unpack], cwd=tmp_path, check=True)
    assert (tmp_path / "upload" / "hello.py").read_text() == "hello = 1\n"
    assert ibm.list() == []  # it is no cluster


# --- what is ended

WRITES_OF_A_LAUNCH = 3


def test_a125_a_launch_that_fails_half_way_leaves_nothing(
    ibm_cloud: IbmStub, ibm: IbmProvider, moto: Moto, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked = ibm.check(plan("one", **TYPES))
    for number in range(WRITES_OF_A_LAUNCH):
        ibm_cloud.calls.clear()
        with monkeypatch.context() as patch:
            patch.setattr(ibm_cloud, "fault", _fails_at(ibm_cloud, number))
            with pytest.raises(ProviderError, match="no capacity; nothing new of one is left"):
                ibm.create(checked)
        assert ibm_cloud.instances == {} and keys(moto) == []
    ibm_cloud.calls.clear()
    ibm.create(checked)
    assert len(ibm_cloud.calls) == WRITES_OF_A_LAUNCH


def _fails_at(stub: IbmStub, number: int) -> Any:
    from ibm_stub import RefusedError

    def fail(call: str) -> None:
        if call == "POST /instances" and len(stub.calls) == number:
            raise RefusedError(400, "over_quota", "no capacity")

    return fail


def test_a125_a_cluster_whose_head_is_gone_can_be_killed(
    ibm_cloud: IbmStub, ibm: IbmProvider, moto: Moto
) -> None:
    launched(ibm, "one")
    del ibm_cloud.instances[ibm_cloud.named("one-0")["id"]]
    assert "headless" in manage("list", IBM).output
    assert "has ended" in manage("kill", "one", "-y", IBM).output
    assert ibm_cloud.instances == {} and keys(moto) == []


WORDS = (
    "--config=sphere",
    "--name=one",
    "-y",
    IBM,
    "--master_type=cx2-2x4",
    "--worker_type=cx2-4x8",
)


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch, moto: Moto) -> Iterator[dict[str, Any]]:
    """What happens while the launcher waits; by default the run ends well."""
    happens: dict[str, Any] = {"then": lambda: put(moto, "runs/ann/one/state.txt", "done\n")}
    plain = Ibm.read

    def read(ibm: Ibm, key: str) -> bytes | None:
        if key.endswith("head.txt"):
            happens["then"]()
        return plain(ibm, key)

    monkeypatch.setattr(Ibm, "read", read)
    monkeypatch.setattr(launch_script, "check_config", lambda *asked: None)  # takes seconds
    yield happens


def test_a126_machines_are_removed_when_the_run_has_ended(
    ibm_cloud: IbmStub, ibm: IbmProvider, moto: Moto, ends: dict[str, Any]
) -> None:
    """R-203. What the head says is shown while it runs."""
    said = ["generation 1\n", "generation 1\ngeneration 2\n"]

    def happen() -> None:
        if said:
            put(moto, "runs/ann/one/head.txt", said.pop(0))
        else:
            put(moto, "runs/ann/one/state.txt", "done\n")

    ends["then"] = happen
    done = launch(*WORDS)
    assert done.exit_code == 0, done.output
    assert "generation 1\ngeneration 2\none: done\none has ended\n" in done.output
    assert ibm_cloud.instances == {} and keys(moto) == []


def test_a126_machines_stay_if_told_to(
    ibm_cloud: IbmStub, ibm: IbmProvider, ends: dict[str, Any]
) -> None:
    done = launch(*WORDS, "--keep-vms")
    assert done.exit_code == 0, done.output
    assert "its machines stay; what ends them: python cluster/manage.py kill one" in done.output
    assert ibm_cloud.names == ["one-0", "one-1"]
    worker = ibm_cloud.user_data[ibm_cloud.named("one-1")["id"]]
    assert "ENDED_LINK=''\n" in worker


def test_a126_machines_stay_after_ctrl_c(
    ibm_cloud: IbmStub, ibm: IbmProvider, ends: dict[str, Any]
) -> None:
    """As IBM's own did it."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    ends["then"] = interrupt
    done = launch(*WORDS)
    assert done.exit_code == 130 and "one goes on without you" in done.output
    assert ibm_cloud.names == ["one-0", "one-1"]


def test_a126_machines_are_removed_after_an_exception(
    ibm_cloud: IbmStub, ibm: IbmProvider, moto: Moto, ends: dict[str, Any]
) -> None:
    """W-70; one of ours, and one of the cloud's: the head is gone without a word."""

    def fail() -> None:
        raise RuntimeError("a fault of ours")

    ends["then"] = fail
    assert isinstance(launch(*WORDS).exception, RuntimeError)
    assert ibm_cloud.instances == {} and keys(moto) == []
    ends["then"] = lambda: ibm_cloud.named("one-0").update(status="failed")
    done = launch(*WORDS)
    assert "the head of one has stopped without a word" in complaint(done.stderr)
    assert ibm_cloud.instances == {}


def test_a126_a_launcher_that_is_cut_off_for_a_while_goes_on(
    ibm_cloud: IbmStub, ibm: IbmProvider, moto: Moto, ends: dict[str, Any]
) -> None:
    faults = [requests.ConnectionError("no route"), EndpointConnectionError(endpoint_url="x")]

    def happen() -> None:
        if faults:
            raise faults.pop()
        put(moto, "runs/ann/one/state.txt", "done\n")

    ends["then"] = happen
    done = launch(*WORDS)
    assert done.exit_code == 0 and "one: done\none has ended" in done.output
    assert ibm_cloud.instances == {} and not faults


# --- IBM's settings.yaml


def test_a130_the_section_vm_of_settings_yaml_is_honoured(ibm: IbmProvider, tmp_path: Path) -> None:
    shipped = ibm.check(
        plan(config=(str(ROOT / "ga" / "settings.yaml"),), nodes=1, cpus_per_node=None)
    )
    assert (shipped.nodes, shipped.worker_type, shipped.cpus_per_node) == (30, "cx2-16x32", 16)
    file = tmp_path / "settings.yaml"
    file.write_text("vm:\n  count: 5\n  cpus: 3\n  mem: 12\n")
    asked = ibm.check(plan(config=(str(file), "vm_count=6"), nodes=1, cpus_per_node=None))
    assert (asked.nodes, asked.worker_type, asked.cpus_per_node) == (6, "cx2-8x16", 3)
    asked = ibm.check(plan(config=(str(file),), nodes=2, worker_type="cx2-4x8"))
    assert (asked.nodes, asked.worker_type) == (2, "cx2-4x8")
    file.write_text(json.dumps({"vm": {"cores": 3}}))
    with pytest.raises(ProviderError, match=r"vm.cores=3: must be count, cpus or mem"):
        ibm.check(plan(config=(str(file),)))
