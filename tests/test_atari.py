"""Atari games: DeepMind's configuration, the same with every engine, and pure episodes."""

import importlib.util
from typing import Any

import ale_py
import gymnasium as gym
import numpy as np
import pytest
from test_env_engines import play

import env
from env import atari
from env import console as console_module
from env.atari import AtariEngine, start_of
from env.atari_games import ALL_55, SHOWN_13
from env.console import Console, shrink
from env.engines import make_engine, resolve_engine, versions
from env.errors import EnvError
from env.ids import current_id

FROSTBITE, INVADERS = "ALE/Frostbite-v5", "ALE/SpaceInvaders-v5"
OF_IBM = {"picture": "colour", "life_loss_ends": True}
SEEDS = np.array([11, 2**31 - 1, 6])
CASES = [(FROSTBITE, {}, (4, 84, 84), 18), (INVADERS, OF_IBM, (3, 210, 160), 6)]
ONE = np.zeros(1, np.int64)


@pytest.fixture(scope="module", params=CASES, ids=["frostbite", "invaders"])
def case(request: pytest.FixtureRequest) -> Any:
    env_id, env_kwargs, *form = request.param
    return env_id, env_kwargs, form, make_engine("atari", env_id, env_kwargs)


# --- the contract of engines


def test_an_episode_is_its_seed_and_actions_alone(case: Any) -> None:
    """Not its number, its neighbours, the order of the lanes, or what was played before."""
    env_id, env_kwargs, _, engine = case
    together = play(engine, SEEDS)
    assert play(engine, SEEDS) == together
    assert play(engine, SEEDS, np.random.default_rng(4)) == together
    mixed = play(engine, np.concatenate([SEEDS[::-1], [100, 101]]))
    assert {seed: mixed[seed] for seed in together} == together
    fresh = make_engine("atari", env_id, env_kwargs)
    assert play(fresh, SEEDS[1:2]) == {2**31 - 1: together[2**31 - 1]}
    assert len({episode[-1][0] for episode in together.values()}) == len(SEEDS)


def test_gymnasium_plays_the_same_episodes_to_the_bit(case: Any) -> None:
    env_id, env_kwargs, _, engine = case
    plain = make_engine("gymnasium", env_id, env_kwargs)
    assert play(plain, SEEDS) == play(engine, SEEDS)
    assert plain.action_space == engine.action_space
    assert plain.observation_space == engine.observation_space


def test_a066_shapes_and_what_earlier_answers_keep(case: Any) -> None:
    _, _, (shape, actions), engine = case
    assert engine.observation_space == gym.spaces.Box(0, 255, shape, np.float32)
    assert engine.action_space == gym.spaces.Discrete(actions)
    observations = engine.reset(SEEDS)
    before = observations.copy()
    assert observations.shape == (3, *shape)
    engine.step(np.arange(3), np.arange(3))
    engine.reset(SEEDS[::-1])
    assert np.array_equal(observations, before)


def test_an_ended_lane_is_not_stepped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console_module, "MOST_FRAMES", 40)
    engine = make_engine("atari", FROSTBITE)
    seed = next(seed for seed in range(1000) if start_of(seed) == 7)  # 8 frames
    engine.reset(np.array([seed]))
    done = [bool(engine.step(ONE, ONE)[2][0]) for _ in range(8)]
    assert done == [False] * 7 + [True]
    with pytest.raises(EnvError, match="lane 0 has ended"):
        engine.step(ONE, ONE)
    game = env.make(FROSTBITE)
    game.reset(seed=seed)
    assert [game.step(0)[2:4] for _ in range(8)][6:] == [(False, False), (False, True)]


# --- DeepMind's configuration


def test_a066_episodes_begin_after_1_to_30_frames() -> None:
    console = Console("frostbite", "grey")
    begun = console.ale.getEpisodeFrameNumber()
    frames = [start.state.getEpisodeFrameNumber() - begun for start in console.starts()]
    assert frames == list(range(1, 31))
    drawn = np.bincount([start_of(seed) for seed in range(3000)], minlength=30)
    assert len(drawn) == 30 and drawn.min() > 60 and drawn.max() < 150


