"""What the README tells a user to type is executed, and its tables are held against the code."""

import re
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
from functools import partial

import pytest
from commands import EXPERIMENT, HEAD, ROOT, WORKER, Place
from stores import end_server

from es.experiment import ex
from nevergrad_es.experiment import ex as nevergrad

README = (ROOT / "README.md").read_text()
COMMANDS = sorted(
    {m[1].strip() for m in re.finditer(r"(?<![\w/-])python ([a-z_]+/\w+\.py[^`\n#]*)", README)}
)
OF_ES = {command for command in COMMANDS if command.startswith("es/")}
TARGETS = sorted({m[1] for m in re.finditer(r"\bmake ([a-z]+)\b(?=[`\n ]*(?:#|`|\n))", README)})
TINY = ["num_generations=1", "pop_size=4", "num_episodes=1", "eval_episodes=1", "final_episodes=2"]


def test_the_readme_has_commands() -> None:
    assert {"es/experiment.py with lander", "es/head.py run-server"} <= set(COMMANDS)
    assert {"lander", "test"} <= set(TARGETS)


@pytest.mark.slow
def test_a008_commands_of_evolution_strategies_work() -> None:
    """All of them, on one private machine, in an order that makes sense."""
    left = set(OF_ES)
    take = partial(take_from, left)

    with Place(store=True) as place:
        work_on_two_machines(place, *take("run-server --host"), *take("worker.py workers"))
    with Place(store=True) as place:
        for command in take("print_"):
            place.run(*command.split())
        (stop,) = take("run-server --stop")
        (server,) = take("run-server")
        place.start(*server.split()).says("server ready")
        for command in take("start-workers"):
            place.start(*command.split())
        assert take("evaluator=ray")  # on a Ray cluster: test_ray has one
        for command in take("experiment.py with"):  # the first of them becomes run 1
            assert "final fitness" in place.run(*command.replace("=12", "=1").split(), *TINY)
        (resume,) = take("experiment.py resume")
        killed = place.start(EXPERIMENT, "with", "sphere", "num_generations=60")
        killed.says("generation 1/")
        killed.send(signal.SIGKILL)
        killed.end()
        run_id = re.search(r'run with ID "(\d+)"', killed.err)
        assert run_id
        assert "final fitness" in place.run(*resume.replace("=12", f"={run_id[1]}").split())
        assert "workers alive" in place.run(*take("status")[0].split())
        assert "deleted" in place.run(*take("flush")[0].split())
        place.start(*stop.split()).says("server ready")
        end_server(place.runs / "store.sqlite")
    assert not left, "commands that this test does not know how to run"


def take_from(left: set[str], pattern: str) -> list[str]:
    """Those that the pattern is found in; they are left no more."""
    found = sorted(command for command in left if re.search(pattern, command))
    left.difference_update(found)
    return found


@pytest.mark.slow
def test_a008_all_other_commands_work() -> None:
    """Genetic algorithms, what looks at runs, clusters; two short runs stand for all."""
    left = set(COMMANDS) - OF_ES
    with Place(store=True) as place:

        def try_all(pattern: str, *more: str, **instead: str) -> list[str]:
            """Run what the pattern is found in, side by side; returns what each says."""
            known = {r"\b12(-16)?\b": "1", r"\b17(,18,20)?\b": "2", r"\b10-1\b": "0"}
            found = []
            for command in take_from(left, pattern):
                words = command
                for old, new in (known | instead).items():
                    words = re.sub(old, new, words)
                found.append(place.start(*shlex.split(words), *more))
            return [each.succeed() for each in found]

        settings = {"ga/settings.yaml": str(ROOT / "ga" / "settings.yaml")}
        small = *TINY, *("n_parents=2", "champions=1", "n_elite_candidates=1", "n_evals=1")
        brief = *small, "max_ep_length=40", "log_evaluations=True"
        for pattern in ("ga/experiment.py with lander$", "ga/experiment.py with"):
            for said in try_all(pattern, *brief, **settings):  # the first becomes run 1
                assert "theta sha256" in said
        try_all("ga/experiment.py print_config")
        try_all("nevergrad_es/experiment.py with", *TINY, "max_ep_length=40")  # becomes run 4
        try_all("nevergrad_es/experiment.py list_tools")
        (candidate,) = take_from(left, "--candidate")
        assert "return" in place.run(*shlex.split(candidate.replace("12", "4")))
        (text,) = try_all("genome.py show")
        of_text = {r"\b100\b": "12", "TEXT": text.strip()}
        assert "12 episodes" in try_all("genome.py evaluate", **of_text)[0]
        try_all("resim.py", "--runs=2")
        try_all(r"render.py 12 --export")
        try_all(r"render.py policy.json", **{"100": "2"})
        for said in try_all("render.py 12", "--max_ep_length=20", **{"1000": "2"}):
            assert "return" in said or "mean" in said
        try_all("compare.py")
        try_all("plot.py")
        assert "10 jobs" in try_all("launch_multi.py", "--dry-run")[0]
        (compared,) = try_all("compare_algorithms.py --done", f"--folder={place.runs}")
        assert "CMA, 5 episodes" in compared
        end_server(place.runs / "store.sqlite")
    # These need a job of a cluster or a browser: tests/test_slurm_real.py and test_board.py.
    named = {command.split()[0] for command in left}
    assert named == {"cluster/launch.py", "cluster/manage.py", "store/board.py"}


def work_on_two_machines(place: Place, server: str, workers: str) -> None:
    """As the README has it, but that both are this one."""
    port = str(free_port())
    place.env["EVO_REDIS_PASSWORD"] = secrets.token_hex(8)
    here = {"10.0.0.1": "127.0.0.1", "6379": port, "--num_workers 32": "--num_workers 2"}
    for each in here.items():
        server, workers = server.replace(*each), workers.replace(*each)
    place.start(*server.split()).says("server ready")
    place.start(*workers.split(), f"--master_port={port}")
    assert "final fitness" in place.run(EXPERIMENT, "with", "sphere", "local=False", *TINY)


def free_port() -> int:
    """A port that nobody uses just now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


@pytest.mark.skipif(shutil.which("make") is None, reason="no make here")
@pytest.mark.parametrize("target", TARGETS)
def test_a008_make_targets_exist(target: str) -> None:
    subprocess.run(["make", "-n", target], cwd=ROOT, check=True, capture_output=True)


def test_every_config_key_is_explained() -> None:
    config = ex.run("print_config", options={"--unobserved": True}).config
    section = README.partition("## Config keys")[2].partition("\n## ")[0]
    explained = set(re.findall(r"`(\w+)`", "\n".join(_first_cells(section))))
    assert explained == set(config)


def test_every_named_config_is_listed() -> None:
    section = README.partition("## Named configs")[2].partition("\n## ")[0]
    listed = set(re.findall(r"`(\w+)`", "\n".join(_first_cells(section))))
    assert listed == set(ex.named_configs)
    section = README.partition("## Any optimizer of Nevergrad")[2].partition("\n## ")[0]
    listed = set(re.findall(r"`(\w+)`", "\n".join(_first_cells(section))))
    assert listed == set(nevergrad.named_configs)


def _first_cells(section: str) -> list[str]:
    rows = [line for line in section.splitlines() if line.startswith("| `")]
    return [row.split("|")[1] for row in rows]


def test_commands_name_scripts_of_ours() -> None:
    for command in COMMANDS:
        assert (ROOT / command.split()[0]).is_file()
    assert {HEAD, WORKER} <= {command.split()[0] for command in COMMANDS}
