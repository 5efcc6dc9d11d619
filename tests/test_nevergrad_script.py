"""Nevergrad as its user meets it: configs, refusals, the same run again, what it leaves behind."""

import re
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import NEVERGRAD, Place, complaint, record, run_here, setting, wait_until
from conftest import Crew
from pymongo.database import Database
from stored import Script, run_stored
from stores import end_server

from cluster.redis_server import connect
from env.render import cli
from evolution.evaluation import Evaluator, LocalEvaluator, Part
from evolution.loop import evolve
from evolution.noise import NoiseTable
from evolution.problem import choose_problem, problem_of
from evolution.redis_evaluator import RedisEvaluator
from evolution.seeding import EVALUATION, Seeding
from nevergrad_es.experiment import ex
from nevergrad_es.strategy import NevergradStrategy
from nevergrad_es.tools import tools
from store.experiment import ConfigError
from store.reader import RunReader
from store.recorder import theta_sha256

NAMED = {  # and how many parameters their policies have
    **{"lander": 18, "ant": 11_464, "pendulum": 4481, "pendulum_lstm": 206},
    **{"pendulum_partial": 1361, "sphere": 20},
}
TINY = {
    **{"num_generations": 2, "pop_size": 4, "max_ep_length": 20, "num_episodes": 2},
    **{"eval_episodes": 1, "final_episodes": 2, "noise_size": 100_000, "evaluator": "local"},
}
METRICS = {  # the seed project's first fourteen
    *("gen", "total time elapsed", "time per gen", "total sim steps", "total fitness evals"),
    *("mean episode length", "mean steps per eval", "current fitness", "mean fitness"),
    *("best fitness", "overall best fitness", "fitness st.dev", "norm", "genome length"),
}
OWN = {"update ratio", "search st.dev"}
CANDIDATE = "Best_candidate.model"


@pytest.mark.parametrize("name", NAMED)
def test_a003_named_config_finishes_two_tiny_generations(name: str) -> None:
    run = run_here(name, experiment=ex, **TINY)
    assert run.status == "COMPLETED"
    assert np.isfinite(run.result)
    assert problem_of(run.config).make_policy().num_params == NAMED[name]


def test_a003_those_are_all_named_configs() -> None:
    assert set(ex.named_configs) == set(NAMED)
    assert ex.path == "Nevergrad"


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"tool": "CNA"}, r"tool='CNA': .* Did you mean"),
        ({"tool": "SQP"}, r"tool=SQP cannot serve: it runs in a thread of its own"),
        ({"tool": 3}, r"tool=3: Nevergrad has no optimizer of that name"),
        ({"pop_size": 0}, r"pop_size=0: must be a whole number, 1 or more"),
        ({"tool": ["CMA"]}, r"tool=\['CMA'\]: Nevergrad has no optimizer of that name"),
        ({"pop_size": 10**12}, r"pop_size=1000000000000, num_episodes=2: .* must be at most 1000"),
        ({"sigma": 0}, r"sigma=0: must be above zero"),
        ({"noisy": "no"}, r"noisy='no': must be True or False"),
        ({"init": "zeros"}, r"init='zeros' is none of policy, zero. Did you mean 'zero'\?"),
        ({"init": "zero", "load_from": "7"}, r"init=zero, load_from=7: leave out one of them"),
        ({"load_from": "no.model"}, r"load_from='no.model': no such file, and no run id"),
    ],
)
def test_a_bad_config_is_refused_in_one_line(bad: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}"):
        run_here("sphere", experiment=ex, **TINY | bad)


def test_list_tools_shows_which_serve(capsys: pytest.CaptureFixture[str]) -> None:
    ex.run("list_tools", options={"--unobserved": True})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(tools())
    shown = dict(line.split(maxsplit=1) for line in lines)
    assert shown["CMA"].strip() == "serves"
    assert re.match(r"refused +it runs in a thread of its own", shown["SQP"])


def test_init_zero_begins_there(store: Database) -> None:
    run_id = run_stored(store, "sphere", experiment=ex, seed=1, init="zero", **TINY)
    metrics = RunReader(store, run_id).metrics()
    assert metrics["norm"].values[0] == 0
    assert metrics["norm"].values[-1] > 0


