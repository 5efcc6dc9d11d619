"""Config files: IBM's settings.yaml, our own keys, and what is neither."""

from pathlib import Path

import pytest
from commands import EXPERIMENT, ROOT, complaint, run_here

import es.experiment
from ga.experiment import ex

EXPERIMENT_GA = "ga/experiment.py"
IBM = ROOT / "ga" / "settings.yaml"
TINY = {
    **{"noise_size": 100_000, "evaluator": "local", "eval_episodes": 1, "final_episodes": 2},
    **{"n_evals": 1, "seed": 1},
}
SMALL = """
vm: {count: 30, cpus: 16, mem: 2}
experiment:
  generations: 2
  population: 12
  survivors: 4
  champions: 2
"""
MEANT = {"num_generations": 2, "pop_size": 12, "n_parents": 4, "champions": 2}
PWNED = "!!python/object/apply:os.mkdir [pwned]"


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "settings.yaml"


def test_a130_ibms_settings_are_accepted() -> None:
    options = {"--unobserved": True}
    config = ex.run("print_config", named_configs=[str(IBM)], options=options).config
    expected = {"count": 1, "num_generations": 350, "pop_size": 1000, "n_parents": 20}
    expected |= {"champions": 3, "vm_count": 30, "vm_cpus": 16, "vm_mem": 2}
    assert {key: config[key] for key in expected} == expected
    assert config["n_elite_candidates"] == 10


def test_a130_a_run_of_ibms_settings(written: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Stronger than a named config, weaker than the command line."""
    written.write_text(SMALL)
    run = run_here("sphere", str(written), experiment=ex, **TINY)
    assert {key: run.config[key] for key in MEANT} == MEANT
    assert (run.status, run.config["n_elite_candidates"]) == ("COMPLETED", 4)
    assert "vm_count=30 is for machines that are rented: no effect here" in caplog.text
    again = run_here(str(written), "sphere", experiment=ex, **TINY, num_generations=1)
    assert again.config["num_generations"] == 1


def test_our_own_keys_may_stand_in_a_file(written: Path) -> None:
    written.write_text("pop_size: 6\nhidden_sizes: []\nseed: 5\n")
    config = {"num_generations": 1, "noise_size": 100_000, "evaluator": "local"}
    run = run_here("sphere", str(written), experiment=es.experiment.ex, **config)
    assert (run.config["pop_size"], run.config["seed"]) == (6, 5)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("experiment: {generation: 3}", "unknown key experiment.generation. Did you mean 'gen"),
        ("experiment: {count: two}", "experiment.count='two': must be a whole number, 1 or more"),
        ("experiment: {survivors: 2.5}", "experiment.survivors=2.5: must be a whole number"),
        ("experiment: {champions: yes}", "experiment.champions=True: must be a whole number"),
        ("vm: {mem: 0}", "vm.mem=0: must be a whole number, 1 or more"),
        ("vm: 30", "vm=30: must have keys of its own: count, cpus, mem"),
        ("experimnt: {count: 3}", "unknown section 'experimnt'. Did you mean 'experiment'?"),
        ("vm: {count: 3}\nsettings: 4", "unknown section 'settings'. There are vm and exp"),
        ("experiment: {population: 10, survivors: 20}", "0 < champions < n_parents < pop_size"),
        ("popsize: 3", "no config key 'popsize'. Did you mean 'pop_size'?"),
        ("just words", "holds no keys and values"),
        ("a: [", "is no plain YAML"),
        (PWNED, "is no plain YAML: could not determine a constructor"),
    ],
)
def test_a130_other_settings_are_refused_in_one_line(
    text: str, words: str, written: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    written.write_text(text)
    with pytest.raises(SystemExit) as ended:
        ex.run_commandline([EXPERIMENT_GA, "with", "sphere", "settings.yaml", "-u"])
    assert ended.value.code == 1
    assert words in complaint(capfd.readouterr().err)
    assert not (written.parent / "pwned").exists()


@pytest.mark.parametrize("name", ["lost.yaml", "config.pickle", "."])
def test_files_that_are_no_configs(
    name: str, written: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (written.parent / "config.pickle").write_bytes(b"cos\nmkdir\n(S'pwned'\ntR.")
    with pytest.raises(SystemExit):
        ex.run_commandline([EXPERIMENT_GA, "with", name, "-u"])
    assert name in complaint(capfd.readouterr().err)
    assert not (written.parent / "pwned").exists()


def test_a_run_without_survivors_refuses_ibms_settings(
    written: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    written.write_text(SMALL)
    with pytest.raises(SystemExit):
        es.experiment.ex.run_commandline([EXPERIMENT, "with", "sphere", "settings.yaml", "-u"])
    assert "no config key" in complaint(capfd.readouterr().err)
