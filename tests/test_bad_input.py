"""What cannot be is refused in one clear line, before anything is started."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from commands import EXPERIMENT, HAS_PROC, HEAD, Place, complaint, noise_file

from cluster.clients import HeadClient
from cluster.keys import Keys
from cluster.redis_server import Server, connect
from es.experiment import ex

Refused = Callable[[str], str]

DICT_ENV = """
import gymnasium as gym

class Dictionary(gym.Env):
    observation_space = gym.spaces.Dict(a=gym.spaces.Discrete(2))
    action_space = gym.spaces.Discrete(2)

class Words(Dictionary):
    observation_space = gym.spaces.Discrete(2)
    action_space = gym.spaces.Text(5)

gym.register("Dictionary-v0", Dictionary)
gym.register("Words-v0", Words)
"""
MODULES = {
    "odd_spaces": DICT_ENV,
    "breaks": "raise RuntimeError('out of\\ncheese')",
    "no_net": "class Net: pass",
}
NOBODY = "redis://127.0.0.1:1"  # a port where nothing listens

# What a user typed, and what the line must name: the value, and what would be right.
CONFIGS = [
    ("lunar_lander", "'lunar_lander'", "'lander'"),
    ("nothing.like_it", "'nothing.like_it'", "sphere"),
    ("pop_size", "'pop_size'", "lander"),
    ("pop_sise=4", "'pop_sise'", "'pop_size'"),
    ("lander recycle=False", "'recycle'", "print_config"),
    ("mean_fitness=False", "'mean_fitness'", "print_config"),
    ("adam.beta1=0.5", "'adam.beta1'", "'adam_beta1'"),
]
NAMES = [
    ("env_name=LunarLandr-v3", "'LunarLandr-v3'", "'LunarLander-v3'"),
    ("env_name=nowhere:Lander-v0", "'nowhere:Lander-v0'", "'nowhere'"),
    ("env_name=breaks:Lander-v0", "'breaks'", "out of cheese"),
    ("env_name=3", "'3'", "environment"),
    ("network=feedforwrd", "'feedforwrd'", "'feedforward'"),
    ("network=nowhere:Net", "'nowhere:Net'", "PYTHONPATH"),
    ("network=breaks:Net", "breaks", "out of cheese"),
    ("network=no_net:Nets", "'no_net:Nets'", "'Net'"),
    ("network=no_net:Net", "'no_net:Net'", "torch.nn.Module"),
    ("network=3", "network=3", "feedforward"),
    ("network_kwargs={'a':1}", "'a'", "none"),
    ("network_kwargs=3", "network_kwargs=3", "dict"),
    ("hidden_activation=tanhh", "'tanhh'", "'tanh'"),
    ("output_activation=gausian", "'gausian'", "'gaussian'"),
    ("hidden_sizes=16", "hidden_sizes=16", "[64, 64]"),
    ("hidden_sizes=[16,0]", "0", "whole number"),
    ("optimizer=Adem", "'Adem'", "'Adam'"),
    ("optimizer=LBFGS", "'LBFGS'", "Adam"),
    ("optimizer=Rprop", "'Rprop'", "Adam"),
    ("engine=envpol", "'envpol'", "'envpool'"),
    ("evaluator=redys", "'redys'", "'redis'"),
    ("evaluator=3", "3", "redis"),
    ("action_scaling=clp", "'clp'", "'clip'"),
    ("env_name=odd_spaces:Dictionary-v0", "Dict(", "Box, Discrete"),
    ("env_name=odd_spaces:Words-v0", "Text(", "Box"),
    ("local=false", "local='false'", "True or False"),
    ("render=yes", "render='yes'", "True or False"),
]
NUMBERS = [
    ("pop_size=51", "pop_size=51", "pairs"),
    ("pop_size=0", "pop_size=0", "2 or more"),
    ("pop_size=-4", "pop_size=-4", "2 or more"),
    ("pop_size=4.0", "pop_size=4.0", "whole number"),
    ("pop_size=many", "pop_size='many'", "whole number"),
    ("pop_size=True", "pop_size=True", "whole number"),
    ("sigma=-0.1", "sigma=-0.1", "0 or more"),
    ("sigma=0", "sigma=0", "above zero"),
    ("lr=-1", "lr=-1", "0 or more"),
    ("lr=fast", "lr='fast'", "number"),
    ("lr=None", "lr=None", "number"),
    ("lr_decay=0", "lr_decay=0", "above zero"),
    ("shaping=log_rank", "'log_rank'", "Did you mean 'log_ranks'"),
    ("lr_decay=1.5", "lr_decay=1.5", "at most 1"),
    ("l2coeff=-0.1", "l2coeff=-0.1", "0 or more"),
    ("adam_beta1=1", "adam_beta1=1", "below 1"),
    ("num_generations=0", "num_generations=0", "1 or more"),
    ("num_episodes=0", "num_episodes=0", "1 or more"),
    ("eval_episodes=0", "eval_episodes=0", "1 or more"),
    ("final_episodes=1", "final_episodes=1", "2 or more"),
    ("final_episodes=1000000000000", "final_episodes=1000000000000", "at most 100000000"),
    ("pop_size=1000000000000", "pop_size=1000000000000", "at most 100000000"),
    ("num_serializations=0", "num_serializations=0", "1 or more"),
    ("num_workers=0", "num_workers=0", "1 or more"),
    ("max_ep_length=0", "max_ep_length=0", "1 or more"),
    ("max_ep_length=ten", "max_ep_length='ten'", "whole number"),
    ("env_seed=-2", "env_seed=-2", "-1"),
    ("env_seed=10000000000", "env_seed=10000000000", "-1"),
    ("seed=-1", "seed=-1", "0 or more"),
    ("lander noise_size=17", "noise_size=17", "18"),
    ("noise_size=0", "noise_size=0", "1 or more"),
    ("min_task_runtime=-1", "min_task_runtime=-1", "0 or more"),
    ("stop_fitness=high", "stop_fitness='high'", "number"),
]
PLACES = [
    (f"redis={NOBODY}", NOBODY, "no redis server answers"),
    ("redis=localhost", "localhost", "redis://"),
    ("redis=3", "redis=3", "redis://"),
    ("redis=redis://:secret@127.0.0.1:1", "EVO_REDIS", "password"),
    ("local=False", "local=False", "run-server"),
    ("render=True", "render=True", "display"),
    ("load_from=99", "load_from=99", "no run 99"),
    ("load_from=lost.model", "'lost.model'", "no such file"),
]


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with modules of a user's."""
    folder = tmp_path_factory.mktemp("modules")
    for name, text in MODULES.items():
        (folder / f"{name}.py").write_text(text)
    return folder


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch, modules: Path) -> Iterator[Place]:
    """A place where starting a server is noticed; this process is in it, too."""
    with Place() as place:
        witness = place.folder / "bin" / "redis-server"
        witness.parent.mkdir()
        witness.write_text(f"#!/bin/sh\ntouch {place.folder}/started\nexit 1\n")
        witness.chmod(0o700)
        place.env["PATH"] = f"{witness.parent}:{place.env['PATH']}"
        place.env["PYTHONPATH"] = str(modules)
        for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER", "EVO_REDIS", "MONGO_URL"):
            monkeypatch.delenv(name, raising=False)
        for name in ("EVO_RUNS", "TMPDIR", "XDG_RUNTIME_DIR", "PATH"):
            monkeypatch.setenv(name, place.env[name])
        monkeypatch.syspath_prepend(modules)
        monkeypatch.chdir(place.folder)
        monkeypatch.setattr(ex, "observers", [])
        yield place


