"""Deep genetic algorithms: genomes, selection, and elites that earn their place."""

import itertools
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from evolution.decoder import Decoder
from evolution.evaluation import Evaluations, LocalEvaluator
from evolution.loop import Asked, History, evolve
from evolution.noise import NoiseTable
from evolution.population import Lineages
from evolution.problem import choose_problem
from evolution.seeding import Seeding
from ga.deep_ga import DeepGA, best_first
from store.checkpoint import decoded, encoded

SHAPES = np.array([[4, 5], [4, 0], [2, 4], [2, 0]])  # 5 inputs, 4 hidden units, 2 outputs
DIM = 34
SETTINGS: dict[str, Any] = {
    "pop_size": 40,
    "n_parents": 8,
    "champions": 2,
    "n_elite_candidates": 4,
    "n_evals": 5,
    "sigma": 0.1,
}


def start(noise: NoiseTable, **settings: Any) -> DeepGA:
    return DeepGA(SHAPES, noise, **SETTINGS | settings)


def evaluated(fitness: Any, steps: int = 3) -> Evaluations:
    rows = len(fitness)
    columns = np.full(rows, steps), np.ones(rows, np.int64), np.ones(rows, np.float32)
    return Evaluations(np.asarray(fitness, np.float32), *columns, 1)


def by_hand(genome: Sequence[int], noise: NoiseTable, sigma: float) -> np.ndarray:
    """The ten lines of Such et al.: an ancestor, then one addition for each mutation."""
    values = noise.get(genome[0], DIM).astype(np.float32)
    first, second = values[:20].reshape(4, 5), values[24:32].reshape(2, 4)
    theta = np.zeros(DIM, np.float32)
    theta[:20] = (first / np.sqrt((first * first).sum(axis=1))[:, None]).ravel()
    theta[24:32] = (second / np.sqrt((second * second).sum(axis=1))[:, None]).ravel()
    for index in genome[1:]:
        theta = theta + np.float32(sigma) * noise.get(index, DIM)
    return theta


# --- genomes


@pytest.mark.parametrize("length", [1, 2, 3, 50])
def test_a031_a_genome_is_what_ten_lines_make_of_it(length: int, noise: NoiseTable) -> None:
    genome = tuple(np.random.default_rng(length).integers(0, 1000, length).tolist())
    theta = Decoder(noise).write(genome, SHAPES, 0.1)
    assert theta.dtype == np.float32
    assert theta.tobytes() == by_hand(genome, noise, 0.1).tobytes()


def test_a031_ancestors_have_unit_weights_and_no_biases(noise: NoiseTable) -> None:
    theta = Decoder(noise).ancestor(17, SHAPES)
    lengths = np.linalg.norm(theta[:20].reshape(4, 5), axis=1)
    np.testing.assert_allclose(lengths, 1, rtol=1e-6)
    assert not theta[20:24].any()
    assert not theta[32:].any()


def test_a030_another_process_writes_the_same_bits(noise: NoiseTable) -> None:
    program = f"""
import sys, numpy as np
from evolution.decoder import Decoder
from evolution.noise import NoiseTable
with NoiseTable({noise.size}, {noise.seed}) as noise:
    theta = Decoder(noise).write((7, 3, 90_000, 11), np.array({SHAPES.tolist()}), 0.1)
    sys.stdout.write(theta.tobytes().hex())
"""
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert bytes.fromhex(said.stdout.decode()) == by_hand((7, 3, 90_000, 11), noise, 0.1).tobytes()


@pytest.mark.parametrize("room", [0, 1000, 1 << 20])
def test_whatever_is_remembered_the_bits_are_the_same(room: int, noise: NoiseTable) -> None:
    rng, decoder = np.random.default_rng(3), Decoder(noise, room)
    genomes = [(5,), (6,)]
    for _ in range(200):
        parent = genomes[rng.integers(len(genomes))]
        genomes.append((*parent, int(rng.integers(1000))))
        theta = decoder.write(genomes[-1], SHAPES, 0.1)
        assert theta.tobytes() == by_hand(genomes[-1], noise, 0.1).tobytes()


def test_a_mutation_costs_one_addition_at_any_length(noise: NoiseTable) -> None:
    decoder, genome = Decoder(noise), tuple(range(1000))
    decoder.write(genome, SHAPES, 0.1)
    before = decoder.additions
    for index in range(100):
        decoder.write((*genome[:-1], index), SHAPES, 0.1)
    assert decoder.additions - before == 100
    decoder.write((*genome, 5), SHAPES, 0.1)  # and a generation later
    assert decoder.additions - before == 101


def test_other_shapes_and_sigmas_are_not_mixed_up(noise: NoiseTable) -> None:
    decoder = Decoder(noise)
    one, other = (decoder.write((1, 2, 3), SHAPES, sigma) for sigma in (0.1, 0.2))
    assert not np.array_equal(one, other)
    assert len(decoder.write((1, 2, 3), SHAPES[:2], 0.1)) == 24