@pytest.mark.parametrize("game", ["frostbite", "venture"])
def test_a066_pictures_are_those_of_ale_py(game: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of its vector environment: to the bit, but where an average lies between two greys.

    There OpenCV, which computes in float32, may take the other one.
    """
    seed = 7
    theirs = ale_py.AtariVectorEnv(game, 1, num_threads=1, reward_clipping=False)
    _, info = theirs.reset(seed=np.array([seed]))
    monkeypatch.setattr(console_module, "CONSOLE_SEED", seed)  # it begins with another memory
    console = Console(game, "grey")
    begun = console.ale.getEpisodeFrameNumber()
    console.begin(console.starts()[int(info["episode_frame_number"][0]) - begun - 1])
    differing, total, rng = 0, 0, np.random.default_rng(0)
    for step in range(100):
        action = int(rng.integers(len(console.actions)))
        seen, rewards, ended, *_ = theirs.step(np.array([action]))
        assert console.step(action, False) == (rewards[0], bool(ended[0])), step
        ours = console.seen.transpose(2, 0, 1).astype(int)
        assert np.abs(ours - seen[0]).max() <= 1
        differing, total = differing + int((ours != seen[0]).sum()), total + ours.size
    assert differing < total / 500
    theirs.close()


def test_a066_averages_are_exact() -> None:
    rng = np.random.default_rng(3)
    for picture in (rng.integers(0, 256, (210, 160)), rng.integers(0, 2, (210, 160)) * 255):
        large = picture.repeat(2, axis=0).repeat(21, axis=1).reshape(84, 5, 84, 40)
        expected = np.rint(large.sum(axis=(1, 3)) / 200)  # halves to the even neighbour
        small = shrink(picture.astype(np.uint8))
        assert small.dtype == np.uint8
        assert np.array_equal(small, expected)


def test_a066_four_pictures_move_on() -> None:
    engine = make_engine("atari", FROSTBITE)
    before = engine.reset(SEEDS[:1])
    assert not before[0, :3].any() and before[0, 3].any()
    for _ in range(5):
        after, *_ = engine.step(ONE, ONE)
        assert np.array_equal(after[0, :3], before[0, 1:])
        before = after


def test_r215_a_lost_life_ends_an_episode_if_asked() -> None:
    """And otherwise not; rewards are the game's points."""
    lengths, points = [], []
    for env_kwargs in ({"life_loss_ends": True}, {}):
        engine = make_engine("atari", INVADERS, env_kwargs)
        engine.reset(SEEDS[:1])
        rewards, done, steps = np.zeros(1), np.zeros(1, np.bool_), 0
        while not done[0]:
            _, rewards, done = engine.step(np.array([1 + steps % 5]), ONE)
            steps += 1
            points.append(float(rewards[0]))
        lengths.append(steps)
        assert isinstance(engine, AtariEngine)
    assert lengths[0] < lengths[1] / 2
    assert max(points) >= 5


def test_envpool_plays_the_same_after_as_many_frames() -> None:
    """It draws their number its own way, and begins with the first picture four times."""
    pool, steps = make_engine("envpool", FROSTBITE), 12
    ours = make_engine("atari", FROSTBITE)
    assert pool.action_space == ours.action_space
    assert pool.observation_space == ours.observation_space
    first = pool.reset(SEEDS[:1])
    assert (first[0] == first[0, 3]).all()
    actions = np.random.default_rng(1).integers(0, 18, steps)
    theirs = [pool.step(np.array([action]), ONE) for action in actions]
    pool.close()
    console = Console("frostbite", "grey")
    for start in console.starts():
        console.begin(start)
        told = [console.step(int(action), False) for action in actions]
        newest = theirs[-1][0][0].transpose(1, 2, 0)
        if np.abs(console.seen - newest).max() <= 1:
            assert told == [(float(rewards[0]), bool(done[0])) for _, rewards, done in theirs]
            return
    raise AssertionError("none of our 30 beginnings leads where EnvPool's did")


# --- names


@pytest.mark.parametrize(
    "env_id", ["FrostbiteNoFrameskip-v4", "FrostbiteDeterministic-v4", "ALE/Frostbite", FROSTBITE]
)
def test_a067_all_ids_of_a_game_mean_one(env_id: str) -> None:
    assert current_id(env_id) == FROSTBITE
    assert resolve_engine("auto", env_id) == "atari"


def test_r338_lists_of_games_are_games() -> None:
    assert len(set(ALL_55)) == len(ALL_55) == 55
    assert len(set(SHOWN_13)) == 13 and set(SHOWN_13) < set(ALL_55)
    assert [current_id(env_id) for env_id in ALL_55] == list(ALL_55)


def test_versions_name_what_decides_the_numbers() -> None:
    expected = {"ale-py": ale_py.__version__, "numpy": np.__version__}
    assert versions("atari", FROSTBITE) == expected
    assert versions("gymnasium", FROSTBITE) == expected | {"gymnasium": gym.__version__}


@pytest.mark.parametrize(
    ("engine", "env_id", "env_kwargs", "message"),
    [
        ("auto", "ALE/Frostbit-v5", {}, "no environment 'ALE/Frostbit-v5'.* 'ALE/Frostbite-v5'"),
        ("auto", "FrostbitNoFrameskip-v4", {}, "no environment .* 'ALE/Frostbite-v5'"),
        ("atari", "CartPole-v1", {}, "ids such as ALE/Frostbite-v5, not CartPole-v1"),
        ("atari", FROSTBITE, {"pictur": "grey"}, "no keyword 'pictur'.* Did you mean 'picture'"),
        ("atari", FROSTBITE, {"picture": "gray"}, "picture='gray'; choose from grey, colour"),
        ("atari", FROSTBITE, {"life_loss_ends": 1}, "life_loss_ends=1: must be True or False"),
        ("envpool", FROSTBITE, {"picture": "colour"}, "use engine 'atari'"),
        ("gymnasium", FROSTBITE, {"wind": 1}, "no keyword 'wind'"),
    ],
)
def test_mistakes_are_one_line(engine: str, env_id: str, env_kwargs: dict, message: str) -> None:
    with pytest.raises(EnvError, match=message) as caught:
        make_engine(resolve_engine(engine, env_id, env_kwargs), env_id, env_kwargs)
    assert "\n" not in str(caught.value)


def test_a067_missing_ale_is_one_line_that_names_the_package(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(atari, "is_installed", lambda: False)
    for name in ("atari", "gymnasium"):
        with pytest.raises(EnvError, match=r"^ALE/Frostbite-v5 needs .*: pip install ale-py$"):
            make_engine(name, FROSTBITE)
    assert importlib.util.find_spec("ale_py") is not None
