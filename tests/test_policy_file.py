"""A policy as a text file: the same parameters and the same returns as from its run."""

import base64
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from commands import ROOT, run_here
from pymongo.database import Database
from stored import CARTPOLE, LANDER, SPHERE, Script, run_stored, without_display

from env.render import cli
from evolution.playback.policy_file import PolicyFile
from evolution.playback.subject import subject_of_file, subject_of_run
from store.reader import RunReader, read_policy
from store.recorder import theta_sha256


@pytest.fixture(scope="module")
def render(store: Database) -> Script:
    return Script(cli, store)


@pytest.fixture(scope="module")
def cartpole(store: Database) -> int:
    return run_stored(store, "cartpole", seed=3, **CARTPOLE)


@pytest.fixture(scope="module")
def lander(store: Database) -> int:
    """Evaluated on EnvPool, where it is installed."""
    return run_stored(store, "lander", seed=4, **LANDER)


@pytest.fixture(autouse=True)
def no_display(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    without_display(monkeypatch, tmp_path)


def without_store(*words: object) -> str:
    """The script's output, where asking for a store is an error."""
    done = CliRunner().invoke(cli, list(map(str, words)), obj=None)
    assert done.exit_code == 0, done.output
    return done.output


def results(output: str) -> list[str]:
    """What was played, without where it comes from and how long it took."""
    return [line for line in output.splitlines()[1:] if " left" not in line]


@pytest.mark.parametrize("task", ["cartpole", "lander"])
@pytest.mark.parametrize("words", [(), ("--gen", 0), ("--best",)])
def test_a109_a_policy_as_text_is_the_same_to_the_last_bit(
    task: str,
    words: tuple,
    render: Script,
    store: Database,
    request: pytest.FixtureRequest,
) -> None:
    run_id = request.getfixturevalue(task)
    output = render(run_id, *words, "--export", "policy.json")
    run = subject_of_run(store, run_id, 0 if "--gen" in words else None, "--best" in words)
    file = subject_of_file(Path("policy.json"))
    assert file.theta.tobytes() == run.theta.tobytes()
    assert f"wrote policy.json: theta sha256 {theta_sha256(file.theta)}" in output
    assert (file.problem, file.generation, file.name) == (run.problem, run.generation, run.name)
    assert file.problem.fingerprint() == RunReader(store, run_id).info["problem"]
    assert run.logged is not None and file.logged is not None
    assert file.logged.fitness == run.logged.fitness
    assert file.logged.seeds.tolist() == run.logged.seeds.tolist()


@pytest.mark.parametrize("task", ["cartpole", "lander"])
def test_a109_equal_returns_from_file_and_from_run(
    task: str, render: Script, request: pytest.FixtureRequest
) -> None:
    run_id = request.getfixturevalue(task)
    render(run_id, "--export", "policy.json")
    film = ("--record", "a.gif", "--num_episodes", 8, "--max_ep_length", 3)
    for words in (("--evaluate", 10, "--seed", 9), film):
        from_run, from_file = render(run_id, *words), without_store("policy.json", *words)
        assert results(from_file) == results(from_run)
        assert len(results(from_run)) >= 1
    assert f"policy.json (run {run_id}, ES), " in from_file


def test_a109_the_logged_fitness_is_played_again_from_a_file(render: Script, cartpole: int) -> None:
    render(cartpole, "--export", "policy.json")
    words = ("--record", "a.gif", "--num_episodes", 1)
    from_file = without_store("policy.json", *words)
    assert re.search(r"logged: current fitness .*: the same\n", from_file)
    assert results(from_file) == results(render(cartpole, *words))


def test_a109_a_file_makes_others(render: Script, cartpole: int, store: Database) -> None:
    """The same text again, and the state_dict that ``load_from`` wants."""
    render(cartpole, "--export", "policy.json")
    without_store("policy.json", "--export", "again.json")
    assert Path("again.json").read_bytes() == Path("policy.json").read_bytes()
    assert Path("policy.json").read_text().isascii()
    without_store("policy.json", "--export", "policy.pt")
    ours, theirs = read_policy(Path("policy.pt")), RunReader(store, cartpole).policy().state_dict
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a109_a_film_from_a_file(render: Script, cartpole: int) -> None:
    render(cartpole, "--export", "mine.json", "--gen", 1)
    assert "no display here: making the film mine-1.mp4" in without_store("mine.json")
    assert Path("mine-1.mp4").stat().st_size > 1000


def test_a_policy_that_was_never_evaluated(render: Script, cartpole: int) -> None:
    render(cartpole, "--export", "policy.json")
    change("policy.json", {"current fitness": None, "evaluation seeds": [], "generation": None})
    output = without_store("policy.json", "--record", "a.gif")
    assert "generation unknown of 3" in output
    assert "logged no evaluation of this policy" in output
    assert PolicyFile.read(Path("policy.json")).fitness is None


def test_a109_a_state_dict_for_a_new_run_has_to_be_made(render: Script, cartpole: int) -> None:
    render(cartpole, "--export", "policy.json")
    with pytest.raises(Exception, match=r"make one by 'python env/render.py policy.json --exp"):
        run_here("sphere", load_from="policy.json", **SPHERE)


@pytest.mark.slow
def test_a109_the_running_mean_on_a_terminal(render: Script, cartpole: int) -> None:
    render(cartpole, "--export", "policy.json")
    head, tail = pty.openpty()
    command = [sys.executable, str(ROOT / "env/render.py"), "policy.json", "--evaluate", "300"]
    words = [*command, "--max_ep_length", "500", "--seed", "1"]
    with subprocess.Popen(words, stdin=tail, stdout=tail, stderr=tail) as process:
        os.close(tail)
        seen = read_to_end(head)
    assert process.returncode == 0, seen
    assert re.search(r"10/10 .*episodes=300, mean=\d+\.\d\d", seen), seen
    assert "300 episodes on gymnasium (--seed 1): mean " in seen


def read_to_end(terminal: int) -> str:
    """All that is written to a terminal, until nobody has it open any more."""
    seen = b""
    with os.fdopen(terminal, "rb", buffering=0) as file:
        while True:
            try:
                more = file.read(4096)
            except OSError:  # that is how a terminal ends
                break
            if not more:
                break
            seen += more
    return seen.decode()


def change(path: str, changes: dict[str, Any]) -> None:
    """Write other values into a file; ``...`` takes a field out."""
    content = {**json.loads(Path(path).read_text()), **changes}
    kept = {name: value for name, value in content.items() if value is not ...}
    Path(path).write_text(json.dumps(kept))


def encoded(theta: np.ndarray) -> dict[str, Any]:
    """The fields of other parameters."""
    text = base64.b64encode(theta.astype("<f4").tobytes()).decode()
    sizes = {"parameters": len(theta), "theta sha256": theta_sha256(theta)}
    return {**sizes, "theta float32 base64": text}


OTHER = encoded(np.ones(62, np.float32))["theta float32 base64"]
NO_POLICY = "policy.json is no policy written by --export FILE.json"
DAMAGED: list[tuple[dict[str, Any], str]] = [
    ({"format": "something else"}, NO_POLICY),
    ({"format": ...}, NO_POLICY),
    ({"format version": 2}, "policy.json has format version 2, this program reads 1"),
    ({"theta float32 base64": OTHER}, "policy.json is damaged: theta has sha256 "),
    ({"theta float32 base64": OTHER[:-8]}, "theta has 243 bytes, not 4 × 62"),
    ({"theta float32 base64": "@" + OTHER[1:]}, "theta is no base64"),
    ({"theta float32 base64": 3}, "theta is no base64"),
    ({"theta sha256": ...}, "policy.json is damaged: it has no 'theta sha256'"),
    (encoded(np.ones(61, np.float32)), "policy.json holds 61 parameters, its network needs 62"),
    ({"parameters": 61}, "theta has 248 bytes, not 4 × 61"),
    ({"config": {}}, "policy.json is damaged: it has no 'env_name'"),
    ({"config": None}, "policy.json is damaged"),
    ({"info": {"engine": "warp", "versions": {}}}, "no engine 'warp'"),
    ({"info": {"engine": 3}}, "policy.json is damaged: info is {'engine': 3}"),
    ({"info": []}, "policy.json is damaged: info is []"),
    ({"generation": "newest"}, "'newest' is no number"),
    ({"current fitness": "high"}, "'high' is no number"),
    ({"evaluation seeds": [-1]}, "the evaluation seeds are no numbers"),
    ({"evaluation seeds": [1.5]}, "the evaluation seeds are no numbers"),
    ({"evaluation seeds": []}, "a fitness without evaluation seeds"),
]


@pytest.mark.parametrize(("changes", "line"), DAMAGED)
def test_a109_what_is_no_policy_is_refused(
    changes: dict[str, Any], line: str, render: Script, cartpole: int
) -> None:
    render(cartpole, "--export", "policy.json")
    change("policy.json", changes)
    assert line in render.refuses("policy.json")


@pytest.mark.parametrize("content", [b"", b"[1]", b"{", b"\x80\x02", b"[" * 100_000])
def test_a109_another_file_is_refused(content: bytes, render: Script) -> None:
    Path("policy.json").write_bytes(content)
    assert NO_POLICY in render.refuses("policy.json")


def test_a109_a_file_holds_one_policy(render: Script, cartpole: int) -> None:
    render(cartpole, "--export", "policy.json")
    for words in (("--gen", 0), ("--best",), ("--candidate",)):
        line = "policy.json holds one policy: --best, --candidate and --gen are for runs"
        assert line in render.refuses("policy.json", *words)
    Path("folder.json").mkdir()
    for file in ("folder.json", "/proc/policy.json"):
        assert f"{file} cannot be written: " in render.refuses(cartpole, "--export", file)