# --- selection


def generation(
    ga: DeepGA, rng: np.random.Generator, children: Any, elites: Any = None
) -> tuple[list[Lineages], dict[str, float]]:
    asked = ga.ask(rng)
    scores = [children] if elites is None else [children, elites]
    told = [evaluated(each) for each in scores]
    return asked, ga.tell(asked, told)


def test_a032_survivors_are_the_best_and_champions_stay_unmutated(noise: NoiseTable) -> None:
    ga, rng = start(noise), np.random.default_rng(1)
    scores = rng.permutation(40).astype(float)
    (first,), _ = generation(ga, rng, scores)
    best = np.argsort(-scores)[:8]
    assert [each.genome for each in ga._survivors] == [first.genome(row) for row in best]
    assert all(len(each.genome) == 1 for each in ga._survivors)
    # of the four candidates the third and the first do best when they play again
    again = np.repeat([5.0, 1.0, 9.0, 0.0], 5)
    children = np.full(40, 100.0)
    asked, _ = generation(ga, rng, children, again)
    champions = [each.genome for each in ga._survivors[:2]]
    assert champions == [first.genome(best[2]), first.genome(best[0])]
    assert asked[1].thetas([10], Decoder(noise)).tobytes() == (
        asked[1].thetas([14], Decoder(noise)).tobytes()
    )
    assert [len(each.genome) for each in ga._survivors] == [1, 1, *[2] * 6]


@pytest.mark.parametrize(
    "wrong",
    [
        {"pop_size": 8},
        {"n_parents": 2},
        {"champions": 0},
        {"n_elite_candidates": 1},
        {"n_elite_candidates": 9},
        {"n_evals": 0},
        {"sigma": 0.0},
        {"sigma": float("nan")},
    ],
)
def test_a032_sizes_that_do_not_fit_are_refused(wrong: dict, noise: NoiseTable) -> None:
    (name,) = wrong
    with pytest.raises(ValueError, match=f"{name}="):
        start(noise, **wrong)


def test_a033_a_lucky_champion_loses_its_place(noise: NoiseTable) -> None:
    ga, rng = start(noise), np.random.default_rng(2)
    lucky = np.zeros(40)
    lucky[7] = 1000.0
    (first,), _ = generation(ga, rng, lucky)
    assert ga.elite is not None
    assert ga.elite.genome == first.genome(7)
    generation(ga, rng, np.full(40, -1.0), np.repeat([-5.0, -3.0, 0.0, -4.0], 5))
    assert ga.elite.genome != first.genome(7)
    assert ga.elite.score == 0.0  # a mean of exactly 0 counts


def test_a034_ties_are_not_broken_by_the_genome() -> None:
    rng = np.random.default_rng(3)
    kept = []
    for _ in range(200):
        indices = rng.integers(0, 10_000_000, 100)
        kept.append(indices[best_first(np.zeros(100), indices)[:10]].mean() / 10_000_000)
    assert 0.47 < np.mean(kept) < 0.53
    assert best_first(np.array([1.0, 3.0, 2.0]), np.arange(3)).tolist() == [1, 2, 0]


def test_parents_are_drawn_uniformly(noise: NoiseTable) -> None:
    ga, rng = start(noise, pop_size=8000), np.random.default_rng(4)
    generation(ga, rng, rng.permutation(8000))
    counts = np.bincount(ga.ask(rng)[0].parent_of, minlength=8)
    assert (abs(counts - 1000) < 150).all()


def noisy_run(noise: NoiseTable, seed: int) -> tuple[list[float], list[float], list[float]]:
    """Errors of what is reported of the elite, in each generation, by three rules.

    The truth is known: a mutation adds N(0, 0.3) to the mean of its parent; an evaluation N(0, 5).

    Returns:
        Ours; the score by which the elite was chosen; the best score ever seen, kept for ever.
    """
    rng = np.random.default_rng(seed)
    truth: dict[tuple[int, ...], float] = {}

    def true(genome: tuple[int, ...]) -> float:
        if genome not in truth:
            truth[genome] = truth.get(genome[:-1], 0.0) + rng.normal(0, 0.3)
        return truth[genome]

    ga = start(noise, pop_size=100, n_parents=20, n_elite_candidates=10, n_evals=30, champions=3)
    ours, chosen, kept, lucky = list[float](), list[float](), list[float](), (-np.inf, 0.0)
    for _ in range(15):
        before, asked = ga.elite, ga.ask(rng)
        means = [np.array([true(p.genome(row)) for row in range(len(p))]) for p in asked]
        told = [evaluated(mean + rng.normal(0, 5, len(mean))) for mean in means]
        best = int(told[0].fitness.argmax())
        lucky = max(lucky, (float(told[0].fitness[best]), float(means[0][best])))
        metrics = ga.tell(asked, told)
        if before is not None and ga.elite is not None:
            ours.append(metrics["elite score"] - true(before.genome))
            chosen.append(metrics["elite score when chosen"] - true(ga.elite.genome))
            kept.append(lucky[0] - lucky[1])
    return ours, chosen, kept


