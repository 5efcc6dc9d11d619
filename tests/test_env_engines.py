"""Every engine keeps one contract: a lane is its own seed and actions, and nothing else."""

from collections.abc import Iterator

import gymnasium as gym
import numpy as np
import pytest

import env
from env import envpool_engine
from env.engines import VectorEngine, make_engine, resolve_engine, versions
from env.envpool_engine import SAME_TASKS
from env.errors import EnvError
from env.seeds import checked_seeds

CASES = [
    ("gymnasium", "CartPole-v1"),
    ("gymnasium", "LunarLanderContinuous-v3"),
    ("gymnasium", "BipedalWalker-v3"),
    ("gymnasium", "HalfCheetah-v5"),
    ("gymnasium", "Blackjack-v1"),
    ("gymnasium", "Sphere-v0"),
    ("gymnasium", "PartiallyObservableCartPole-v0"),
    ("envpool", "CartPole-v1"),
    ("envpool", "LunarLanderContinuous-v3"),
    ("envpool", "BipedalWalker-v3"),
    ("envpool", "HalfCheetah-v5"),
    ("envpool", "FrozenLake-v1"),
    ("envpool", "PartiallyObservablePendulum-v0"),
    ("batched", "Sphere-v0"),
]
SEEDS = np.array([11, 5, 2**31 - 1, 0, 77, 6])
STEPS = 40

Episode = list[tuple[bytes, float, bool]]


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}:{case[1]}")
def engine(request: pytest.FixtureRequest) -> Iterator[VectorEngine]:
    made = make_engine(*request.param)
    yield made
    made.close()


def draw(space: gym.Space, rng: np.random.Generator) -> np.ndarray:
    if isinstance(space, gym.spaces.Discrete):
        return rng.integers(space.start, space.start + space.n)
    return rng.uniform(-1, 1, space.shape).astype(np.float32)


def play(
    engine: VectorEngine,
    seeds: np.ndarray,
    choose: np.random.Generator | None = None,
    steps: int = STEPS,
) -> dict[int, Episode]:
    """Play one episode per seed; the actions of a lane follow from its seed.

    With `choose`, every call steps a random part of the running lanes in a random order.
    """
    first = engine.reset(seeds)
    assert first.dtype == np.float32 and first.shape[0] == len(seeds)
    rngs = [np.random.default_rng(seed) for seed in seeds]
    episodes: list[Episode] = [[(row.tobytes(), 0.0, False)] for row in first]
    running = list(range(len(seeds)))
    while running:
        lanes = np.array(running)
        if choose is not None:
            lanes = choose.permutation(lanes)[: choose.integers(1, len(lanes) + 1)]
        actions = np.array([draw(engine.action_space, rngs[lane]) for lane in lanes])
        observations, rewards, done = engine.step(actions, lanes)
        assert observations.dtype == np.float32 and observations.shape[0] == len(lanes)
        assert rewards.dtype.kind == "f" and done.dtype == np.bool_
        for row, lane in enumerate(lanes):
            episodes[lane].append((observations[row].tobytes(), rewards[row], bool(done[row])))
        running = [k for k in running if len(episodes[k]) <= steps and not episodes[k][-1][2]]
    return {int(seed): episode for seed, episode in zip(seeds, episodes, strict=True)}


def test_same_seeds_same_episodes(engine: VectorEngine) -> None:
    assert play(engine, SEEDS) == play(engine, SEEDS)


def test_lane_is_independent_of_its_number_and_neighbours(engine: VectorEngine) -> None:
    together = play(engine, SEEDS)
    neighbours = np.arange(100, 120)
    mixed = np.concatenate([neighbours[:7], SEEDS[::-1], neighbours[7:]])
    among_others = play(engine, mixed)
    alone = play(engine, SEEDS[2:3])
    assert {seed: among_others[seed] for seed in together} == together
    assert alone[int(SEEDS[2])] == together[int(SEEDS[2])]


def test_any_lanes_may_be_stepped_in_any_order(engine: VectorEngine) -> None:
    assert play(engine, SEEDS, np.random.default_rng(4)) == play(engine, SEEDS)


def test_seeds_matter(engine: VectorEngine) -> None:
    if engine.observation_space.shape not in ((1,), (16,)):  # the sphere and the lake begin alike
        episodes = play(engine, SEEDS, steps=3)
        assert len({episode[0][0] for episode in episodes.values()}) > 1


def test_many_lanes_of_which_a_few_are_stepped() -> None:
    engine = make_engine("envpool", "LunarLanderContinuous-v3")
    seeds = np.arange(256)
    part = np.random.default_rng(0).permutation(256)[:64]
    actions = np.random.default_rng(1).uniform(-1, 1, (30, 64, 2)).astype(np.float32)
    first = engine.reset(seeds)[part]
    large = [engine.step(each, part) for each in actions]
    assert np.array_equal(engine.reset(seeds[part]), first)
    for each, (observations, rewards, done) in zip(actions, large, strict=True):
        again = engine.step(each, np.arange(64))
        assert np.array_equal(again[0], observations)
        assert np.array_equal(again[1], rewards) and np.array_equal(again[2], done)


