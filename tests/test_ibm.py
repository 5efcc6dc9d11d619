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
from cluster.providers.ibm_session import Ibm
from cluster.providers.ibm_setup import IbmAccount

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
    account.setup()
    assert [rule for rule in group["rules"] if rule["direction"] == "inbound"] == inbound
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
    scripts = dict(ibm_cloud.user_data)
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
    for number in before.values():
        assert ibm_cloud.user_data[number] != scripts[number]
    assert "lr=0.5" in ibm_cloud.user_data[before["one-0"]]
    assert keys(moto, "runs/") == []  # what the run before has said
    put(moto, "runs/ann/one/state.txt", "done\n")
    with pytest.raises(ProviderError, match="one-1 is there, and a cx2-4x8, not a cx2-8x16: kill"):
        ibm.check(plan("one", worker_type="cx2-8x16"))
    launched(ibm, "one", nodes=1)
    ibm.list()
    assert {each["name"] for each in ibm_cloud.instances.values()} >= {"one-0", "one-1"}
    assert [each.nodes for each in ibm.list()] == [1]


# --- what is ended

WRITES_OF_A_LAUNCH = 3


def test_a125_a_launch_that_fails_half_way_leaves_nothing(
    ibm_cloud: IbmStub, ibm: IbmProvider, moto: Moto
) -> None:
    checked = ibm.check(plan("one", **TYPES))
    for number in range(WRITES_OF_A_LAUNCH):
        ibm_cloud.calls.clear()
        ibm_cloud.fault = _fails_at(ibm_cloud, number)
        with pytest.raises(ProviderError, match="no capacity; nothing new of one is left"):
            ibm.create(checked)
        ibm_cloud.fault = lambda call: None
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


# --- what is refused


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"nodes": 0}, "--size=0: must be 1 to 1000"),
        ({"price": 0.1}, "ibm cannot take a price: its prices are fixed"),
        ({"hours": 500.0}, "--max-hours=500: at most 160 on IBM Cloud"),
        ({"name": "Big_One"}, "'Big_One': a small letter, then up to 29"),
        ({"worker_type": "cx2-8x17"}, "no such machines here. Did you mean 'cx2-8x16' or"),
        ({"head_type": "t3.large"}, "--master_type=t3.large: IBM Cloud has no such machines here"),
        ({"image": "ubuntu"}, "--image_id=ubuntu: eu-de has no such image"),
        ({"cpus_per_node": 9}, "--workers_per_machine=9: cx2-8x16 has 8 cores"),
        ({"config": ("sphere", "vm_cpus=99")}, "vm.cpus=99, vm.mem=1: no machine has as much"),
        ({"config": ("sphere", "vm_count=-1")}, "vm.count=-1: must be count, cpus or mem"),
        ({"config": ("x" * 66_000,)}, "IBM takes 65,536: shorten --config"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_made(
    ibm_cloud: IbmStub, ibm: IbmProvider, moto: Moto, asked: dict[str, Any], said: str
) -> None:
    ibm_cloud.calls.clear()
    with pytest.raises(ProviderError, match=re.escape(said)) as caught:
        ibm.check(plan(**asked))
    assert ibm_cloud.calls == keys(moto) == [] and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({"IBMCLOUD_API_KEY": "wrong"}, "does not take these credentials (IBMCLOUD_API_KEY or"),
        ({"IBMCLOUD_API_KEY": ""}, "no credentials for IBM Cloud: set IBMCLOUD_API_KEY or VPC_A"),
        ({"EVO_IBM_REGION": ""}, "no region of IBM Cloud: set EVO_IBM_REGION"),
        ({"EVO_IBM_REGION": "eu-dee"}, "has no region 'eu-dee' (EVO_IBM_REGION or [ibm] region)."),
        (
            {"EVO_IBM_SUBNET": "other"},
            "EVO_IBM_SUBNET or [ibm] subnet: eu-de has no subnet",
        ),
        ({"EVO_IBM_SUBNET": ""}, "in eu-de there are: named-subnet-1, named-subnet-2"),
        ({"EVO_IBM_BUCKET": ""}, "no bucket: set EVO_IBM_BUCKET"),
        ({"EVO_IBM_COS_KEY": ""}, "no credentials for Cloud Object Storage: set EVO_IBM_COS_KEY"),
        ({"EVO_IBM_SSH_KEY": "bob"}, "EVO_IBM_SSH_KEY or [ibm] ssh_key: eu-de has no key 'bob'"),
        ({"VPC_URL": "http://127.0.0.1:9/v1"}, "IBM Cloud cannot be asked: "),
        ({"MONGO_URL": "mongodb://a:b@localhost:27017/x"}, "MONGO_URL is on this machine"),
        ({"EVO_OWNER": "bob"}, "no security group evo-bob: python cluster/manage.py setup --prov"),
    ],
)
def test_settings_that_are_no_good_are_told_in_one_line(
    ibm_cloud: IbmStub, env: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in env.items():
        if value:
            monkeypatch.setenv(name, value)
        else:
            monkeypatch.delenv(name)
    ibm_cloud.calls.clear()
    done = launch("--config=sphere", IBM)
    assert done.exit_code == 1 and said in complaint(done.stderr)
    assert ibm_cloud.calls == []


def test_a_subnet_without_a_way_out_is_told(
    ibm_cloud: IbmStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVO_IBM_SUBNET", "named-subnet-2")
    done = manage("check", IBM)
    assert done.exit_code == 1 and "no public gateway" in complaint(done.stderr)
    monkeypatch.setenv("EVO_IBM_SUBNET", "named-subnet-1")
    assert "nothing is missing" in manage("check", IBM).output


def test_what_ibms_own_asked_for_is_told_to_be_retired() -> None:
    done = launch("-n", "one", "--datacenter", "dal10", IBM)
    assert "SoftLayer), whose data centers these are, is retired" in complaint(done.stderr)


def test_a131_a_dry_run_shows_all_with_its_price_and_writes_nothing(
    ibm_cloud: IbmStub, ibm: IbmProvider, moto: Moto
) -> None:
    ibm_cloud.calls.clear()
    done = launch("--config=sphere lr=0.1", "--size=3", IBM, "-n", "one", "--dry-run")
    assert done.exit_code == 0, done.output
    assert "head cx2-4x8 and 3 × cx2-8x16: 28 cores, about $1.40 an hour" in done.output
    assert "CONFIG=(sphere lr=0.1)" in done.output and "X-Amz-Signature" not in done.output
    assert ibm_cloud.calls == keys(moto) == []


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
