"""Nevergrad's optimizers: what they are told, that they spend their budget, what is refused."""

from typing import Any

import cma
import numpy as np
import pytest

from evolution.evaluation import Evaluations, LocalEvaluator
from evolution.loop import Generation, evolve
from evolution.noise import NoiseTable
from evolution.population import Dense
from evolution.problem import choose_problem
from evolution.seeding import Seeding
from nevergrad_es.registry import registry
from nevergrad_es.strategy import WIDE, NevergradStrategy
from nevergrad_es.tools import (
    LARGE,
    NOISY,
    SERVES,
    SMALL,
    UNREPEATABLE,
    Tool,
    ToolError,
    find_tool,
    tools,
)

PROBLEM = choose_problem(
    env_name="Sphere-v0",
    policy_kwargs={"hidden_sizes": [], "output_activation": "none"},
    action_scaling="none",
)
WELL_KNOWN = (
    *("CMA", "DiagonalCMA", "ES", "OnePlusOne", "DE", "PSO", "TBPSA", "NGOpt", "RandomSearch"),
)


def start(tool: str = "CMA", dim: int = 6, **settings: Any) -> NevergradStrategy:
    chosen = {"pop_size": 5, "generations": 8, "sigma": 0.5} | settings
    theta = np.linspace(-1, 1, dim).astype(np.float32)
    return NevergradStrategy(theta, np.random.default_rng(4), tool=tool, **chosen)


def evaluated(fitness: np.ndarray) -> Evaluations:
    ones = np.ones(len(fitness), np.int64)
    return Evaluations(fitness.astype(np.float32), ones, ones, ones.astype(np.float32), 1)


def advance(
    strategy: NevergradStrategy, rng: np.random.Generator, fitness: np.ndarray | None = None
) -> Dense:
    """One generation, on a sphere if no other fitness is given."""
    (population,) = strategy.ask(rng)
    if fitness is None:
        fitness = -np.square(population.values).sum(axis=1)
    strategy.tell([population], [evaluated(fitness)])
    return population


def on_the_sphere(
    tool: str, generations: int, seed: int, noise: NoiseTable
) -> tuple[NevergradStrategy, list[Generation]]:
    """As ``with sphere`` has it."""
    seeding = Seeding(seed)
    rng = seeding.init()
    theta = PROBLEM.make_policy().initial_theta(rng)
    sizes = {"pop_size": 20, "generations": generations}
    strategy = NevergradStrategy(theta, rng, tool=tool, sigma=0.3, **sizes)
    settings = {"generations": generations, "episodes": 1, "eval_episodes": 1, "seeding": seeding}
    with LocalEvaluator(PROBLEM, noise) as evaluator:
        return strategy, list(evolve(strategy, evaluator, **settings))


@pytest.mark.parametrize("tool", WELL_KNOWN)
def test_a090_a_tool_spends_its_budget_and_improves(tool: str, noise: NoiseTable) -> None:
    assert find_tool(tool).verdict == SERVES
    strategy, generations = on_the_sphere(tool, 12, 1, noise)
    assert strategy.evaluations == 240
    assert generations[-1].metrics["total fitness evals"] == 240
    assert generations[-1].fitness > 0.8 * generations[0].fitness


def test_a090_an_unknown_tool_is_refused_with_near_matches() -> None:
    with pytest.raises(ToolError, match=r"^tool='CNA': .* Did you mean '\w*CMA' or '\w+'\?"):
        find_tool("CNA")
    with pytest.raises(ToolError, match="Did you mean 'OnePlusOne'"):
        find_tool("oneplusone")
    with pytest.raises(ToolError, match=r"^tool=7: Nevergrad has no optimizer of that name"):
        find_tool(7)
    with pytest.raises(
        ToolError, match=r"^tool=\['CMA'\]: Nevergrad has no optimizer of that name"
    ):
        find_tool(["CMA"])


def test_a090_all_of_the_registry_were_tried() -> None:
    assert set(tools()) == set(registry)
    for tool in tools().values():
        assert bool(tool.reason) == (tool.verdict != SERVES or bool(tool.only))


def test_a_tool_of_a_newer_nevergrad_may_be_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry, "Newest", registry["DE"])
    tool = find_tool("Newest")
    assert tool.verdict == UNREPEATABLE
    tool.check(10_000, noisy=False)


