"""Runs recorded once: nothing that changes what is learnt goes unseen.

Each file in ``tests/golden/`` holds 20 generations of a run. When results are meant to move, record
them anew and say why in the commit::

    python tests/test_golden.py [NAME …]

Bits are compared only where they can be equal: on a like machine with the same versions.
"""

import json
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info

from env import envpool_engine
from es.openai_es import OpenAIES
from evolution.evaluation import LocalEvaluator
from evolution.loop import evolve
from evolution.noise import NoiseTable
from evolution.problem import Problem, choose_problem
from evolution.seeding import Seeding
from evolution.strategy import Strategy
from nevergrad_es.strategy import NevergradStrategy
from store.recorder import theta_sha256

FOLDER = Path(__file__).resolve().parent / "golden"
LIBRARIES = "nevergrad", "cma"
GENERATIONS = 20
SEED = 42
SPHERE = {"env_name": "Sphere-v0", "policy_kwargs": {"hidden_sizes": [3]}}
LANDER = {
    "env_name": "LunarLanderContinuous-v3",
    "policy_kwargs": {"hidden_sizes": [], "output_activation": "none"},
    "max_steps": 100,
}
SPHERE_ES = {"pop_size": 30, "sigma": 0.05, "lr": 0.05, "l2coeff": 0.0}
LANDER_ES = {"pop_size": 12, "sigma": 0.1, "lr": 0.1, "l2coeff": 0.005}
NEVERGRAD = {"pop_size": 14, "sigma": 0.3, "generations": GENERATIONS}
# name: problem, strategy, generations that are alike on any machine (the lander is chaotic)
RUNS: dict[str, tuple[dict[str, Any], dict[str, Any], int]] = {
    "openai_es_sphere": (SPHERE, SPHERE_ES, GENERATIONS),
    "openai_es_lander_gymnasium": (LANDER | {"engine": "gymnasium"}, LANDER_ES, 3),
    "openai_es_lander_envpool": (LANDER | {"engine": "envpool"}, LANDER_ES, 3),
    "nevergrad_cma_sphere": (SPHERE, NEVERGRAD | {"tool": "CMA"}, 5),
    "nevergrad_oneplusone_sphere": (SPHERE, NEVERGRAD | {"tool": "OnePlusOne"}, GENERATIONS),
}


def play(name: str) -> dict[str, Any]:
    """What a golden file holds."""
    problem_settings, strategy_settings, _ = RUNS[name]
    problem = choose_problem(**problem_settings)
    seeding = Seeding(SEED)
    with NoiseTable(100_000, 123) as noise, LocalEvaluator(problem, noise) as evaluator:
        rng = seeding.init()
        theta = problem.make_policy().initial_theta(rng)
        strategy: Strategy
        if "tool" in strategy_settings:
            strategy = NevergradStrategy(theta, rng, **strategy_settings)
        else:
            strategy = OpenAIES(theta, noise, **strategy_settings)
        run = evolve(
            strategy,
            evaluator,
            generations=GENERATIONS,
            episodes=1,
            eval_episodes=4,
            seeding=seeding,
        )
        generations = list(run)
    return {
        "made on": made_on(problem, *(LIBRARIES if "tool" in strategy_settings else ())),
        "current fitness": [g.metrics["current fitness"] for g in generations],
        "mean fitness": [g.metrics["mean fitness"] for g in generations],
        "steps": [int(g.population.steps.sum()) for g in generations],
        "theta sha256": theta_sha256(strategy.theta),
    }


def made_on(problem: Problem, *packages: str) -> dict[str, Any]:
    """All that decides the last bit: versions, and the instructions that the libraries choose."""
    simd = np.show_config(mode="dicts")["SIMD Extensions"]
    libraries = threadpool_info()
    return {
        "machine": platform.machine(),
        "libc": " ".join(platform.libc_ver()),
        "blas": sorted({each["architecture"] for each in libraries if "architecture" in each}),
        "numpy uses": [*simd["baseline"], *simd["found"]],
        "torch uses": torch.backends.cpu.get_cpu_capability(),
        "versions": problem.versions
        | {"torch": torch.__version__}
        | {name: metadata.version(name) for name in packages},
    }


@pytest.mark.parametrize("name", RUNS)
def test_golden_run(name: str) -> None:
    if "envpool" in name and not envpool_engine.is_installed():
        pytest.skip("EnvPool is not installed")
    recorded = json.loads((FOLDER / f"{name}.json").read_text())
    played = play(name)
    if played["made on"] == recorded["made on"]:
        assert played == recorded
        return
    alike = RUNS[name][2]
    for column in ("current fitness", "mean fitness"):
        np.testing.assert_allclose(played[column][:alike], recorded[column][:alike], rtol=1e-5)
    assert played["steps"][:alike] == recorded["steps"][:alike]


def test_each_golden_file_is_tested() -> None:
    assert {path.stem for path in FOLDER.glob("*.json")} == set(RUNS)


def test_the_golden_sphere_run_learns() -> None:
    fitness = json.loads((FOLDER / "openai_es_sphere.json").read_text())["current fitness"]
    assert fitness[-1] > 0.3 * fitness[0]


if __name__ == "__main__":
    for each in sys.argv[1:] or RUNS:
        (FOLDER / f"{each}.json").write_text(json.dumps(play(each), indent=1) + "\n")
        sys.stdout.write(f"recorded {each}\n")