@pytest.fixture
def refused(place: Place, capfd: pytest.CaptureFixture[str]) -> Refused:
    """Type a command line; gives the line that says why it cannot be.

    The command line as such, but in this process: starting it 80 times would cost minutes.
    """

    def typed(words: str) -> str:
        with pytest.raises(SystemExit) as ended:
            ex.run_commandline([EXPERIMENT, "with", *words.split()])
        assert ended.value.code == 1
        assert nothing_was_started(place)
        return complaint(capfd.readouterr().err)

    return typed


def nothing_was_started(place: Place) -> bool:
    return not place.runs.exists() and not (place.folder / "started").exists()


@pytest.mark.parametrize(("words", "value", "right"), [*CONFIGS, *NAMES, *NUMBERS, *PLACES])
def test_a007_refused_in_one_line(words: str, value: str, right: str, refused: Refused) -> None:
    line = refused(words)
    assert value in line
    assert right in line


def test_a007_policy_file_that_does_not_fit(place: Place, refused: Refused) -> None:
    """Not found out when the workers wait already."""
    file = place.folder / "other.model"
    file.write_text("no policy")
    assert f"{file} is no saved policy" in refused(f"lander load_from={file}")
    torch.save([1, 2], file)
    assert "not a state_dict" in refused(f"lander load_from={file}")
    torch.save({"weight": torch.zeros(3)}, file)
    assert "weight" in refused(f"lander load_from={file}")


def test_a007_second_head_on_a_server(
    server: Server, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVO_REDIS", server.url)
    first = HeadClient(connect(server.url), "1-first", Keys())
    first.lead()
    line = refused("sphere")
    assert "1-first" in line
    assert "another server" in line
    assert "password" not in line


@pytest.mark.parametrize(
    ("words", "value", "right"),
    [
        (["with", "lander", "pop_sise=4"], "'pop_sise'", "'pop_size'"),
        (["with", "lander", "env_name=LunarLandr-v3"], "'LunarLandr-v3'", "'LunarLander-v3'"),
    ],
)
def test_a007_as_a_program(words: list[str], value: str, right: str, place: Place) -> None:
    command = place.start(EXPERIMENT, *words, f"noise_seed={os.getpid()}")
    assert command.end() == 1
    line = complaint(command.err)
    assert value in line
    assert right in line
    assert command.out == ""
    assert nothing_was_started(place)
    assert not noise_file(10_000_000, os.getpid()).exists()
    if HAS_PROC:
        assert place.leftovers() == []


def test_server_that_cannot_start_is_told_in_one_line(place: Place) -> None:
    """And this also shows that the tests above would notice a server."""
    command = place.start(EXPERIMENT, "with", "sphere", "num_generations=1")
    assert command.end() == 1
    told = [line for line in command.err.splitlines() if "the redis server did not start" in line]
    assert len(told) == 1
    assert "Traceback" not in command.err
    assert not nothing_was_started(place)


@pytest.mark.parametrize("words", [["status"], ["flush"], ["status", f"--redis={NOBODY}"]])
def test_head_without_a_server_says_so(words: list[str], place: Place) -> None:
    command = place.start(HEAD, *words)
    assert command.end() == 1
    assert ("run-server" in complaint(command.err)) or (NOBODY in complaint(command.err))