def test_tools_that_cannot_serve_are_refused_with_the_reason() -> None:
    some = Tool("Some", SERVES, frozenset({SMALL, NOISY}), "it fails: so")
    some.check(LARGE - 1, noisy=True)
    with pytest.raises(ToolError, match=f"^tool=Some cannot serve with {LARGE} parameters: it fa"):
        some.check(LARGE, noisy=True)
    with pytest.raises(ToolError, match=r"^tool=Some cannot serve with noisy=False: it "):
        some.check(2, noisy=False)
    with pytest.raises(ToolError, match=r"^tool=SQP cannot serve: .*a thread of its own"):
        find_tool("SQP").check(2, noisy=True)
    with pytest.raises(ToolError, match=r"^tool=SPSA cannot serve: .*one candidate at a time"):
        find_tool("SPSA").check(2, noisy=True)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_a016_the_sphere_converges_within_100_generations(seed: int, noise: NoiseTable) -> None:
    _, generations = on_the_sphere("CMA", 100, seed, noise)
    assert generations[0].fitness < -2
    assert generations[-1].fitness > -1e-2


def test_a092_any_size_of_population_is_asked_and_told_to_the_last() -> None:
    """Also one that neither processors nor CMA's own population divide."""
    strategy = start("CMA", dim=30, pop_size=7, generations=9)
    rng = np.random.default_rng(0)
    sizes = {len(advance(strategy, rng)) for _ in range(9)}
    assert sizes == {7}
    assert strategy.evaluations == 63
    with pytest.raises(ToolError, match="its budget is 9 generations"):
        strategy.ask(rng)


def test_generations_to_come_take_no_room() -> None:
    strategy, rng = start("DE", generations=10**12), np.random.default_rng(0)
    advance(strategy, rng)
    assert strategy.state()["fitness"].shape == (1, 5)


class Listening:
    """An optimizer that writes down what it is told of."""

    def __init__(self, parametrization: Any, budget: int, num_workers: int) -> None:
        self.parametrization, self.sizes = parametrization, (budget, num_workers)
        self.asked, self.told = list[Any](), list[tuple[int, float]]()
        self.num_tell = 0

    def ask(self) -> Any:
        rng = self.parametrization.random_state
        child = self.parametrization.spawn_child()
        child.set_standardized_data(rng.normal(size=self.parametrization.dimension))
        self.asked.append(child)
        return child

    def tell(self, candidate: Any, loss: float) -> None:
        places = [place for place, each in enumerate(self.asked) if each is candidate]
        self.told.append((places[0], loss))

    def provide_recommendation(self) -> Any:
        return self.asked[min(self.told, key=lambda each: each[1])[0]]


def test_it_is_told_of_each_candidate_in_its_row_with_the_sign_changed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = list[Listening]()
    monkeypatch.setitem(
        registry, "Listening", lambda **settings: made.append(Listening(**settings)) or made[-1]
    )
    strategy, rng = start("Listening", overlap=1), np.random.default_rng(1)
    (optimizer,) = made
    assert optimizer.sizes == (40, 10)  # of two generations at once
    (first,), (second,) = strategy.ask(rng), strategy.ask(rng)
    strategy.tell([first], [evaluated(np.array([1.0, 5.0, 3.0, -2.0, 4.0]))])
    strategy.tell([second], [evaluated(np.arange(5.0))])
    assert optimizer.told == [
        *((0, -1.0), (1, -5.0), (2, -3.0), (3, 2.0), (4, -4.0)),
        *((5, 0.0), (6, -1.0), (7, -2.0), (8, -3.0), (9, -4.0)),
    ]
    assert np.array_equal(strategy.theta, first.values[1])
    # What is 1 to the optimizer is sigma of the parameters; nothing is cut off.
    standard = np.array(
        [
            each.get_standardized_data(reference=optimizer.parametrization)
            for each in optimizer.asked[:5]
        ]
    )
    start_at = np.linspace(-1, 1, 6).astype(np.float32).astype(np.float64)
    assert np.array_equal(first.values, (start_at + 0.5 * standard).astype(np.float32))


def test_the_recommendation_is_a_candidate_to_the_last_bit() -> None:
    for tool in ("CMA", "OnePlusOne", "DE"):
        strategy, rng = start(tool, dim=40), np.random.default_rng(2)
        rows = np.concatenate([advance(strategy, rng).values for _ in range(8)])
        assert strategy.theta.tobytes() in {row.tobytes() for row in rows}


def test_before_anything_is_told_theta_is_the_start() -> None:
    strategy = start(dim=6)
    strategy.ask(np.random.default_rng(0))
    assert np.array_equal(strategy.theta, np.linspace(-1, 1, 6).astype(np.float32))