def test_a_step_leaves_earlier_answers_alone(engine: VectorEngine) -> None:
    observations = engine.reset(SEEDS)
    before = observations.copy()
    actions = np.array([draw(engine.action_space, np.random.default_rng(0)) for _ in SEEDS])
    engine.step(actions, np.arange(len(SEEDS)))
    engine.reset(SEEDS[::-1])
    assert np.array_equal(observations, before)


@pytest.mark.parametrize("name", ["gymnasium", "envpool"])
@pytest.mark.parametrize("env_kwargs", [{}, {"max_episode_steps": 7}])
def test_time_limit_ends_an_episode_exactly(name: str, env_kwargs: dict) -> None:
    engine = make_engine(name, "PartiallyObservablePendulum", env_kwargs)
    engine.reset(np.array([1, 2]))
    limit = env_kwargs.get("max_episode_steps", 200)
    still = np.zeros((2, 1), np.float32)
    done = [engine.step(still, np.arange(2))[2].tolist() for _ in range(limit)]
    assert done == [[False, False]] * (limit - 1) + [[True, True]]


@pytest.mark.parametrize("name", ["gymnasium", "envpool"])
def test_time_limit_counts_the_steps_of_each_lane(name: str) -> None:
    engine = make_engine(name, "Pendulum-v1", {"max_episode_steps": 7})
    episodes = play(engine, SEEDS, np.random.default_rng(3))
    assert [len(episode) for episode in episodes.values()] == [1 + 7] * len(SEEDS)


def test_environment_may_end_an_episode_by_truncation() -> None:
    class Cut(gym.Env):
        """Truncates itself at the second step."""

        observation_space = gym.spaces.Discrete(3)
        action_space = gym.spaces.Discrete(2)

        def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple:
            self.steps = 0
            return 0, {}

        def step(self, action: int) -> tuple:
            self.steps += 1
            return self.steps, 1.0, False, self.steps == 2, {}

    gym.register("Cut-v0", entry_point=Cut)
    played = play(make_engine("gymnasium", "Cut-v0"), SEEDS)
    assert [len(episode) for episode in played.values()] == [1 + 2] * len(SEEDS)
    del gym.registry["Cut-v0"]


@pytest.mark.parametrize("env_id", ["CartPole-v1", "LunarLander-v3", "Blackjack-v1", "Taxi-v4"])
def test_gymnasium_engine_plays_what_gymnasium_plays(env_id: str) -> None:
    played = play(make_engine("gymnasium", env_id), SEEDS, steps=600)
    plain = env.make(env_id)
    for seed, episode in played.items():
        rng = np.random.default_rng(seed)
        plain.reset(seed=seed)
        for _, reward, done in episode[1:]:
            _, expected, terminated, truncated, _ = plain.step(draw(plain.action_space, rng))
            assert (reward, done) == (expected, terminated or truncated)


def test_sphere_engines_agree_to_the_bit() -> None:
    batched, plain = make_engine("batched", "sphere"), make_engine("gymnasium", "sphere")
    assert play(batched, SEEDS) == play(plain, SEEDS)
    batched.reset(SEEDS[:2])
    rewards = batched.step(np.full((2, 10), [[0.5], [0.0]], np.float32), np.arange(2))[1]
    assert rewards.tolist() == [-2.5, 0.0]
    assert batched.action_space == plain.action_space
    assert batched.observation_space == plain.observation_space


@pytest.mark.parametrize("name", ["gymnasium", "envpool"])
def test_a065_engine_hides_exactly_the_stated_components(name: str) -> None:
    masked, plain = make_engine(name, "PartiallyObservableCartPole"), make_engine(name, "CartPole")
    seen, true = masked.reset(SEEDS), plain.reset(SEEDS)
    lanes = np.arange(len(SEEDS))
    for _ in range(5):
        assert not seen[:, [1, 3]].any() and true[:, [1, 3]].all()
        assert np.array_equal(seen[:, [0, 2]], true[:, [0, 2]])
        seen, true = masked.step(lanes % 2, lanes)[0], plain.step(lanes % 2, lanes)[0]
    assert masked.observation_space == plain.observation_space


def test_a065_masked_engine_equals_the_wrapper() -> None:
    first = make_engine("gymnasium", "PartiallyObservablePendulum").reset(SEEDS)
    made = env.make("PartiallyObservablePendulum")
    assert np.array_equal(first, [made.reset(seed=int(seed))[0] for seed in SEEDS])


def test_direct_and_public_calls_of_envpool_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    for env_id in ("CartPole-v1", "LunarLanderContinuous-v3", "HalfCheetah-v5"):
        engine = make_engine("envpool", env_id, {"max_episode_steps": 25})
        direct = play(engine, SEEDS, np.random.default_rng(1))
        with monkeypatch.context() as patched:
            patched.setattr(envpool_engine, "_direct_exchange", lambda pool: None)
            assert play(engine, SEEDS, np.random.default_rng(1)) == direct
        engine.reset(SEEDS)
        assert envpool_engine._direct_exchange(engine._pool) is not None  # type: ignore[attr-defined]


