"""The scripts that machines on IBM Cloud start with.

They hold links instead of secrets: each is good for one object of the bucket, and ends with the
cluster, for that removes the object.
"""

import shlex
from collections.abc import Callable
from dataclasses import dataclass

from cluster.addresses import PORT
from cluster.providers import CloudPlan
from cluster.providers.clouds import InBucket
from cluster.providers.scripts import Scripts

SCRIPTS = Scripts("ibm", most_bytes=65_536)
STATE = "state.txt"  # how the run has ended; there when it has

Link = Callable[[str, str], str]  # of get_object or put_object, and a key


@dataclass(frozen=True)
class Place(InBucket):
    """The keys of what a cluster keeps in the bucket, where its machines find it."""

    @property
    def bundle(self) -> str:
        return f"{self.code}bundle.tar.gz"

    @property
    def password(self) -> str:
        return f"{self.code}redis-password"

    @property
    def store_url(self) -> str:
        return f"{self.code}mongo-url"

    @property
    def plan(self) -> str:
        return f"{self.code}plan.json"

    @property
    def state(self) -> str:
        return f"{self.runs}{STATE}"

    def log(self, number: int) -> str:
        """What a machine has said; 0 is the head."""
        return f"{self.runs}{'head' if number == 0 else f'worker-{number}'}.txt"


@dataclass(frozen=True)
class Start:
    """What the machines of a cluster have to know."""

    place: Place
    sha256: str  # of the bundle
    deadline: int  # seconds since 1970, when all ends
    has_store: bool  # results go to the user's MongoDB
    link: Link

    def head(self, plan: CloudPlan) -> str:
        """The head's script."""
        values = {
            **self._common(0),
            "STORE_URL": self.link("get_object", self.place.store_url) if self.has_store else "",
            "STATE_LINK": self.link("put_object", self.place.state),
            "RUNS_LINK": self.link("put_object", f"{self.place.runs}runs.tar.gz"),
            "ENDED_LINK": "",
            "EXPERIMENT": plan.experiment,
            "KEEP": "yes" if plan.keep else "",
        }
        return SCRIPTS.composed("head", values, {"CONFIG": plan.config})

    def worker(self, plan: CloudPlan, number: int, head: str) -> str:
        """The script of a machine of workers; ``head`` is the head's address."""
        values = {
            **self._common(number),
            "STORE_URL": "",
            "STATE_LINK": "",
            "RUNS_LINK": "",
            "ENDED_LINK": "" if plan.keep else self.link("get_object", self.place.state),
            "HEAD": head,
            "WORKERS": str(plan.cpus_per_node),
        }
        words = tuple(shlex.split(plan.worker_command))
        return SCRIPTS.composed("worker", values, {"WORKER": words})

    def _common(self, number: int) -> dict[str, str]:
        return {
            "BUNDLE": self.link("get_object", self.place.bundle),
            "SHA256": self.sha256,
            "LOG_NAME": "log.txt",
            "LOG_LINK": self.link("put_object", self.place.log(number)),
            "PASSWORD": self.link("get_object", self.place.password),
            "PORT": str(PORT),
            "DEADLINE": str(self.deadline),
        }