def test_the_search_begins_as_wide_as_sigma() -> None:
    for sigma in (0.01, 10.0):
        strategy = start("OldCMA", dim=50, pop_size=200, sigma=sigma)
        (population,) = strategy.ask(np.random.default_rng(3))
        spread = (population.values - strategy.theta).std()
        assert spread == pytest.approx(sigma, rel=0.05)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_fitness_that_is_no_number_ends_it_in_one_line(bad: float) -> None:
    with pytest.raises(ToolError, match=r"^candidate 1 has fitness -?(nan|inf): "):
        advance(start(), np.random.default_rng(0), np.array([1.0, bad, 3.0, 4.0, 5.0]))


def test_what_an_optimizer_raises_is_told_in_one_line() -> None:
    with pytest.raises(
        ToolError, match=r"^tool=SPSA cannot be made: ValueError: .*parallelization"
    ):
        start("SPSA")


def test_a_tool_that_asks_for_other_candidates_cannot_go_on() -> None:
    strategy, rng = start("DE"), np.random.default_rng(5)
    for _ in range(3):
        advance(strategy, rng)
    state = strategy.state()
    with pytest.raises(ToolError, match=r"^tool=PSO asks for other candidates than before"):
        start("PSO").restore(state)


def test_cma_is_another_method_if_returns_do_not_vary() -> None:
    """Nevergrad chooses by what it is told."""
    populations = []
    for noisy in (True, False):
        strategy, rng = start("CMA", pop_size=30, noisy=noisy), np.random.default_rng(6)
        populations.append([advance(strategy, rng).values for _ in range(3)][-1])
    assert not np.array_equal(*populations)


@pytest.mark.parametrize(
    ("tool", "pop_size", "lost"),
    [
        *(("CMA", size, lost) for size, lost in ((10, True), (12, False), (6, False), (50, False))),
        *(("DiagonalCMA", 5, True), ("DE", 5, False)),
    ],
)
def test_it_warns_if_cma_would_lose_what_it_is_told(
    tool: str, pop_size: int, lost: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """With 18 parameters its own population is 12."""
    start(tool, dim=18, pop_size=pop_size)
    said = f"tool={tool} has a population of 12 of its own: with pop_size={pop_size}, which"
    assert (said in caplog.text) == lost
    assert bool(caplog.text) == lost


def test_it_warns_if_cma_would_learn_nothing_or_be_slow(caplog: pytest.LogCaptureFixture) -> None:
    start("CMA", dim=18, pop_size=1, generations=12)
    start("DiagonalCMA", dim=WIDE, pop_size=40)
    start("CMA", dim=WIDE - 1, pop_size=40)
    assert not caplog.text
    start("CMA", dim=18, pop_size=1, generations=11)
    assert "tool=CMA learns from 12 candidates at a time: a budget of 11 teaches it" in caplog.text
    start("CMA", dim=WIDE, pop_size=40)
    assert "tool=CMA works with matrices of 4000 x 4000, 0.1 GB each" in caplog.text


def test_diagonal_cma_takes_many_parameters_and_many_asks_at_once() -> None:
    """With earlier versions of its libraries that raised an error."""
    strategy, rng = start("DiagonalCMA", dim=400, pop_size=24), np.random.default_rng(3)
    means = [float(np.square(advance(strategy, rng).values).sum(1).mean()) for _ in range(8)]
    assert strategy.evaluations == 192
    assert means[-1] < means[0]


@pytest.mark.parametrize("pop_size", [4, 12, 20])
def test_cma_learns_from_all_that_it_is_told(
    pop_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = list[bool]()
    original = cma.CMAEvolutionStrategy.tell

    def tell(*arguments: Any) -> None:
        told.append(False)
        original(*arguments)
        told[-1] = True

    monkeypatch.setattr(cma.CMAEvolutionStrategy, "tell", tell)
    strategy, rng = (
        start("CMA", dim=18, pop_size=pop_size, generations=12),
        np.random.default_rng(1),
    )
    for _ in range(12):
        advance(strategy, rng)
    assert told == [True] * (pop_size * 12 // max(pop_size, 12))


def test_cma_asks_for_the_same_without_our_shortcut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also after pycma has stopped, and a new one has begun."""
    begun, asked = list[int](), list[list[np.ndarray]]()
    original = cma.CMAEvolutionStrategy.__init__

    def begin(*arguments: Any, **settings: Any) -> None:
        begun[-1] += 1
        original(*arguments, **settings)

    monkeypatch.setattr(cma.CMAEvolutionStrategy, "__init__", begin)
    for shortcut in (True, False):
        if not shortcut:
            monkeypatch.setattr("nevergrad_es.strategy.unbounded_cma", lambda _: None)
        begun.append(0)
        strategy = start("CMA", dim=2, pop_size=6, generations=80)
        rng = np.random.default_rng(8)
        asked.append([advance(strategy, rng).values for _ in range(80)])
    np.testing.assert_array_equal(*asked)
    assert begun[0] == begun[1] > 1