def test_rows_that_arrive_in_another_order_are_sorted(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = make_engine("envpool", "Pendulum-v1")
    expected = play(engine, SEEDS, np.random.default_rng(1))

    def shuffled(pool: object) -> envpool_engine.Exchange:
        exchange = envpool_engine._public_exchange(pool)
        rng = np.random.default_rng(2)

        def shuffle(lanes: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, ...]:
            order = rng.permutation(len(lanes))
            return tuple(part[order] for part in exchange(lanes, actions))

        return shuffle  # type: ignore[return-value]

    monkeypatch.setattr(envpool_engine, "_direct_exchange", shuffled)
    assert play(engine, SEEDS, np.random.default_rng(1)) == expected


@pytest.mark.parametrize("env_id", sorted(SAME_TASKS))
def test_a064_spaces_are_the_same_on_both_engines(env_id: str) -> None:
    fast, plain = make_engine("envpool", env_id), make_engine("gymnasium", env_id)
    assert fast.observation_space == plain.observation_space
    assert fast.action_space == plain.action_space
    assert fast.reset(SEEDS[:1]).shape == plain.reset(SEEDS[:1]).shape
    fast.close()
    plain.close()


@pytest.mark.parametrize(
    ("engine", "env_id", "env_kwargs", "name"),
    [
        ("auto", "LunarLanderContinuous-v2", {}, "envpool"),
        ("auto", "PartiallyObservableCartPole", {}, "envpool"),
        ("auto", "CartPole-v1", {"max_episode_steps": 9}, "envpool"),
        ("auto", "LunarLander-v3", {"enable_wind": True}, "gymnasium"),
        ("auto", "Blackjack-v1", {}, "gymnasium"),
        ("auto", "sphere", {}, "batched"),
        ("envpool", "sphere", {}, "batched"),
        ("gymnasium", "sphere", {}, "gymnasium"),
        ("gymnasium", "CartPole-v1", {}, "gymnasium"),
        ("envpool", "PartiallyObservablePendulum", {}, "envpool"),
        ("envpool", "Ant-v4", {}, "envpool"),
    ],
)
def test_resolve_engine(engine: str, env_id: str, env_kwargs: dict, name: str) -> None:
    assert resolve_engine(engine, env_id, env_kwargs) == name


def test_without_envpool_auto_takes_gymnasium(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("env.engines.is_installed", lambda: False)
    monkeypatch.setattr("env.envpool_engine.is_installed", lambda: False)
    assert resolve_engine("auto", "CartPole-v1", {}) == "gymnasium"
    with pytest.raises(EnvError, match="pip install envpool"):
        resolve_engine("envpool", "CartPole-v1", {})


@pytest.mark.parametrize(
    ("engine", "env_id", "env_kwargs", "message"),
    [
        ("envpol", "CartPole-v1", {}, "no engine 'envpol'.* Did you mean 'envpool'"),
        ("auto", "CartPool-v1", {}, "Did you mean 'CartPole-v1'"),
        ("envpool", "Taxi-v4", {}, "EnvPool has no task 'Taxi-v4': use engine 'gymnasium'"),
        ("envpool", "Blackjack-v1", {}, "Gymnasium's Tuple.*use engine 'gymnasium'"),
        ("envpool", "CartPole-v1", {"wind": 1}, "cannot be made with {'wind': 1}"),
    ],
)
def test_resolve_engine_errors(engine: str, env_id: str, env_kwargs: dict, message: str) -> None:
    with pytest.raises(EnvError, match=message):
        resolve_engine(engine, env_id, env_kwargs)


def test_make_engine_refuses_what_is_not_an_engine() -> None:
    with pytest.raises(EnvError, match="no engine 'batched' for CartPole-v1"):
        make_engine("batched", "CartPole-v1")


def test_versions_name_what_decides_the_numbers() -> None:
    assert set(versions("envpool", "CartPole-v1")) == {"envpool"}
    assert set(versions("batched", "sphere")) == {"numpy"}
    assert set(versions("gymnasium", "CartPole-v1")) == {"gymnasium", "numpy"}
    assert set(versions("gymnasium", "HalfCheetah-v5")) == {"gymnasium", "numpy", "mujoco"}
    assert len(versions("gymnasium", "LunarLander-v2")) == 3
    assert versions("gymnasium", "LunarLander-v3")["gymnasium"] == gym.__version__


@pytest.mark.parametrize("seeds", [[-1], [2**31], [], [0.5], [[1]]])
def test_seeds_out_of_range_are_refused(seeds: list) -> None:
    with pytest.raises(EnvError, match="environment seeds"):
        checked_seeds(np.array(seeds))
    with pytest.raises(EnvError, match="environment seeds"):
        make_engine("batched", "sphere").reset(np.array(seeds))