def test_a033_what_is_reported_of_an_elite_is_not_flattering(noise: NoiseTable) -> None:
    """Our bias is none within its 95 % interval; that of the others is beyond all doubt."""
    errors = np.array([noisy_run(noise, seed) for seed in range(20)])  # runs, rules, generations
    bias = errors.mean(axis=2).mean(axis=0)
    interval = 1.96 * errors.mean(axis=2).std(axis=0, ddof=1) / np.sqrt(len(errors))
    assert abs(bias[0]) < interval[0] < 0.2
    assert bias[1] > 5 * interval[1]  # the best of ten means of thirty
    assert bias[1] > 0.5
    assert bias[2] > 10
    inside = abs(errors[:, 0]) < 1.96 * 5 / np.sqrt(30)
    assert 0.91 < inside.mean() < 0.99


# --- runs


def shapes_of(problem: Any) -> np.ndarray:
    module = problem.make_policy().module()
    shapes = [tuple(p.shape) for p in module.parameters()]
    return np.array([(s[0], int(np.prod(s[1:])) if len(s) > 1 else 0) for s in shapes])


def play(noise: NoiseTable, evaluator: Any, ga: DeepGA, generations: int = 4) -> list[bytes]:
    run = evolve(
        ga,
        evaluator,
        generations=generations,
        episodes=1,
        eval_episodes=3,
        seeding=Seeding(11),
    )
    return [g.theta.tobytes() for g in run] + [ga.theta.tobytes()]


def test_a_run_repeats_and_goes_on_from_its_state(noise: NoiseTable) -> None:
    problem = choose_problem(
        env_name="Sphere-v0", policy_kwargs={"hidden_sizes": [], "output_activation": "none"}
    )
    shapes = shapes_of(problem)
    first, second = (DeepGA(shapes, noise, **SETTINGS) for _ in range(2))
    with LocalEvaluator(problem, noise) as evaluator:
        thetas = play(noise, evaluator, first)
        assert thetas == play(noise, evaluator, second)
        assert len(set(thetas)) > 2
        state = first.state()
        rng = np.random.default_rng(0)
        (expected, *_) = first.ask(rng)
        third = DeepGA(shapes, noise, **SETTINGS)
        third.restore(state)
        (got, *_) = third.ask(np.random.default_rng(0))
        assert got.parents.tobytes() == expected.parents.tobytes()
        assert third.theta.tobytes() == first.theta.tobytes()


def test_a030_no_task_holds_a_written_network(noise: NoiseTable) -> None:
    """The elite, too, travels as indices; it is what ``theta`` is, also after a checkpoint."""
    problem = choose_problem(
        env_name="Sphere-v0", policy_kwargs={"hidden_sizes": [], "output_activation": "none"}
    )
    ga, history, decoder = DeepGA(shapes_of(problem), noise, **SETTINGS), History(), Decoder(noise)
    with LocalEvaluator(problem, noise) as evaluator:
        how: dict[str, Any] = {"episodes": 1, "eval_episodes": 3, "seeding": Seeding(11)}
        run = evolve(ga, evaluator, generations=9, history=history, overlap=2, **how)
        for generation in itertools.islice(run, 5):
            asked = history.asked[-1]
            state = decoded(encoded(asked.state()), "it")
            for each in (asked, Asked.restored(state)):
                part = each.task(ga.roles, 1, 3, Seeding(11))[-1]
                assert part.role == "theta"
                assert isinstance(part.population, Lineages) == (generation.number > 0)
                assert len(part.population) == 3
                for theta in part.population.thetas(range(3), decoder):
                    assert theta.tobytes() == asked.theta.tobytes()


@pytest.mark.parametrize("seed", range(2))
def test_a016_the_sphere_converges_within_100_generations(seed: int, noise: NoiseTable) -> None:
    """With the children and the steps of ``with sphere``; at generation 0 there is no elite yet."""
    problem = choose_problem(
        env_name="Sphere-v0",
        policy_kwargs={"hidden_sizes": [], "output_activation": "none"},
        action_scaling="none",
    )
    settings = SETTINGS | {"pop_size": 200, "n_parents": 20, "n_evals": 1, "sigma": 0.05}
    ga = DeepGA(shapes_of(problem), noise, **settings)
    with LocalEvaluator(problem, noise) as evaluator:
        seeding = Seeding(seed)
        run = evolve(ga, evaluator, generations=100, episodes=1, eval_episodes=1, seeding=seeding)
        fitness = [generation.fitness for generation in run]
    assert fitness[1] < -3
    assert fitness[-1] > -1e-2
