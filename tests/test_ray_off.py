"""Ray where there is none: off, asked for in vain, or only described."""

import importlib.util
import json
import subprocess
import sys
from typing import Any

import pytest
from algorithms import EXPERIMENTS
from commands import ROOT, run_here
from test_layers import OURS, imported

from evolution import ray_cluster
from store.experiment import ConfigError

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None,
    reason="Ray is not installed: pip install -r requirements-ray.txt",
)
NOBODY = "127.0.0.1:1"  # a port where nothing listens


def test_a091_one_file_imports_ray() -> None:
    importers = {str(path) for path in OURS if "ray" in {n.split(".")[0] for n in imported(path)}}
    assert importers == {"evolution/ray_evaluator.py"}


@pytest.mark.slow
def test_a091_no_ray_when_off() -> None:
    program = """
import sys
sys.path.insert(0, "tests")
sys.modules["ray"] = None  # whoever imports it fails
from commands import run_here
for evaluator in ("local", "redis"):
    tiny = {"num_generations": 1, "noise_size": 50_000, "num_workers": 1}
    assert run_here("sphere", evaluator=evaluator, **tiny).status == "COMPLETED"
"""
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


def refused(**config: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        run_here("sphere", evaluator="ray", **config)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a091_ray_asked_for_and_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_cluster.importlib.util, "find_spec", lambda name: None)
    said = refused()
    assert said == (
        "evaluator=ray needs Ray, which is not installed: pip install -r requirements-ray.txt"
    )


@needs_ray
@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"ray_address": 3}, "ray_address=3: must be an address"),
        ({"ray_address": "nowhere"}, "ray_address='nowhere': must be auto, host:port or"),
        ({"ray_address": "http://host:1"}, "must be auto, host:port or ray://host:port"),
        ({"ray_address": NOBODY}, f"no Ray cluster answers at {NOBODY}: Connection refused"),
        ({"ray_address": f"ray://{NOBODY}"}, f"no Ray cluster answers at ray://{NOBODY}: "),
        ({"ray_address": "host.invalid:6379"}, "no Ray cluster answers at host.invalid:6379: "),
        ({"audit": 0.1}, "audit=0.1: needs evaluator=redis"),
        ({"num_workers": 0}, "num_workers=0: must be a whole number, 1 or more"),
    ],
)
def test_a091_what_cannot_be_is_refused_in_one_line(config: dict[str, Any], said: str) -> None:
    assert said in refused(**config)


@needs_ray
def test_runs_at_once_share_no_ray() -> None:
    with pytest.raises(ConfigError, match=r"count=2: .*evaluator=ray start each by itself"):
        run_here("sphere", experiment=EXPERIMENTS["ga"][0], evaluator="ray", count=2)


@needs_ray
@pytest.mark.slow
def test_rays_own_validation_accepts_the_example_for_aws() -> None:
    program = """
import json, yaml
from ray.autoscaler._private.util import prepare_config, validate_config
with open("cluster/ray-aws.yaml") as file:
    config = prepare_config(yaml.safe_load(file))
validate_config(config)
print(json.dumps(config))
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    config = json.loads(done.stdout)
    types = config["available_node_types"]
    assert types["worker"]["max_workers"] == config["max_workers"] == 8
    assert types["head"]["max_workers"] == 0
    for node in types.values():
        own = node["node_config"]
        assert own["MetadataOptions"]["HttpTokens"] == "required"
        assert own["SecurityGroupIds"]  # else Ray would open port 22 to everybody
    assert "IamInstanceProfile" in types["head"]["node_config"]
    assert "IamInstanceProfile" not in types["worker"]["node_config"]
    started = " ".join(config["head_start_ray_commands"] + config["setup_commands"])
    assert "RAY_AUTH_MODE=token" in started
    assert "dashboard-host=0.0.0.0" not in started
