"""Many runs: python cluster/launch_multi.py --experiment=ga --config=lander --seeds=1..5 --local"""

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from cluster.grid import GridJob, grid_jobs
from cluster.jobs import DONE, JobError, JobFolder, check_config, check_name
from cluster.pool import run_jobs
from cluster.providers import QUEUES, Plan, ProviderError, provider
from store.command_line import check_out, in_one_line
from store.location import runs_folder
from utils.program import set_up_program, until_told_to_end
from utils.settings import setting

ENDINGS = (".png", ".svg")
IN_THE_QUEUE = ("pending", "running", "completing", "configuring", "requeued", "requeue_hold")
SMOOTH = 20  # generations
IDLE_SECONDS = 2.0  # after which the server of a store that was looked at ends


@dataclass(frozen=True)
class Launch:
    """What the command line says, checked."""

    experiment: str
    jobs: list[GridJob]
    folder: Path  # of the grid
    cores: int  # of a job
    hours: float  # of a job, or of one sitting of it
    sittings: int
    price: float | None  # of a core-hour
    at_once: int  # jobs, on this machine

    def folder_of(self, job: GridJob) -> JobFolder:
        return JobFolder(self.folder / job.name)

    def left(self) -> list[GridJob]:
        """Those that are not done."""
        return [job for job in self.jobs if self.folder_of(job).status != DONE]

    def summary(self) -> str:
        left = len(self.left())
        hours = left * self.cores * self.hours * self.sittings
        cost = "" if self.price is None else f", at most {hours * self.price:,.2f} to pay"
        sittings = "" if self.sittings == 1 else f", at most {self.sittings} times"
        return (
            f"{len(self.jobs)} jobs, {len(self.jobs) - left} of them done: {left} to run, each"
            f" {self.cores} cores for {self.hours:g} hours{sittings}\n"
            f"at most {hours:,.2f} core-hours{cost}"
        )


def _options(command: Callable[..., None]) -> Callable[..., None]:
    """Those of the grid, of where it runs, and of what is told."""
    at_least_one = click.IntRange(min=1)
    hours = click.FloatRange(min=0, min_open=True)
    for option in reversed(
        (
            click.option("--experiment", default="es", show_default=True, help="es or ga."),
            click.option("--config", default="", help="What stands behind `with` in all of them."),
            click.option("--seeds", default="1", show_default=True, help="1..5 or 1,2,7..9."),
            click.option("--envs", help="A,B or @FILE, one a line, or @package.module:NAME."),
            click.option("--vary", multiple=True, help="sigma=0.05,0.1; several make a grid."),
            click.option("--local", is_flag=True, help="Run them here: the default."),
            click.option(
                "--jobs", type=at_least_one, default=1, show_default=True, help="At once."
            ),
            click.option("--num_workers", type=at_least_one, default=1, show_default=True),
            click.option("--provider", "provider_name", type=click.Choice(QUEUES)),
            click.option("--nodes", type=at_least_one, default=1, show_default=True),
            click.option("--cpus-per-node", "--cpus_per_node", type=at_least_one),
            click.option("--partition"),
            click.option("--option", "options", multiple=True, help="For sbatch."),
            click.option("--sittings", type=at_least_one, default=20, show_default=True),
            click.option("--hours", type=hours, default=1.0, show_default=True, help="Of a job."),
            click.option("--price", type=click.FloatRange(min=0), help="Of a core-hour."),
            click.option("--name", help="Of the grid; default: from what it is."),
            click.option("--folder", type=click.Path(file_okay=False, path_type=Path)),
            click.option("--metric", default="current fitness", show_default=True),
            click.option("--out", type=click.Path(path_type=Path), help="Figure: .png or .svg."),
            click.option("--dry-run", "--dry_run", "dry_run", is_flag=True),
            click.option("--yes", "-y", is_flag=True, help="Do not ask."),
        )
    ):
        command = option(command)
    return command


@click.command()
@_options
def cli(*, yes: bool, dry_run: bool, metric: str, out: Path | None, **options: Any) -> None:
    """Runs of seeds × envs × changes; what is done is skipped when it is asked for again.

    At the end all runs are compared in one figure, with a panel for each environment.
    """
    set_up_program()
    with in_one_line(ProviderError, OSError):
        if out is not None:
            check_out(out, ENDINGS)
        begin, launch = _prepare(**options)
        for job in launch.jobs if dry_run else ():
            status = launch.folder_of(job).status or "new"
            click.echo(f"{status:<12} {launch.experiment} with {' '.join(job.config)}")
        click.echo(launch.summary())
        if dry_run:
            return
        if launch.left() and (yes or click.confirm("launch?", abort=True)):
            launch.folder.mkdir(parents=True, exist_ok=True)
            with _alone(launch.folder):
                begin(launch)
        _conclude(launch, metric, out or launch.folder / "comparison.png")


def _prepare(
    *,
    experiment: str,
    config: str,
    seeds: str,
    envs: str | None,
    vary: Sequence[str],
    name: str | None,
    folder: Path | None,
    hours: float,
    price: float | None,
    **where: Any,
) -> tuple[Callable[[Launch], None], Launch]:
    """What begins the jobs, and which; all that may be refused is refused here."""
    jobs, digest = grid_jobs(config, seeds, envs, vary)
    grid = (folder or runs_folder() / "grids") / check_name(name or f"{experiment}-{digest}")
    on_cluster = where["provider_name"] is not None
    if on_cluster and where["local"]:
        raise JobError("--local or --provider: choose one")
    begin: Callable[[Launch], None]
    if on_cluster:
        begin, cores, sittings = _on_cluster(grid, experiment, hours, **where)
    else:
        workers = where["num_workers"]
        begin, cores, sittings = _here, workers, 1
    launch = Launch(experiment, jobs, grid.absolute(), cores, hours, sittings, price, where["jobs"])
    _check_configs(launch)
    return begin, launch


