"""Talking to IBM Cloud: clients, the names of what is ours there, and errors in one line.

Machines are those of a VPC. The classic infrastructure, once SoftLayer, and its data centers are
not spoken to: what the earlier system used of it is retired.
"""

import functools
import os
from collections.abc import Iterator, Mapping
from typing import Any

from cluster.providers import ProviderError
from cluster.providers.clouds import telling
from utils.names import did_you_mean
from utils.settings import VARIABLES, setting

VERSION = "2026-10-06"  # of the API, by its date: what these files were written for
ATTEMPTS, RETRY_SECONDS = 4, 5.0  # of a call that fails for no fault of ours
PAGE = 100
KEY_VARIABLES = ("IBMCLOUD_API_KEY", "VPC_APIKEY")
NO_CREDENTIALS = (
    f"no credentials for IBM Cloud: set {' or '.join(KEY_VARIABLES)}, or keep them in"
    " ~/ibm-credentials.env"
)
COS = "https://s3.{where}{region}.cloud-object-storage.appdomain.cloud"


class Ibm:
    """Clients of one account in one region; nothing is asked before it is needed."""

    @functools.cached_property
    def region(self) -> str:
        """Where machines stand.

        Raises:
            ProviderError: none is set, or there is none of that name.
        """
        from ibm_vpc import VpcV1

        where = f"{VARIABLES['ibm', 'region']} or [ibm] region"
        if not (region := setting("ibm", "region")):
            raise ProviderError(f"no region of IBM Cloud: set {where}, such as eu-de")
        known = sorted(VpcV1.REGIONAL_ENDPOINTS)
        if region not in known:
            hint = did_you_mean(region, known)
            raise ProviderError(f"IBM Cloud has no region {region!r} ({where}).{hint}")
        return region

    @functools.cached_property
    def vpc(self) -> Any:
        """Machines, images, subnets, security groups."""
        from ibm_cloud_sdk_core import get_authenticator_from_environment
        from ibm_cloud_sdk_core.authenticators import IAMAuthenticator
        from ibm_vpc import VpcV1

        region = self.region
        try:
            if key := os.environ.get(KEY_VARIABLES[0]):
                authenticator = IAMAuthenticator(key, url=os.environ.get("VPC_AUTH_URL"))
            else:
                authenticator = get_authenticator_from_environment("vpc")
        except ValueError as error:
            raise ProviderError(f"{NO_CREDENTIALS} ({_line(error)})") from error
        if authenticator is None:
            raise ProviderError(NO_CREDENTIALS)
        client = VpcV1(version=VERSION, authenticator=authenticator)
        client.set_service_url(VpcV1.get_service_url_for_region(region))
        client.configure_service("vpc")  # VPC_URL and the like, which IBM's own programs read
        client.enable_retries(max_retries=ATTEMPTS - 1, retry_interval=RETRY_SECONDS)
        return client

    def pages(self, kind: str, **asked: Any) -> Iterator[Any]:
        """All items of an answer that comes in pages; ``kind`` as the library calls its pager."""
        import ibm_vpc.vpc_v1 as library

        pager = getattr(library, f"{kind}Pager")(client=self.vpc, limit=PAGE, **asked)
        while pager.has_next():
            yield from pager.get_next()

    @functools.cached_property
    def store(self) -> Any:
        """Object storage, from here."""
        return self._store("")

    @functools.cached_property
    def near_store(self) -> Any:
        """Object storage, as machines of the region reach it."""
        return self._store("direct.")

    def _store(self, where: str) -> Any:
        import boto3
        from botocore.config import Config

        key, secret = setting("ibm", "cos_key"), setting("ibm", "cos_secret")
        if not (key and secret):
            names = f"{VARIABLES['ibm', 'cos_key']} and {VARIABLES['ibm', 'cos_secret']}"
            raise ProviderError(
                f"no credentials for Cloud Object Storage: set {names} to those of a service"
                " credential with HMAC"
            )
        return boto3.Session().client(
            "s3",
            region_name=self.region,
            endpoint_url=setting("ibm", "cos_url") or COS.format(where=where, region=self.region),
            aws_access_key_id=key,
            aws_secret_access_key=secret,
            config=Config(
                signature_version="s3v4",
                s3={"addressing_style": "path"},
                # IBM's store knows no newer checksums
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
            ),
        )

    @property
    def bucket(self) -> str:
        """Where code, logs and results go.

        Raises:
            ProviderError: none is set: the names of buckets are common to all of IBM's users.
        """
        if not (name := setting("ibm", "bucket")):
            where = f"{VARIABLES['ibm', 'bucket']} or [ibm] bucket"
            raise ProviderError(f"no bucket: set {where} to a name that nobody else has")
        return name

    def read(self, key: str) -> bytes | None:
        """An object of the bucket; None if there is none."""
        try:
            return bytes(self.store.get_object(Bucket=self.bucket, Key=key)["Body"].read())
        except self.store.exceptions.ClientError as error:
            if store_code(error) in ("NoSuchKey", "404"):
                return None
            raise

    def keys(self, prefix: str) -> list[str]:
        """The names of the bucket's objects that begin so."""
        pages = self.store.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix=prefix
        )
        return [each["Key"] for page in pages for each in page.get("Contents") or []]

    def link(self, operation: str, key: str, seconds: float) -> str:
        """A link to one object, for who has no credentials; good for so long.

        Args:
            operation: get_object or put_object.
        """
        return str(
            self.near_store.generate_presigned_url(
                operation, Params={"Bucket": self.bucket, "Key": key}, ExpiresIn=int(seconds)
            )
        )


def store_code(error: BaseException) -> str:
    """What the object store calls an error; "" if it is none of its."""
    answer = getattr(error, "response", None)
    return str(answer.get("Error", {}).get("Code", "")) if isinstance(answer, Mapping) else ""


def explained(error: BaseException) -> str | None:
    """What went wrong at IBM and what would be right; None for an error of another kind."""
    try:
        from botocore.exceptions import BotoCoreError, ClientError
        from ibm_cloud_sdk_core import ApiException
        from requests import RequestException
    except ImportError:
        missing = isinstance(error, ImportError)
        return "no ibm-vpc: pip install -r requirements.txt" if missing else None
    if isinstance(error, ApiException):
        return _refused(error)
    if isinstance(error, ClientError):
        message = error.response["Error"].get("Message") or store_code(error)
        return f"Cloud Object Storage refuses {error.operation_name}: {_line(message)}"
    if isinstance(error, BotoCoreError | RequestException):
        return f"IBM Cloud cannot be asked: {_line(error)}"
    return None


told_in_one_line = telling(explained)


def _refused(error: Any) -> str:
    """Of the API, or of the service that gives out tokens."""
    message = _line(error.message)
    if error.status_code == 401 or "API key" in message:
        return (
            f"IBM Cloud does not take these credentials ({' or '.join(KEY_VARIABLES)}): {message}"
        )
    if error.status_code == 403:
        return f"these credentials may not do that: {message}"
    return f"IBM Cloud refuses: {message}"


def _line(said: object) -> str:
    return " ".join(str(said).split())
