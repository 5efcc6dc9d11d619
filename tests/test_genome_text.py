"""Genomes as text: shared, mistyped, evaluated, looked at."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from commands import ROOT
from pymongo.database import Database
from stored import Script, run_stored, without_display

import es.experiment
from evolution.decoder import Decoder
from evolution.noise import NoiseTable
from evolution.problem import choose_problem
from ga.config import tensor_shapes
from ga.experiment import ex
from ga.genome import cli
from ga.genome_text import GenomeText, GenomeTextError
from store.reader import RunReader
from store.recorder import theta_sha256
from utils import progress

TINY = {
    **{"pop_size": 12, "n_parents": 4, "champions": 2, "n_elite_candidates": 3, "n_evals": 2},
    **{"eval_episodes": 2, "final_episodes": 3, "max_ep_length": 20, "noise_size": 100_000},
    **{"evaluator": "local", "num_generations": 4, "seed": 2},
}
CARTPOLE = choose_problem(
    env_name="CartPole-v1", engine="gymnasium", network="elman", max_steps=20,
    policy_kwargs={"hidden_sizes": [5], "hidden_activation": "tanh", "output_activation": "none"},
)  # fmt: skip
PLAIN = replace(CARTPOLE, versions={}, env_kwargs={"sutton_barto_reward": True})


@pytest.fixture(scope="module")
def table() -> str:
    with NoiseTable(100_000, 123) as noise:
        return noise.fingerprint


@pytest.fixture(scope="module")
def said(table: str) -> GenomeText:
    return GenomeText(PLAIN, 0.1, 100_000, 123, table, 62, (17, 3, 99_938))


@pytest.fixture(scope="module")
def genome(store: Database) -> Script:
    return Script(cli, store)


@pytest.fixture(scope="module")
def run(store: Database) -> RunReader:
    run_id = run_stored(store, "cartpole", experiment=ex, engine="gymnasium", **TINY)
    return RunReader(store, run_id)


def test_a109_text_is_one_word_and_says_all(said: GenomeText) -> None:
    text = str(said)
    assert re.fullmatch(r"[\w.,=/:-]+", text)  # nothing that a shell or a mail would change
    assert "env=CartPole-v1,network=elman,sigma=0.1,noise=100000-123-" in text
    assert ",genome=17-3-99938,check=" in text
    assert GenomeText.parse(f" {text}\n") == said
    with NoiseTable(100_000, 123) as noise:
        shapes = tensor_shapes(CARTPOLE.make_policy())
        expected = Decoder(noise).write((17, 3, 99_938), shapes, 0.1)
    assert said.theta().tobytes() == expected.tobytes()


def test_a109_each_mistyped_character_is_found(said: GenomeText) -> None:
    text = str(said)
    for place in range(len(text)):
        wrong = text[:place] + ("x" if text[place] != "x" else "y") + text[place + 1 :]
        for mistyped in (wrong, text[:place], text[:place] + text[place + 1 :]):
            with pytest.raises(GenomeTextError):
                GenomeText.parse(mistyped)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"noise": "0" * 16}, "belongs to another noise table: 0000000000000000, here"),
        ({"dim": 63, "genome": (1,)}, "has 62 parameters here, the genome was made for 63"),
        ({"genome": (99_939,)}, "has the index 99939: it belongs to another noise table"),
        ({"sigma": -1.0}, "sigma=-1.0: must be above zero"),
        ({"problem": replace(PLAIN, env="CartPole-v7")}, "CartPole-v7"),
        ({"problem": replace(PLAIN, max_steps=0)}, "steps=0"),
    ],
)
def test_text_that_cannot_be_played_is_refused_in_one_line(
    change: dict, words: str, said: GenomeText, genome: Script
) -> None:
    assert words in genome.refuses("evaluate", replace(said, **change))
    assert words in genome.refuses("replay", replace(said, **change))


@pytest.mark.parametrize("text", ["", "hello", "ga1,env=X", "ga2,env=X,check=00000000"])
def test_what_is_no_genome_text_is_refused_in_one_line(text: str, genome: Script) -> None:
    assert "genome text" in genome.refuses("evaluate", text)


def test_a109_show_prints_what_the_run_noted(genome: Script, run: RunReader) -> None:
    assert genome("show", run.id).strip() == run.info["EliteGenome"]
    of_first = GenomeText.parse(genome("show", run.id, "--generation", 0))
    assert len(of_first.genome) == 1
    ranked = [genome("show", run.id, "--rank", rank) for rank in range(1, 5)]
    assert len(set(ranked)) == 4
    assert run.info["EliteGenome"] + "\n" in ranked


def test_show_refuses_in_one_line(genome: Script, run: RunReader, store: Database) -> None:
    assert "there are generations 0-3" in genome.refuses("show", run.id, "-g", 9)
    assert "rank 5: 4 survivors" in genome.refuses("show", run.id, "--rank", 5)
    assert "no run 99" in genome.refuses("show", 99)
    config = {"noise_size": 100_000, "evaluator": "local", "num_generations": 1}
    other = run_stored(store, "sphere", experiment=es.experiment.ex, **config)
    assert f"run {other} is of experiment ES" in genome.refuses("show", other)
    none = run_stored(store, "sphere", experiment=ex, **TINY, save_generations=False)
    assert "save_generations" in genome.refuses("show", none)


def test_a109_many_runs_with_a_running_mean(
    genome: Script, run: RunReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    words = "evaluate", run.info["EliteGenome"], "--runs", 30, "--seed", 5
    output = genome(*words)
    assert run.info["theta sha256"] in output
    running = re.findall(r"episodes (\d+)  mean (\S+) ± \d", output)
    assert [int(count) for count, _ in running] == list(range(3, 31, 3))
    (found,) = re.findall(r"^30 episodes .*mean (\S+) ± (\S+) \(95 %", output, re.M)
    assert found[0] == running[-1][1]
    assert genome(*words).splitlines()[-1] == output.splitlines()[-1]


def test_a109_a_film_of_a_genome(
    genome: Script, run: RunReader, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    without_display(monkeypatch, tmp_path)
    output = genome("replay", run.info["EliteGenome"], "--seed", 1, "--record", "elite.gif")
    assert (tmp_path / "elite.gif").stat().st_size > 1000
    assert "episode 1: return" in output
    assert "a.txt" in genome.refuses("replay", run.info["EliteGenome"], "--record", "a.txt")


def test_a030_another_process_makes_the_same_policy_of_the_text(said: GenomeText) -> None:
    command = [sys.executable, str(ROOT / "ga" / "genome.py"), "evaluate", "-", "--runs", "2"]
    done = subprocess.run(command, input=str(said), capture_output=True, text=True, check=True)
    digest = re.search(r"theta sha256 ([0-9a-f]{64})", done.stdout)
    assert digest
    assert digest[1] == theta_sha256(said.theta())
    assert np.isfinite(float(re.findall(r"mean (\S+) ±", done.stdout)[0]))
