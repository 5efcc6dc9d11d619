"""Talking to AWS: clients, the names of what is ours there, and errors in one line."""

import functools
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from cluster.providers import ProviderError
from cluster.providers.clouds import InBucket, telling
from utils.names import did_you_mean
from utils.settings import VARIABLES, setting

ANSWER_SECONDS = 20  # that AWS has for a call
ATTEMPTS = 4  # of a call that fails for no fault of ours
EXPIRED = ("ExpiredToken", "ExpiredTokenException", "RequestExpired")
UNKNOWN_KEYS = (
    *("InvalidClientTokenId", "InvalidAccessKeyId", "UnrecognizedClientException"),
    *("AuthFailure", "SignatureDoesNotMatch", "InvalidToken"),
)
DENIED = ("AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "403")
OPT_IN = ("OptInRequired", "AuthFailure.OptIn")


class Aws:
    """Clients of one account in one region; nothing is asked before it is needed."""

    def __init__(self, region: str | None = None) -> None:
        """Talk to a region; None: that of the settings, else of AWS's own."""
        import boto3

        logging.getLogger("botocore").setLevel(logging.WARNING)  # it tells where keys come from
        self._session = boto3.Session()
        self.region = region or setting("aws", "region") or self._session.region_name or ""
        self._clients: dict[str, Any] = {}

    def check_region(self) -> None:
        """Refuse a region that there is not: ProviderError."""
        where = f"{VARIABLES['aws', 'region']} or [aws] region"
        if not self.region:
            raise ProviderError(f"no AWS region: set {where}, such as eu-west-1")
        known = [
            region
            for partition in self._session.get_available_partitions()
            for region in self._session.get_available_regions("ec2", partition)
        ]
        if self.region not in known:
            hint = did_you_mean(self.region, known)
            raise ProviderError(f"AWS has no region {self.region!r} ({where}).{hint}")

    def __getattr__(self, service: str) -> Any:
        """The client of a service, such as ``aws.ec2``."""
        if service.startswith("_"):
            raise AttributeError(service)
        if service not in self._clients:
            from botocore.config import Config

            self.check_region()
            self._clients[service] = self._session.client(
                service.replace("_", "-"),
                region_name=self.region,
                config=Config(
                    retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
                    connect_timeout=ANSWER_SECONDS,
                    read_timeout=3 * ANSWER_SECONDS,
                ),
            )
        return self._clients[service]

    @functools.cached_property
    def account(self) -> str:
        """The number of the account; asks AWS, so it tells whether the credentials are good."""
        return str(self.sts.get_caller_identity()["Account"])

    @property
    def partition(self) -> str:
        """What the names of resources begin with: aws, aws-cn, …"""
        return str(self._session.get_partition_for_region(self.region))

    def pages(self, service: str, operation: str, key: str, **asked: Any) -> Iterator[Any]:
        """All items of an answer that comes in pages."""
        for page in getattr(self, service).get_paginator(operation).paginate(**asked):
            yield from page.get(key) or []

    def bucket(self, name: str | None = None) -> str:
        """The bucket of this account and region, unless the settings name another."""
        return name or setting("aws", "bucket") or f"evo-clusters-{self.account}-{self.region}"


@dataclass(frozen=True)
class Mine:
    """The names of what an owner has in an account, in one region."""

    owner: str
    region: str

    @property
    def group(self) -> str:
        """The security group of all their machines."""
        return f"evo-{self.owner}"

    def role(self, role: str) -> str:
        """Role and profile of heads or workers; roles belong to the whole account."""
        return f"evo-{self.owner}-{self.region}-{role}"

    @property
    def password(self) -> str:
        """The parameter with the password of redis."""
        return f"/evo/{self.owner}/redis-password"

    @property
    def runs(self) -> str:
        """Where in the bucket logs and results are."""
        return f"runs/{self.owner}/"

    def cluster(self, name: str) -> "Names":
        return Names(self.owner, name)


@dataclass(frozen=True)
class Names(InBucket):
    """The names of what belongs to one cluster."""

    @property
    def group(self) -> str:
        """The Auto Scaling group, and the launch template."""
        return f"evo-{self.owner}-{self.name}"

    @property
    def store_url(self) -> str:
        """The parameter with the address of the user's MongoDB."""
        return f"/evo/{self.owner}/clusters/{self.name}/mongo-url"

    def tags(self, role: str, bundle: str) -> dict[str, str]:
        """What every machine is marked with; role is head or worker."""
        return {
            "Name": f"{'HEAD' if role == 'head' else 'WORK'}_{self.name}",
            "evo:owner": self.owner,
            "evo:cluster": self.name,
            "evo:role": role,
            "evo:bundle": bundle,
        }


def as_tags(tags: dict[str, str]) -> list[dict[str, str]]:
    """As most of AWS wants them."""
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def tags_of(found: dict[str, Any]) -> dict[str, str]:
    """Of something that AWS describes."""
    return {tag["Key"]: tag["Value"] for tag in found.get("Tags") or []}


def code_of(error: BaseException) -> str:
    """What AWS calls an error; "" if it is none of AWS's."""
    answer = getattr(error, "response", None)
    return str(answer.get("Error", {}).get("Code", "")) if isinstance(answer, dict) else ""


def explained(error: BaseException) -> str | None:
    """What went wrong at AWS and what would be right; None for an error of another kind."""
    try:
        from botocore import exceptions as known
    except ImportError:
        missing = isinstance(error, ImportError)
        return "no boto3: pip install -r requirements.txt" if missing else None
    if isinstance(error, known.NoCredentialsError | known.PartialCredentialsError):
        return (
            "no AWS credentials: say `aws configure`, or set AWS_PROFILE, or AWS_ACCESS_KEY_ID and"
            " AWS_SECRET_ACCESS_KEY"
        )
    if isinstance(error, known.ClientError):
        return _refused(error)
    if isinstance(error, known.BotoCoreError):
        return f"AWS cannot be asked: {' '.join(str(error).split())}"
    return None


told_in_one_line = telling(explained)


def _refused(error: Any) -> str:
    code, operation = code_of(error), error.operation_name
    message = " ".join(str(error.response["Error"].get("Message", "")).split())
    if code in EXPIRED:
        return "the AWS credentials have expired: get new ones (aws sso login, aws configure)"
    if code in UNKNOWN_KEYS:
        return f"AWS does not take these credentials ({code}): see `aws configure list`"
    if code in OPT_IN:
        return f"this account has not turned on that region: {message}"
    if code in DENIED:
        return f"these credentials may not {operation}: {message or code}"
    return f"AWS refuses {operation}: {message or code}"
