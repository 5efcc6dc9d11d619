"""The scripts that machines run when they start: values of one machine, then the same for all.

No secret is in them: machines fetch the password of redis, and the address of the user's MongoDB,
with the rights of their role.
"""

import shlex
from dataclasses import dataclass

from cluster.addresses import PORT
from cluster.providers import CloudPlan, ProviderError
from cluster.providers.aws.session import Names
from cluster.providers.scripts import composed

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
    """Compose a script.

    Raises:
        ProviderError: it is too long.
    """
    made = composed(values, lists, (f"aws_{role}_end", "aws", "common", role))
    if len(made.encode()) > MAX_BYTES:
        raise ProviderError(
            f"the start script has {len(made.encode()):,} bytes, AWS takes {MAX_BYTES:,}: shorten"
            " --config"
        )
    return made
