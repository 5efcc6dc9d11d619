"""The genetic algorithm as its user meets it: what is refused, and how a run ends."""

import re
from pathlib import Path

import pytest
from commands import Command, Place, complaint, record, run_here

from ga.experiment import ex

GA = "ga/experiment.py"
TINY = (
    *("pop_size=10", "n_parents=4", "champions=2", "n_elite_candidates=3", "n_evals=2"),
    *("eval_episodes=1", "final_episodes=2", "evaluator=local", "seed=3"),
)


def sphere(place: Place, *words: str, folder: str = "runs") -> Command:
    return place.start(GA, "with", "sphere", *TINY, *words, "-F", str(place.folder / folder))


@pytest.mark.slow
def test_a036_a_run_says_what_ended_it_and_refuses_limits_that_are_none() -> None:
    refusals = {
        ("overlap=1", "timesteps_per_batch=9"): r"overlap=1, timesteps_per_batch=9: .*set one of",
        ("overlap=2", "reevaluate_top=3"): r"overlap=2, reevaluate_top=3: .*set one of them to 0",
        ("reevaluate_top=11",): r"reevaluate_top=11: choose from 0, for none, to pop_size=10",
        ("episodes_per_batch=-1",): r"episodes_per_batch=-1: must be a whole number, 0 or more",
        ("n_tsteps=1e6",): r"n_tsteps=1000000.0: must be a whole number, 1 or more",
        ("max_hours=0",): r"max_hours=0: must be above zero",
    }
    with Place() as place:
        good = sphere(place, "n_tsteps=1500", "timesteps_per_batch=200", "reevaluate_top=5")
        bad = {words: sphere(place, *words, folder="none") for words in refusals}
        for words, command in bad.items():
            assert command.end() == 1
            assert re.search(refusals[words], complaint(command.err))
        assert not Path(place.folder / "none").exists()
        said = re.search(r"^ended by (n_tsteps=1500, with 1,\d\d\d steps)$", good.succeed(), re.M)
        assert said
        (run,) = (path for path in (place.folder / "runs").iterdir() if path.name.isdigit())
        assert record(run, "info")["ended by"] == said[1]
        assert min(record(run, "metrics")["MutEps"]["values"]) >= 10


@pytest.mark.slow
def test_a042_the_pole_is_balanced() -> None:
    """Seed 1 takes 13 generations."""
    run = run_here("cartpole", experiment=ex, seed=1, evaluator="local", num_generations=20)
    assert run.result >= 475  # the score at which the task counts as solved
