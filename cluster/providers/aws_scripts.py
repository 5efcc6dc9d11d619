"""The scripts that machines run when they start: values of one machine, then the same for all.

No secret is in them: machines fetch the password of redis, and the address of the user's MongoDB,
with the rights of their role.
"""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from cluster.addresses import PORT
from cluster.providers import CloudPlan, ProviderError
from cluster.providers.aws_session import Names

FOLDER = Path(__file__).parent / "aws_start"
MAX_BYTES = 16_384  # that AWS takes


@dataclass(frozen=True)
class Start:
    """What the machines of a cluster have to know."""

    names: Names
    region: str
    bucket: str
    bundle: str  # its key in the bucket
    sha256: str  # of the bundle
    password: str  # the parameter
    store_url: str  # the parameter; "": results are put into the bucket
    deadline: int  # seconds since 1970, when all ends

    def head(self, plan: CloudPlan) -> str:
        """The head's script."""
        values = {
            **self._common("head.txt"),
            "STORE_URL": self.store_url,
            "GROUP": self.names.group,
            "EXPERIMENT": plan.experiment,
            "KEEP": "yes" if plan.keep else "",
        }
        lists = {"CONFIG": plan.config}
        return _script(values, lists, "head")

    def worker(self, plan: CloudPlan, head: str) -> str:
        """The script of every machine of workers, now and later; ``head`` is its address."""
        values = {
            **self._common("worker.txt"),
            "HEAD": head,
            "WORKERS": str(plan.cpus_per_node),
        }
        lists = {"WORKER": tuple(shlex.split(plan.worker_command))}
        return _script(values, lists, "worker")

    def _common(self, log_name: str) -> dict[str, str]:
        return {
            "REGION": self.region,
            "BUCKET": self.bucket,
            "BUNDLE": self.bundle,
            "SHA256": self.sha256,
            "RUNS": self.names.runs,
            "LOG_NAME": log_name,
            "PASSWORD": self.password,
            "PORT": str(PORT),
            "DEADLINE": str(self.deadline),
        }


def _script(values: dict[str, str], lists: dict[str, tuple[str, ...]], role: str) -> str:
    """Compose a script: whatever the values hold, the shell takes it for nothing else.

    Raises:
        ProviderError: it is too long.
    """
    lines = [f"{name}={shlex.quote(value)}" for name, value in values.items()]
    lines += [f"{name}=({shlex.join(words)})" for name, words in lists.items()]
    parts = [_text(f"{role}_end"), _text("common"), _text(role)]
    made = "\n".join(["#!/bin/bash", "set -Eeuo pipefail", *lines, *parts])
    if len(made.encode()) > MAX_BYTES:
        raise ProviderError(
            f"the start script has {len(made.encode()):,} bytes, AWS takes {MAX_BYTES:,}: shorten"
            " --config"
        )
    return made


def _text(name: str) -> str:
    """A part that is the same for all, without its comments."""
    return re.sub(r"(?m)^ *# .*\n", "", (FOLDER / f"{name}.sh").read_text())