def test_load_from_begins_where_a_run_has_ended(tmp_path: Path) -> None:
    first = run_here("sphere", experiment=ex, folder=tmp_path, seed=1, **TINY)
    file = tmp_path / "1" / "Policy_ep_2.model"
    second = run_here("sphere", experiment=ex, folder=tmp_path, seed=2, load_from=str(file), **TINY)
    begun = second.info["policies"]["Policy_ep_0.model"]["theta sha256"]
    assert begun == first.info["theta sha256"] != second.info["theta sha256"]


# --- the same run again


class Overheard(LocalEvaluator):
    """Keeps the environment seeds of training and of evaluation."""

    def __init__(self, noise: NoiseTable) -> None:
        super().__init__(PROBLEM, noise)
        self.training, self.evaluation = list[np.ndarray](), list[np.ndarray]()

    def submit(self, parts: Sequence[Part]) -> None:
        self.training.append(parts[0].env_seeds)
        self.evaluation.append(parts[1].env_seeds)
        super().submit(parts)


PROBLEM = choose_problem(env_name="Sphere-v0", policy_kwargs={"hidden_sizes": []})


def evolved(
    evaluator: Evaluator, tool: str = "DE", env_seed: int | None = -1, pop_size: int = 7
) -> str:
    """The sha256 of the last theta of a short run."""
    sizes = {"pop_size": pop_size, "generations": 4}
    theta, rng = np.ones(20, np.float32), np.random.default_rng(1)
    strategy = NevergradStrategy(theta, rng, tool=tool, sigma=0.3, **sizes)
    settings: dict[str, Any] = {"episodes": 3, "eval_episodes": 2, "generations": 4}
    for generation in evolve(strategy, evaluator, seeding=Seeding(2, env_seed), **settings):
        assert generation.metrics["total fitness evals"] == pop_size * (generation.number + 1)
    assert strategy.evaluations == 4 * pop_size
    return theta_sha256(strategy.theta)


def test_a013_minus_one_is_fresh_for_every_candidate(noise: NoiseTable) -> None:
    with Overheard(noise) as evaluator:
        evolved(evaluator, env_seed=-1)
    assert len(np.unique(evaluator.training)) == 4 * 7 * 3


def test_a013_none_is_one_set_per_generation(noise: NoiseTable) -> None:
    with Overheard(noise) as evaluator:
        evolved(evaluator, env_seed=None)
    assert len(np.unique(evaluator.training)) == 4 * 3
    assert all((seeds == seeds[0]).all() for seeds in evaluator.training)


def test_a013_a_number_is_the_same_set_always_but_for_theta(noise: NoiseTable) -> None:
    with Overheard(noise) as evaluator:
        evolved(evaluator, env_seed=50)
    assert np.unique(evaluator.training).tolist() == [50, 51, 52]
    assert len(np.unique(evaluator.evaluation)) == 4 * 2
    assert np.min(evaluator.evaluation) >= EVALUATION[0]


def test_a092_a018_one_sha256_for_any_number_of_workers(noise: NoiseTable, crew: Crew) -> None:
    """Of candidates that two workers cannot share evenly, each told once."""
    with LocalEvaluator(PROBLEM, noise) as local:
        expected = {tool: evolved(local, tool) for tool in ("DE", "CMA")}
    assert len(set(expected.values())) == 2
    for count in (1, 2):
        crew.start(1)
        for tool, digest in expected.items():
            server, run_id = connect(crew.url), f"run-{count}-{tool}"
            with RedisEvaluator(server, PROBLEM, noise, run_id=run_id) as evaluator:
                assert evolved(evaluator, tool) == digest


def test_a018_equal_runs_leave_equal_bytes(tmp_path: Path) -> None:
    config = TINY | {"num_generations": 4, "seed": 5, "tool": "TBPSA"}
    for folder in ("one", "other"):
        run_here("lander", experiment=ex, folder=tmp_path / folder, **config)
    one, other = (tmp_path / folder / "1" for folder in ("one", "other"))
    names = sorted(path.name for path in one.glob("*.model"))
    assert {"Policy_ep_0.model", "Policy_ep_4.model", "Policy_best.model", CANDIDATE} <= set(names)
    for name in names:
        assert (one / name).read_bytes() == (other / name).read_bytes()
    first, second = (record(run, "metrics") for run in (one, other))
    assert set(first) >= METRICS | OWN
    for name in (METRICS | OWN) - {"total time elapsed", "time per gen"}:
        assert first[name]["values"] == second[name]["values"], name
        assert first[name]["steps"][:4] == [0, 1, 2, 3]


