"""Many runs with one command: what is asked for, run, skipped, told and compared."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from commands import ROOT, Command, Place, complaint, run_here, setting, wait_until
from paced import PACE
from slurm_stub import StubSlurm
from stores import end_server

from cluster.grid import grid_jobs, parse_envs, parse_seeds, parse_vary
from cluster.jobs import DONE, FAILED, JobError, JobFolder
from cluster.launch_multi import cli

LAUNCH = "cluster/launch_multi.py"
TINY = {
    **{"num_generations": 3, "pop_size": 4, "eval_episodes": 1, "final_episodes": 2},
    **{"noise_size": 50_000},
}
CONFIG = f"--config=sphere {' '.join(setting(**TINY))}"
GAMES = ("Sphere-v0", "CartPole-v1")


class Desk(Place):
    """A private machine with a store, from which grids are launched."""

    def __init__(self) -> None:
        super().__init__(store=True)
        self.grid = self.runs / "grids" / "g"

    def launch(self, *words: str) -> Command:
        return self.start(LAUNCH, "--name=g", *words)

    def jobs(self) -> dict[str, JobFolder]:
        """By the beginning of their names, which says what is special about them."""
        folders = [file.parent for file in self.grid.glob("*/job.json")]
        return {folder.name.rpartition("-")[0]: JobFolder(folder) for folder in folders}

    def __exit__(self, *_: object) -> None:
        for file in self.runs.rglob("store.sqlite"):
            end_server(file)
        super().__exit__()


@pytest.fixture
def desk() -> Iterator[Desk]:
    with Desk() as desk:
        yield desk


# --- the grid


def test_a_grid_is_envs_times_changes_times_seeds() -> None:
    vary = ["sigma=0.1,0.2", "hidden_sizes=[],[8, 8]"]
    jobs, _ = grid_jobs("sphere lr=0.1", "1..3", ",".join(GAMES), vary)
    assert len({job.config for job in jobs}) == len({job.name for job in jobs}) == 24
    words = ("sphere", "lr=0.1", "sigma=0.2", "hidden_sizes=[8, 8]", "env_name=CartPole-v1")
    assert jobs[-1].config == (*words, "seed=3")
    assert {job.label for job in jobs if job.seed == 1} == {job.label for job in jobs}


def test_a_grid_has_the_same_name_with_more_seeds() -> None:
    names = [grid_jobs("sphere", seeds, None, ["lr=1"])[1] for seeds in ("1", "1..9")]
    assert names[0] == names[1] != grid_jobs("sphere", "1", None, ["lr=2"])[1]
    few, many = ({job.name for job in grid_jobs("x", s, None, [])[0]} for s in ("1", "1..9"))
    assert few < many


def test_keys_that_belong_together_vary_together() -> None:
    """As ga-dist's bandits: pairs of population and survivors."""
    pairs = "pop_size=1000 n_parents=50 | pop_size=10 n_parents=5"
    assert parse_vary(pairs) == [("pop_size=1000", "n_parents=50"), ("pop_size=10", "n_parents=5")]


def test_environments_come_from_a_list_a_file_or_a_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "games.txt"
    file.write_text("# of the first experiment\nSphere-v0\n\nCartPole-v1  # easy\n")
    for text in (",".join(GAMES), f"@{file}", "@test_launch_multi:GAMES"):
        assert parse_envs(text) == list(GAMES)