def _check_configs(launch: Launch) -> None:
    """Each config of a job that is left, with one of its seeds."""
    different = {job.config[:-1]: job.config for job in launch.left()}
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        checks = [
            threads.submit(check_config, launch.experiment, config) for config in different.values()
        ]
        try:
            for check in checks:
                check.result()
        finally:
            threads.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Nobody else runs the same grid meanwhile."""
    with open(folder / "lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise JobError(f"another process runs the jobs of {folder}: wait for it") from None
        yield


# --- where they run


def _here(launch: Launch) -> None:
    """On this machine, each with a server and workers of its own."""
    lasts = until_told_to_end()
    left = [launch.folder_of(job) for job in launch.left()]
    for job in launch.left():
        launch.folder_of(job).write(experiment=launch.experiment, config=list(job.config))
    kept = {name: value for name, value in os.environ.items() if not name.startswith("EVO_REDIS")}
    with tempfile.TemporaryDirectory(prefix="evo-grid-") as nobody:  # where no run-server is noted
        run_jobs(
            left,
            at_once=launch.at_once,
            seconds=launch.hours * 3600,
            where=[f"num_workers={launch.cores}"],
            env={**kept, "XDG_RUNTIME_DIR": nobody},
            lasts=lasts,
        )


def _on_cluster(
    grid: Path, experiment: str, hours: float, *, provider_name: str, **where: Any
) -> tuple[Callable[[Launch], None], int, int]:
    """What submits the jobs; cores and sittings of each."""
    chosen = provider(provider_name, grid)
    names = ("nodes", "cpus_per_node", "partition", "options", "sittings")
    shape = {name: where[name] for name in names}
    common = chosen.check(Plan("x", experiment, (), hours=hours, **shape))

    def begin(launch: Launch) -> None:
        there = {each.name for each in chosen.list() if each.status in IN_THE_QUEUE}
        for job in launch.left():
            if job.name not in there:
                fields = {**vars(common), "name": job.name, "config": job.config}
                made = chosen.create(Plan(**fields))
                click.echo(f"job {made.job}: {made.name}")
        click.echo(
            f"all are in the queue; see python cluster/manage.py list --folder={grid}, and give"
            " this command again to go on with what failed and to compare what is done"
        )

    return begin, common.nodes * (common.cpus_per_node or 1), common.sittings


# --- the end


def _conclude(launch: Launch, metric: str, out: Path) -> None:
    """Tell what failed, and compare what is done.

    Raises:
        JobError: not all are done.
    """
    done = [job for job in launch.jobs if launch.folder_of(job).status == DONE]
    if done:
        _compare(launch, done, metric, out)
    counts: dict[str, int] = {}
    for job in launch.left():
        state = launch.folder_of(job).state()
        status = state.get("status", "new")
        counts[status] = counts.get(status, 0) + 1
        if state.get("reason"):
            click.echo(f"{status}: {job.name}: {state['reason']}", err=True)
    told = ", ".join(f"{number} {status}" for status, number in counts.items())
    if set(counts) - {"submitted", "running", "requeued"}:
        raise JobError(f"of {len(launch.jobs)} jobs {len(done)} are done, {told}")
    click.echo(f"{len(done)} of {len(launch.jobs)} jobs are done{', ' + told if told else ''}")


def _compare(launch: Launch, jobs: Sequence[GridJob], metric: str, out: Path) -> None:
    """A panel for each environment, a curve for each config, over the seeds."""
    from store.comparison.curves import BANDS, ESTIMATES
    from store.comparison.figures import draw_panels
    from store.comparison.learning import Learning, final_values, learn, read_curve
    from store.reader import RunReader

    curves: dict[str, dict[str, list[Any]]] = {}
    for job in jobs:
        folder = launch.folder_of(job)
        with _store_of(folder) as store:
            curve = read_curve(
                RunReader(store, int(folder.state()["run"])), metric, "generation", SMOOTH
            )
        panel = curves.setdefault(curve.task, {})
        panel.setdefault(job.label, []).append(curve)
    estimate, band = ESTIMATES["iqm"], BANDS["ci"]
    panels: dict[str, list[Learning]] = {}
    for task, groups in curves.items():
        panels[task] = [
            learn(label, found, "generation", estimate, band) for label, found in groups.items()
        ]
        for each in panels[task]:
            final = final_values(each, estimate, band)
            values = "  ".join(f"{name} {value:,.2f}" for name, value in final.items())
            click.echo(f"{task}  {each.label}  runs {len(each.curves)}  {values}")
    caption = "line: iqm over the seeds; band: its 95 % bootstrap interval"
    draw_panels(panels, out, caption, metric=metric, axis="generation")
    click.echo(f"wrote {out}")


@contextlib.contextmanager
def _store_of(job: JobFolder) -> Iterator[Any]:
    """The store that has a job's run: one that all share, or the job's own."""
    from store.embedded.start import embedded_url
    from store.location import find_store, open_store

    own = job.path / "runs" / "store.sqlite"
    is_own = own.exists() and setting("store", "url") is None
    store = open_store(embedded_url(own, IDLE_SECONDS)) if is_own else find_store()
    try:
        yield store
    finally:
        store.client.close()


if __name__ == "__main__":
    cli()