# --- what it leaves behind


@pytest.fixture(scope="module")
def lander(store: Database) -> int:
    config = TINY | {"num_generations": 4, "pop_size": 6, "num_episodes": 3, "seed": 4}
    config |= {"num_serializations": 4, "eval_episodes": 3, "env_seed": -1, "max_ep_length": 120}
    return run_stored(store, "lander", experiment=ex, **config)


@pytest.mark.parametrize("words", [("--gen", 0), ("--gen", 2), ("--gen", 4), ("--best",)])
def test_a093_a_saved_policy_is_the_recommendation_and_plays_again(
    words: tuple, lander: int, store: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    output = Script(cli, store)(lander, *words, "--record", "film.gif", "--num_episodes", 1)
    said = re.search(r"logged: current fitness (\S+); .*: (\S+): the same\n", output)
    assert said is not None, output
    run = RunReader(store, lander)
    (generation,) = re.findall(r"generation (\d+) of", output)
    assert float(said[1]) == run.metric("current fitness").values[int(generation)]


def test_a093_the_best_candidate_is_kept_apart_and_plays_again(
    lander: int, store: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has the metric "overall best fitness", on the episodes that it was trained with."""
    monkeypatch.chdir(tmp_path)
    render, run = Script(cli, store), RunReader(store, lander)
    output = render(lander, "--candidate", "--record", "film.gif", "--num_episodes", 1)
    said = re.search(r"logged: fitness (\S+); its 3 episodes played again .*: the same\n", output)
    assert said is not None, output
    assert float(said[1]) == run.metric("overall best fitness").values[-1]
    noted = run.info["policies"][CANDIDATE]
    assert max(noted["environment seeds"]) < EVALUATION[0]
    assert "--best, --candidate or --gen: choose one" in render.refuses(
        lander, "--best", "--candidate"
    )
    render(lander, "--candidate", "--export", "policy.json")
    assert noted["theta sha256"] in (tmp_path / "policy.json").read_text()


def test_a_run_without_candidates_says_so(store: Database) -> None:
    from es.experiment import ex as es

    run_id = run_stored(store, "sphere", experiment=es, seed=1, **TINY)
    refused = Script(cli, store).refuses(run_id, "--candidate")
    assert f"run {run_id} has kept no candidate: only Nevergrad's do" in refused


@pytest.fixture
def place() -> Iterator[Place]:
    with Place(store=True) as made:
        yield made
        end_server(made.runs / "store.sqlite")


@pytest.mark.slow
def test_a106_a_killed_run_goes_on_to_the_same_end(place: Place) -> None:
    """On workers of its own; what it had asked and told is asked and told once more."""
    sizes = {"seed": 3, "num_generations": 120, "eval_episodes": 2, "final_episodes": 3}
    config = setting(**sizes, tool="DE", checkpoint_every=0.1, overlap=1, num_workers=1)
    killed = place.start(NEVERGRAD, "with", "sphere", *config)
    kept = place.runs / "spool"
    wait_until(lambda: len(list(kept.glob("*/checkpoints/*.npz"))) > 1, killed)
    killed.send(signal.SIGKILL)
    killed.end()
    (run_id,) = re.findall(r'Started run with ID "(\d+)"', killed.err)
    whole = place.start(NEVERGRAD, "with", "sphere", *config)
    resumed = place.start(NEVERGRAD, "resume", "with", f"run_id={run_id}")
    expected = whole.succeed().partition("theta sha256 ")[2]
    assert resumed.succeed().partition("theta sha256 ")[2] == expected != ""
    assert re.search(r"asking and telling DE \d+ generations anew", resumed.err)


@pytest.mark.slow
def test_a_bad_config_ends_the_script_with_one_line() -> None:
    with Place() as place:
        command = place.start(NEVERGRAD, "with", "sphere", "tool=CNA")
        assert command.end() == 1
        assert "tool='CNA': Nevergrad has no optimizer of that name" in complaint(command.err)
        assert not list(place.runs.glob("*"))
