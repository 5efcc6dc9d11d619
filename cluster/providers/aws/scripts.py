"""The scripts that machines run when they start: values of one machine, then the same for all.

No secret is in them: machines fetch the password of redis, and the address of the user's MongoDB,
with the rights of their role.
"""

import shlex
from dataclasses import dataclass

from cluster.addresses import PORT
from cluster.providers import CloudPlan
from cluster.providers.aws.session import Names
from cluster.providers.scripts import Scripts

SCRIPTS = Scripts("aws", most_bytes=16_384)


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
        return SCRIPTS.composed("head", values, lists)

    def worker(self, plan: CloudPlan, head: str) -> str:
        """The script of every machine of workers, now and later; ``head`` is its address."""
        values = {
            **self._common("worker.txt"),
            "HEAD": head,
            "WORKERS": str(plan.cpus_per_node),
        }
        lists = {"WORKER": tuple(shlex.split(plan.worker_command))}
        return SCRIPTS.composed("worker", values, lists)

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
