"""Programs start fast because they import only what they need."""

import subprocess
import sys


def test_built_in_policies_play_without_torch():
    program = """
import sys
import gymnasium, numpy as np
import policy.activations, policy.base
from policy.registry import make_policy
space = gymnasium.spaces.Box(-1, 1, (3,), np.float32)
for network in ("feedforward", "elman", "lstm"):
    made = make_policy(network, space, space, hidden_sizes=[4], output_activation="gaussian")
    made.load(np.ones((2, made.num_params), np.float32))
    made.reset(np.arange(2), np.arange(2))
    made.act(np.ones((2, 3), np.float32), np.arange(2))
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_an_experiment_is_loaded_without_what_it_may_not_need():
    program = """
import sys
import es.experiment
assert not {"torch", "pandas", "envpool", "matplotlib"} & set(sys.modules)
import pandas  # and yet it can be had
import nevergrad_es.experiment
assert "nevergrad" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_clusters_elsewhere_are_looked_after_without_boto3():
    program = """
import sys
import cluster.launch, cluster.manage, cluster.launch_multi
from cluster.providers import provider
from pathlib import Path
for name in ("slurm", "local"):
    provider(name, Path("."))
assert not {"boto3", "botocore"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True)
