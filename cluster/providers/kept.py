"""Jobs that leave all they say in folders which this machine sees: SLURM's, and its own."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from cluster.jobs import DONE, JobFolder, check_name, jobs_of
from cluster.providers import Plan, ProviderError, no_cluster

NO_FILES: Mapping[str, str] = {}


class KeptJobs:
    """The folders of one provider's jobs, each named after its cluster."""

    def __init__(self, folder: Path, provider: str) -> None:
        """Keep them in ``folder``."""
        self.folder, self._provider = folder.absolute(), provider

    def all(self) -> list[JobFolder]:
        """The oldest first."""
        return jobs_of(self.folder, self._provider)

    def find(self, name: str) -> JobFolder:
        """The job of that name: ProviderError if there is none."""
        known = {job.name: job for job in self.all()}
        if name not in known:
            raise no_cluster(name, [*known])
        return known[name]

    def free(self, plan: Plan) -> JobFolder:
        """Where a plan's job is to be kept; it may have been there before.

        Raises:
            ProviderError: another job is there, or this one is done.
        """
        job = JobFolder(self.folder / check_name(plan.name))
        if not job.is_described:
            return job
        before = job.read()
        if (before.get("experiment"), before.get("config")) != (plan.experiment, list(plan.config)):
            raise ProviderError(f"{job.path} holds another job: choose another --name")
        if job.status == DONE:
            raise ProviderError(f"{job.path}: this job is done already; --name makes another one")
        return job

    def prepare(self, job: JobFolder, plan: Plan, files: Mapping[str, str] = NO_FILES) -> None:
        """Note a plan in its folder, and write texts there, by the names of their files.

        Raises:
            ProviderError: nothing can be written there.
        """
        try:
            job.path.mkdir(parents=True, exist_ok=True)
            job.path.chmod(0o700)
            job.write(provider=self._provider, **dataclasses.asdict(plan))
            for name, text in files.items():
                (job.path / name).write_text(text)
        except OSError as error:
            raise ProviderError(f"{job.path}: {error.strerror}") from error

    def tail(self, name: str, lines: int, node: int | None) -> str:
        """The last lines of the head, or of a node's workers: ProviderError if there are none."""
        job = self.find(name)
        file = job.head_log if node is None else job.path / f"node_{node}.txt"
        if not file.exists():
            there = sorted(path.name for path in job.path.glob("*.txt"))
            raise ProviderError(
                f"{name} has no {file.name} yet; there are: {', '.join(there) or 'none'}"
            )
        return "\n".join(file.read_text(errors="replace").splitlines()[-lines:])
