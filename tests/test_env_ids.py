"""Environment ids: retired ones map to today's, wrong ones say what would be right."""

import logging
import subprocess
import sys

import gymnasium as gym
import pytest

import env
from env.errors import EnvError
from env.ids import BODIES, current_id
from utils.names import did_you_mean

RETIRED = {
    "LunarLander-v2": "LunarLander-v3",
    "LunarLanderContinuous-v2": "LunarLanderContinuous-v3",
    "CartPole-v0": "CartPole-v1",
    "Pendulum-v0": "Pendulum-v1",
    "BipedalWalker-v2": "BipedalWalker-v3",
    "BipedalWalkerHardcore-v2": "BipedalWalkerHardcore-v3",
    "Acrobot-v0": "Acrobot-v1",
    "FrozenLake-v0": "FrozenLake-v1",
    "Taxi-v3": "Taxi-v4",
    "HalfCheetah-v1": "HalfCheetah-v5",
    "Ant-v2": "Ant-v5",
    "Humanoid-v3": "Humanoid-v5",
    "Pusher-v4": "Pusher-v5",
    "AntPyBulletEnv-v0": "Ant-v5",
    "HalfCheetahPyBulletEnv-v0": "HalfCheetah-v5",
    "HopperPyBulletEnv-v0": "Hopper-v5",
    "Walker2DPyBulletEnv-v0": "Walker2d-v5",
    "HumanoidPyBulletEnv-v0": "Humanoid-v5",
    "InvertedPendulumPyBulletEnv-v0": "InvertedPendulum-v5",
    "InvertedDoublePendulumPyBulletEnv-v0": "InvertedDoublePendulum-v5",
    "ReacherPyBulletEnv-v0": "Reacher-v5",
    "AntBulletEnv-v0": "Ant-v5",
    "HopperMuJoCoEnv-v0": "Hopper-v5",
    "RoboschoolWalker2d-v1": "Walker2d-v5",
    "CartPole": "CartPole-v1",
}
OWN = {
    "sphere": "Sphere-v0",
    "sphere-v0": "Sphere-v0",
    "PartiallyObservablePendulum": "PartiallyObservablePendulum-v0",
    "PartiallyObservableCartPole": "PartiallyObservableCartPole-v0",
    "PartiallyObservableCartPoleEasy": "PartiallyObservableCartPoleEasy-v0",
}


@pytest.mark.parametrize(("old", "today"), [*RETIRED.items(), *OWN.items()])
def test_a067_old_id_maps_to_one_that_exists(old: str, today: str) -> None:
    assert current_id(old) == today
    assert today in gym.registry


@pytest.mark.parametrize(
    "env_id", ["MountainCar-v0", "Ant-v4", "LunarLander-v3", "PartiallyObservableCartPole-v0"]
)
def test_a067_id_of_today_stays(env_id: str) -> None:
    assert current_id(env_id) == env_id


def test_every_body_is_a_mujoco_environment() -> None:
    assert all(f"{name}-v5" in gym.registry for name in BODIES.values())


def test_a067_replacement_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    current_id.cache_clear()
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            current_id("LunarLanderContinuous-v2")
        current_id("LunarLanderContinuous-v3")
    said = [record.getMessage() for record in caplog.records]
    assert said == ["LunarLanderContinuous-v2 is retired: using LunarLanderContinuous-v3"]


@pytest.mark.parametrize(
    ("env_id", "message"),
    [
        ("LunarLandr-v3", "no environment 'LunarLandr-v3'. Did you mean 'LunarLander-v3'"),
        ("partiallyobservablependulum-v1", "Did you mean 'PartiallyObservablePendulum-v0'"),
        ("CartPole-v7", "Did you mean 'CartPole-v1'"),
        ("not an id!", "no environment 'not an id!'."),
        ("nowhere.at_all:Thing-v0", "module 'nowhere.at_all' does not import"),
    ],
)
def test_a067_wrong_id_gives_one_clear_line(env_id: str, message: str) -> None:
    with pytest.raises(EnvError) as raised:
        env.make(env_id)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a067_id_with_a_module_registers_itself(
    tmp_path: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = (
        "import gymnasium as gym\n"
        "gym.register('Mine-v1', entry_point='gymnasium.envs.classic_control:PendulumEnv')\n"
    )
    (tmp_path / "module_of_a_user.py").write_text(source)  # type: ignore[operator]
    monkeypatch.syspath_prepend(tmp_path)
    made = env.make("module_of_a_user:Mine-v1")
    assert made.observation_space.shape == (3,)
    with pytest.raises(EnvError, match="no environment 'Mime-v2'"):
        env.make("module_of_a_user:Mime-v2")
    del gym.registry["Mine-v1"]


@pytest.mark.parametrize(
    ("env_id", "module", "package"),
    [
        ("LunarLander-v3", "Box2D", "gymnasium[box2d]"),
        ("AntPyBulletEnv-v0", "mujoco", "gymnasium[mujoco]"),
        ("ALE/Pong-v5", "ale_py", "ale-py"),
    ],
)
def test_a067_missing_package_is_named(
    env_id: str, module: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [each for each in sys.modules if each.split(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    for name in [each for each in sys.modules if each.startswith("gymnasium.envs.")]:
        if name.split(".")[2] in ("box2d", "mujoco"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(EnvError) as raised:
        env.make(env_id)
    assert "not installed: pip install" in str(raised.value)
    assert package in str(raised.value)
    assert "\n" not in str(raised.value)


def test_wrong_keyword_gives_one_clear_line() -> None:
    with pytest.raises(EnvError, match=r"CartPole-v1 cannot be made with \{'gravitation': 3\}"):
        env.make("CartPole-v1", gravitation=3)


def test_import_is_light() -> None:
    source = "import sys, env.engines; print([m for m in ('torch', 'envpool') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_did_you_mean() -> None:
    known = ("clip", "none", "tanh")
    assert did_you_mean("TANh", known) == " Did you mean 'tanh'?"
    assert did_you_mean("nonee", ("none", "nonex")) == " Did you mean 'none' or 'nonex'?"
    assert did_you_mean("zzzz", known) == ""
