"""What IBM Cloud would take, or explain in its own words: refused before anything is made."""

import re
from typing import Any

import pytest
from aws_moto import Moto, launch, manage, plan
from botocore.exceptions import ClientError
from commands import complaint
from ibm_account import keys
from ibm_stub import IbmStub

from cluster.providers import ProviderError
from cluster.providers.ibm import IbmProvider
from cluster.providers.ibm.session import Ibm

IBM = "--provider=ibm"


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


def test_a_bucket_of_somebody_else_is_told(
    ibm_cloud: IbmStub, moto: Moto, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = ClientError({"Error": {"Code": "BucketAlreadyExists"}}, "CreateBucket")
    closed = ClientError({"Error": {"Code": "403"}}, "HeadBucket")
    monkeypatch.setattr(Ibm, "store", Ibm().store)
    events = Ibm.store.meta.events
    events.register("before-call.s3.CreateBucket", lambda **_: _raise(taken))
    events.register("before-call.s3.HeadBucket", lambda **_: _raise(closed))
    done = manage("create-bucket", "--name=evo-other", IBM)
    assert complaint(done.stderr).endswith("bucket evo-other is somebody else's: choose another")


def _raise(error: BaseException) -> None:
    raise error


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
