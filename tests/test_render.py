"""The policy of a run, seen: films without a display, logged returns played again."""

import re
from pathlib import Path

import av
import numpy as np
import pytest
from commands import run_here, wait_until
from pymongo.database import Database
from stored import (
    CARTPOLE,
    LANDER,
    SPHERE,
    Script,
    commands_of_readme,
    observed,
    run_stored,
    without_display,
)

import evolution.session
from env.render import cli
from es.experiment import ex
from evolution.loop import evolve
from evolution.playback.replay import fresh_seeds, play_episodes
from evolution.playback.show import PICTURES, Stage
from evolution.problem import problem_of
from store.reader import RunReader, read_policy
from utils import progress


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


@pytest.fixture(scope="module")
def sphere(store: Database) -> int:
    return run_stored(store, "sphere", seed=5, **SPHERE)


@pytest.fixture(autouse=True)
def no_display(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    without_display(monkeypatch, tmp_path)


def pictures(film: str | Path) -> list[np.ndarray]:
    with av.open(str(film)) as opened:
        return [frame.to_ndarray(format="rgb24") for frame in opened.decode(video=0)]


def episodes(output: str) -> list[tuple[float, int, int]]:
    """Return, steps and seed of each episode shown."""
    found = re.findall(r"return (\S+) after (\d+) steps \(seed (\d+)\)", output)
    return [(float(earned), int(steps), int(seed)) for earned, steps, seed in found]


def test_a103_a_film_without_a_display(render: Script, cartpole: int) -> None:
    output = render(cartpole)
    assert f"no display here: making the film {cartpole}-3.mp4" in output
    ((earned, steps, _),) = episodes(output)
    assert earned == steps  # a point a step
    seen = pictures(f"{cartpole}-3.mp4")
    assert len(seen) == steps + 1
    assert seen[0].shape == (400, 600, 3)
    assert len({each.tobytes() for each in seen}) > 3


@pytest.mark.parametrize("ending", ["mp4", "gif"])
def test_a103_a_film_of_the_lander(ending: str, render: Script, lander: int) -> None:
    words = ("--gen", 0, "--num_episodes", 2, "--max_ep_length", 12)
    output = render(lander, *words, "--record", f"film.{ending}")
    assert [steps for _, steps, _ in episodes(output)] == [12, 12]
    assert f"wrote film.{ending}: 26 pictures, 50 a second" in output
    seen = pictures(f"film.{ending}")
    assert len(seen) == 26
    assert seen[0].shape == (400, 600, 3)
    assert np.abs(seen[0].astype(int) - seen[12]).max() > 50


@pytest.mark.parametrize(
    ("task", "words"),
    [
        *(("cartpole", words) for words in ((), ("--gen", 0), ("--gen", 2), ("--best",))),
        *(("lander", words) for words in ((), ("--gen", 0))),
    ],
)
def test_a103_the_logged_fitness_is_played_again(
    task: str, words: tuple, render: Script, store: Database, request: pytest.FixtureRequest
) -> None:
    run = RunReader(store, request.getfixturevalue(task))
    output = render(run.id, *words)
    said = re.search(r"logged: current fitness (\S+); .* on (\w+): (\S+): the same\n", output)
    assert said is not None, output
    (generation,) = re.findall(r"generation (\d+) of", output)
    current = run.metric("current fitness")
    assert float(said[1]) == float(said[3]) == current.values[int(generation)]
    assert said[2] == run.info["engine"]
    assert ("Gymnasium's episodes" in output) == (run.info["engine"] == "envpool")


def test_a103_a_shown_episode_is_the_evaluated_one(cartpole: int, store: Database) -> None:
    """For the same seeds, one by one or side by side."""
    run = RunReader(store, cartpole)
    problem = problem_of(run.config)
    theta = problem.make_policy().theta_from_state_dict(run.policy().state_dict)
    seeds = fresh_seeds(1, 5)
    returns, lengths = play_episodes(problem, theta, seeds)
    with Stage(problem, theta, PICTURES) as stage:
        shown = [stage.play(int(seed), stage.picture) for seed in seeds]
    assert shown == list(zip(returns, lengths, strict=True))


def test_a102_which_episodes_are_shown(render: Script, cartpole: int, store: Database) -> None:
    film = ("--record", "a.gif", "--max_ep_length", 2)
    first = episodes(render(cartpole, *film, "--num_episodes", 3))
    more = episodes(render(cartpole, *film, "--num_episodes", 8))
    assert [seed for *_, seed in first] == [seed for *_, seed in more[:3]]
    assert len({seed for *_, seed in more}) == 8  # two of them beyond the six that were logged
    chosen = episodes(render(cartpole, *film, "--num_episodes", 2, "--seed", 7))
    assert chosen == [(2.0, 2, 7), (2.0, 2, 8)]


def test_a102_a_run_that_is_still_going(
    render: Script, store: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs = []

    def watched(*args, **kwargs):  # type: ignore[no-untyped-def]
        for generation in evolve(*args, **kwargs):
            yield generation
            wait_until(lambda: observer.spool.is_shipped, "the policy in the store")
            outputs.append(render(observer.run_entry["_id"], "--seed", 1, "--record", "a.gif"))

    monkeypatch.setattr(evolution.session, "evolve", watched)
    with observed(store) as observer:
        ex.run(named_configs=["cartpole"], config_updates={**CARTPOLE, "seed": 2})
    for generation, output in enumerate(outputs):
        assert f"(ES, RUNNING), CartPole-v1: Policy_ep_{generation}.model" in output
        assert len(episodes(output)) == 1


def test_a102_a_run_that_was_interrupted(
    render: Script, store: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its newest policy was not evaluated any more."""

    def interrupted(*args, **kwargs):  # type: ignore[no-untyped-def]
        for generation in evolve(*args, **kwargs):
            yield generation
            if generation.number == 1:
                raise KeyboardInterrupt

    monkeypatch.setattr(evolution.session, "evolve", interrupted)
    with observed(store) as observer, pytest.raises(KeyboardInterrupt):
        ex.run(named_configs=["cartpole"], config_updates={**CARTPOLE, "seed": 2})
    run_id = observer.run_entry["_id"]
    output = render(run_id, "--record", "a.gif", "--num_episodes", 2)
    assert f"run {run_id} (ES, INTERRUPTED), CartPole-v1: Policy_ep_2.model" in output
    assert len(episodes(output)) == 2
    assert "logged no evaluation of this policy" in output
    assert "the same" in render(run_id, "--gen", 1, "--record", "a.gif")


@pytest.mark.parametrize("noted", [{}, {"theta sha256": "another's", "generation": 1}])
def test_a102_a_best_policy_that_is_newer_than_the_notes(
    noted: dict, render: Script, cartpole: int, store: Database
) -> None:
    """A run that is going stores a policy at once, and its notes every ten seconds."""
    before = store["runs"].find_one({"_id": cartpole})
    store["runs"].replace_one(
        {"_id": cartpole}, {**before, "info": {"policies": {"Policy_best.model": noted}}}
    )
    output = render(cartpole, "--best")
    store["runs"].replace_one({"_id": cartpole}, before)
    assert "generation unknown" in output
    assert f"making the film {cartpole}-best.mp4" in output
    assert "logged no evaluation of this policy" in output


def test_a102_a_window_where_there_is_a_display(
    render: Script, cartpole: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    output = render(cartpole, "--sleep", 0, "--num_episodes", 2)
    assert len(episodes(output)) == 2
    assert "the same" in output
    assert list(tmp_path.iterdir()) == []


def test_a109_many_fresh_episodes(
    render: Script, lander: int, store: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)  # else lines come every two seconds
    output = render(lander, "--evaluate", 40, "--seed", 9)
    run = RunReader(store, lander)
    problem = problem_of(run.config)
    theta = problem.make_policy().theta_from_state_dict(run.policy().state_dict)
    returns, lengths = play_episodes(problem, theta, fresh_seeds(9, 40))
    running = re.findall(r"part (\d+)/10  episodes (\d+)  mean (\S+) ", output)
    means = [(str(n), str(4 * n), f"{returns[: 4 * n].mean():.2f}") for n in range(1, 11)]
    assert running == means
    half = 1.96 * returns.std(ddof=1) / np.sqrt(40)
    assert f"mean {returns.mean():.2f} ± {half:.2f} (95 % confidence)" in output
    assert f"min {returns.min():.2f}, max {returns.max():.2f}, {lengths.mean():.1f} st" in output
    assert episodes(output) == []
    summary = output.splitlines()[-1]
    assert render(lander, "--evaluate", 40, "--seed", 9).splitlines()[-1] == summary
    others = {render(lander, "--evaluate", 40).splitlines()[-1] for _ in range(2)}
    assert len(others) == 2


def test_a109_an_exported_policy_goes_on(render: Script, sphere: int, store: Database) -> None:
    """It can be given to somebody else, and be what another run begins with."""
    output = render(sphere, "--export", "policy.pt", "--evaluate", 10)
    run = RunReader(store, sphere)
    assert f"wrote policy.pt: theta sha256 {run.info['theta sha256']}" in output
    assert "10 episodes on batched" in output
    assert f"mean {run.result:.2f} ± 0.00" in output  # the sphere is always the same
    theta = (
        problem_of(run.config).make_policy().theta_from_state_dict(read_policy(Path("policy.pt")))
    )
    assert theta.shape == (20,)
    again = run_here("sphere", seed=8, load_from="policy.pt", **SPHERE)
    assert again.info["policies"]["Policy_ep_0.model"]["theta sha256"] == run.info["theta sha256"]


def test_another_engine_is_no_proof(render: Script, lander: int, store: Database) -> None:
    if RunReader(store, lander).info["engine"] != "envpool":
        pytest.skip("EnvPool is not installed")
    output = render(lander, "--engine", "gymnasium", "--record", "a.gif", "--num_episodes", 1)
    assert "NOT the same. The run was evaluated on envpool" in output


def test_changed_versions_are_named(render: Script, cartpole: int, store: Database) -> None:
    before = store["runs"].find_one({"_id": cartpole})
    changed = {**before, "config": {**before["config"], "max_ep_length": 3}}
    changed["info"] = {**before["info"], "versions": {"numpy": "1.0"}}
    store["runs"].replace_one({"_id": cartpole}, changed)
    output = render(cartpole, "--record", "a.gif", "--num_episodes", 1)
    store["runs"].replace_one({"_id": cartpole}, before)
    assert "NOT the same. Versions differ: gymnasium absent then" in output
    assert "numpy 1.0 then" in output


REFUSED = [
    (("99",), "no run 99 in the store; there are runs"),
    (("x",), "x: no such file, and no run id"),
    ((".",), ".: no such file, and no run id"),
    (("0",), "0 is not in the range"),
    ((10**20,), f"{10**20} is not in the range"),
    (("RUN", "--gen", 7), "no policy of generation 7; there are generations 0-3"),
    (("RUN", "--gen", "last"), "'last' is not a valid integer"),
    (("RUN", "--gen", -1), "-1 is not in the range"),
    (("RUN", "--gen", 0, "--best"), "choose one"),
    (("RUN", "--num_episodes", 0), "0 is not in the range"),
    (("RUN", "--max_ep_length", -1), "-1 is not in the range"),
    (("RUN", "--sleep", -1), "-1.0 is not in the range"),
    (("RUN", "--evaluate", 1), "1 is not in the range"),
    (("RUN", "--engine", "mujoco"), "'mujoco' is not one of"),
    (("RUN", "--record", "film.avi"), "films are .mp4 or .gif files"),
    (("RUN", "--record", "nowhere/film.mp4"), "there is no folder nowhere"),
    (("RUN", "--record", "/proc/film.mp4"), "/proc/film.mp4 cannot be written"),
    (("RUN", "--export", "nowhere/policy.pt"), "there is no folder nowhere"),
    (("RUN", "--export", "/proc/policy.pt"), "/proc/policy.pt cannot be written"),
    (("RUN", "--export", "policy.txt"), "policies are .json, .pt, .pth, .model files"),
    (("RUN", "--speed", 3), "No such option"),
]


@pytest.mark.parametrize(("words", "line"), REFUSED)
def test_a102_what_cannot_be_is_refused(
    words: tuple, line: str, render: Script, cartpole: int
) -> None:
    said = render.refuses(*(cartpole if word == "RUN" else word for word in words))
    assert line in said


def test_what_draws_nothing_is_refused(render: Script, sphere: int, tmp_path: Path) -> None:
    assert "Sphere-v0 draws nothing" in render.refuses(sphere)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"env_name": "Lost-v0"}, "no environment 'Lost-v0'"),
        ({"network": "lost.net:Net"}, "PYTHONPATH"),
        ({"hidden_sizes": [7]}, "has shape (5, 9) in the state_dict, the network needs (7, 11)"),
        ({}, "no config key 'network': no experiment of ours"),
    ],
)
def test_a_run_that_cannot_be_played_here(
    changed: dict, line: str, render: Script, cartpole: int, store: Database
) -> None:
    before = store["runs"].find_one({"_id": cartpole})
    config = {**before["config"], **changed} if changed else {"seed": 1}
    store["runs"].replace_one({"_id": cartpole}, {**before, "config": config})
    said = render.refuses(cartpole)
    store["runs"].replace_one({"_id": cartpole}, before)
    assert line in said


def test_a008_the_commands_of_the_readme(render: Script, cartpole: int) -> None:
    commands = commands_of_readme("env/render.py")
    assert len(commands) >= 4
    for words in commands:
        if "--candidate" in words:  # such a run is rendered by test_readme
            continue
        assert render(*(cartpole if word == "12" else word for word in words))
