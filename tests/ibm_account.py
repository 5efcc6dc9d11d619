"""An account with IBM Cloud for tests: the stub, and moto's object storage."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from aws_moto import Moto
from ibm_stub import KEY, IbmStub, playing_ibm

from cluster.providers import ibm
from cluster.providers.ibm import machines, session, setup
from cluster.providers.ibm.session import Ibm
from cluster.providers.ibm.setup import IbmAccount

REGION, BUCKET = "eu-de", "evo-of-ann"


@contextmanager
def playing_ibm_account(moto: Moto) -> Iterator[IbmStub]:
    """Play IBM Cloud, for this process and those it starts."""
    with playing_ibm() as (stub, url), pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "VPC_URL": f"{url}/v1",
            "VPC_AUTH_URL": url,
            "IBMCLOUD_API_KEY": KEY,
            "EVO_OWNER": "ann",
            "EVO_IBM_REGION": REGION,
            "EVO_IBM_SUBNET": "named-subnet-1",
            "EVO_IBM_BUCKET": BUCKET,
            "EVO_IBM_COS_KEY": "key",
            "EVO_IBM_COS_SECRET": "secret",
            "EVO_IBM_COS_URL": moto.url,
        }.items():
            patch.setenv(name, value)
        patch.setattr(machines, "LOOK_SECONDS", 0.01)
        patch.setattr(setup, "STORAGE", "{region}")  # moto knows AWS's classes only
        patch.setattr(session, "ATTEMPTS", 1)
        patch.setattr(ibm, "ATTEND_SECONDS", 0.01)
        account = IbmAccount("ann", Ibm())
        account.create_bucket(None)
        account.setup()
        yield stub


def put(moto: Moto, key: str, text: str) -> None:
    """As a machine stores something."""
    moto.client("s3").put_object(Bucket=BUCKET, Key=key, Body=text.encode())


def keys(moto: Moto, prefix: str = "code/") -> list[str]:
    """What is in the bucket."""
    found = moto.client("s3").list_objects_v2(Bucket=BUCKET, Prefix=prefix)
    return [each["Key"] for each in found.get("Contents", [])]


def forget_runs(moto: Moto) -> None:
    """Remove what clusters have left on purpose."""
    for key in keys(moto, "runs/"):
        moto.client("s3").delete_object(Bucket=BUCKET, Key=key)