@pytest.mark.parametrize(
    ("parse", "text", "said"),
    [
        (parse_seeds, "1-5", "write them as 1..5 or 1,2,7..9"),
        (parse_seeds, "5..1", "write them as 1..5"),
        (parse_seeds, "1..3,2", "--seeds: 2 is named twice"),
        (parse_seeds, "0..9999999999", "10,000 jobs at most"),
        (parse_vary, "sigma", "write it as sigma=0.05,0.1"),
        (parse_vary, "sigma=1,", "write it as sigma=0.05,0.1"),
        (parse_vary, "sigma=1,1", "is named twice"),
        (parse_envs, "@nothing", "there is no file nothing"),
        (parse_envs, "@test_launch_multi:NOTHING", "has no 'NOTHING'"),
        (parse_envs, "@test_launch_multi:LAUNCH", "must be a list of ids"),
        (parse_envs, "A,,B", "has an empty entry"),
    ],
)
def test_what_is_no_grid_is_refused(parse, text: str, said: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(JobError, match=re.escape(said)):
        parse(text)


def test_a_key_is_set_once() -> None:
    with pytest.raises(JobError, match="sigma is set twice"):
        grid_jobs("sphere sigma=1", "1", None, ["sigma=1,2"])
    with pytest.raises(JobError, match="seed is set twice"):
        grid_jobs("sphere seed=1", "1", None, [])


# --- launching


def test_a120_a_dry_run_tells_jobs_and_cost_and_without_yes_it_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVO_RUNS", str(tmp_path))
    grid = [CONFIG, "--seeds=1..5", "--envs=Sphere-v0", "--num_workers=4", "--hours=3"]
    shown = CliRunner().invoke(cli, [*grid, "--price=0.05", "--dry-run"])
    assert shown.exit_code == 0, shown.output
    assert shown.output.count("es with sphere") == 5
    assert "5 jobs, 0 of them done" in shown.output
    assert "at most 60.00 core-hours, at most 3.00 to pay" in shown.output
    asked = CliRunner().invoke(cli, grid, input="n\n")
    assert asked.exit_code == 1 and "launch? [y/N]" in asked.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a120_what_fails_is_told_and_what_is_done_is_skipped(desk: Desk) -> None:
    desk.env["PYTHONPATH"] = str(ROOT / "tests")
    config = f"--config={' '.join(setting(**TINY))}"
    first = desk.launch(
        *(config, "-y", "--jobs=2", "--envs=paced:BrokenSphere-v0,paced:PacedSphere-v0")
    )
    assert first.end() == 1
    assert "Error: of 2 jobs 1 are done, 1 failed" in first.err
    jobs = desk.jobs()
    failed, done = jobs["paced-BrokenSphere-v0-seed=1"], jobs["paced-PacedSphere-v0-seed=1"]
    assert (failed.status, done.status) == (FAILED, DONE)
    assert "a broken sphere" in failed.state()["reason"]
    assert f"failed: {failed.name}: {failed.state()['reason']}" in first.err
    before = done.head_log.stat().st_mtime_ns
    second = desk.launch(config, "-y", "--seeds=1,2", "--envs=paced:PacedSphere-v0").succeed()
    assert "2 jobs, 1 of them done: 1 to run" in second and "2 of 2 jobs are done" in second
    assert done.head_log.stat().st_mtime_ns == before
    finished = [job.state()["run"] for job in desk.jobs().values() if job.status == DONE]
    assert len(set(finished)) == 2
    assert (desk.grid / "comparison.png").read_bytes().startswith(b"\x89PNG")
    assert re.search(r"paced:PacedSphere-v0  all  runs 2  final -", second)


@pytest.mark.slow
def test_ctrl_c_ends_all_and_the_grid_goes_on_to_the_same_end(desk: Desk) -> None:
    config = {**TINY, "num_generations": 100, "hidden_sizes": [], "output_activation": "none"}
    env = "paced:PacedSphere-v0"
    desk.env |= {"PYTHONPATH": str(ROOT / "tests"), PACE: "0.05"}
    grid = (f"--config={' '.join(setting(**config))}", f"--envs={env}", "--seeds=1,2", "-y")
    first = desk.launch(*grid, "--jobs=2")
    wait_until(
        lambda: sum("generation 1/" in job.said() for job in desk.jobs().values()) == 2, first
    )
    again = desk.launch(*grid)
    assert again.end() == 1 and "another process runs the jobs" in complaint(again.err)
    first.ctrl_c()
    assert first.end() == 1 and "2 interrupted" in first.err
    end_server(desk.runs / "store.sqlite")
    wait_until(lambda: desk.leftovers() == [], desk.leftovers)
    desk.env[PACE] = "0"
    assert "2 of 2 jobs are done" in desk.launch(*grid, "--jobs=2").succeed()
    for seed, job in enumerate(sorted(desk.jobs().values(), key=lambda job: job.name), 1):
        expected = run_here(evaluator="local", env_name=env, seed=seed, **config)
        assert expected.info["theta sha256"] in job.said()


@pytest.mark.slow
def test_a120_a_grid_of_slurm_jobs(desk: Desk) -> None:
    slurm = StubSlurm(desk.folder / "slurm")
    desk.env |= slurm.env
    grid = (CONFIG, "--seeds=1,2", "--provider=slurm", "--cpus-per-node=1", "-y")
    first = desk.launch(*grid, "--hours=0.5", "--sittings=4").succeed()
    assert "at most 4.00 core-hours" in first and first.count("job ") == 2
    wait_until(lambda: all(job.status == DONE for job in desk.jobs().values()), desk.jobs())
    second = desk.launch(*grid).succeed()
    assert "2 of 2 jobs are done" in second and "runs 2" in second
    assert len(slurm.calls("sbatch")) == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--config=sphere sigmaa=1"], "no config key 'sigmaa'. Did you mean 'sigma'?"),
        (["--config=sphere", "--vary=sigma=0.1,-1"], "sigma=-1: must be a number, 0 or more"),
        (["--config=sphere", "--envs=Sphere-v0,Nope-v1"], "no environment 'Nope-v1'"),
        (["--experiment=gaa"], "no experiment 'gaa'; known: es, ga"),
        (["--local", "--provider=slurm"], "--local or --provider: choose one"),
        (["--out=figure.txt"], "choose a file that ends in .png, .svg"),
    ],
)
def test_a_bad_grid_is_refused_before_anything_is_started(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVO_RUNS", str(tmp_path))
    done = CliRunner().invoke(cli, [*words, "-y"])
    assert done.exit_code == 1
    assert said in complaint(done.stderr)
    assert list(tmp_path.iterdir()) == []
