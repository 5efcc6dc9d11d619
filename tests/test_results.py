"""Every evaluation of a run, as a line: who did it, what came of it, whether it was used."""

import contextlib
import io
import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from commands import run_here
from conftest import Crew
from pymongo.database import Database
from stored import CARTPOLE, run_stored
from test_resume import Runs, digest, runs  # noqa: F401 (a fixture)

from cluster.clients import Keys, WorkerClient
from cluster.redis_server import Server, connect
from es.openai_es import OpenAIES
from evolution.answers import Answer, Layout, PartShape
from evolution.evaluation import Evaluator, LocalEvaluator, Part, PieceRunner
from evolution.exchange.messages import Rows
from evolution.loop import Generation, History, evolve
from evolution.noise import NoiseTable
from evolution.problem import choose_problem
from evolution.redis_evaluator import RedisEvaluator
from evolution.seeding import Seeding
from store.reader import RunReader
from store.results import RESULTS, Result, ResultsFile

SPHERE = choose_problem(env_name="Sphere-v0", policy_kwargs={"hidden_sizes": []})
COUNTS = {"eval_episodes": 4, "final_episodes": 6, "pop_size": 8, "num_episodes": 2}
GENERATIONS = 5


def read(text: bytes) -> pd.DataFrame:
    return pd.read_csv(io.BytesIO(text))


@pytest.fixture(scope="module")
def made(store: Database) -> tuple[RunReader, float]:
    """A run with two worker processes, and the CPU time of this one, the head."""
    config = {**CARTPOLE, **COUNTS, "num_generations": GENERATIONS, "seed": 3}
    config |= {"evaluator": "redis", "num_workers": 2, "min_task_runtime": 0.0}
    before = time.process_time()
    run_id = run_stored(store, "cartpole", **config, log_evaluations=True)
    return RunReader(store, run_id), time.process_time() - before


@pytest.fixture(scope="module")
def stored(made: tuple[RunReader, float]) -> RunReader:
    return made[0]


@pytest.fixture(scope="module")
def results(stored: RunReader) -> pd.DataFrame:
    (artifact,) = (each for each in stored.artifacts if each.name == RESULTS)
    return read(stored.load(artifact))


# --- of a real run


def test_each_evaluation_has_a_line(results: pd.DataFrame) -> None:
    assert tuple(results.columns) == Result._fields
    used = results[results["valid"]]
    found = used.groupby(["generation", "kind"])["candidate"].apply(sorted).to_dict()
    expected = {(g, "candidate"): list(range(8)) for g in range(GENERATIONS)}
    expected |= {(g, "theta"): list(range(4)) for g in range(GENERATIONS)}
    assert found == expected | {(GENERATIONS, "theta"): list(range(6))}
    assert (used["episodes"] == np.where(used["kind"] == "theta", 1, 2)).all()
    assert used["finished"].is_monotonic_increasing
    assert (used["seconds"] > 0).all()
    assert 1 <= used["worker"].nunique() <= 2


def test_a100_the_metrics_are_those_of_the_evaluations(
    stored: RunReader, results: pd.DataFrame
) -> None:
    """Each number of each generation, computed again from the list of evaluations."""
    steps, best = 0, -np.inf
    for number, logged in stored.frame().iloc[:GENERATIONS].iterrows():
        rows = results[results["generation"] == number]
        used = rows[rows["valid"]]
        told, theta = (used[used["kind"] == kind] for kind in ("candidate", "theta"))
        fitness, current = told["fitness"].to_numpy(), theta["fitness"].mean()
        steps, best = steps + used["steps"].sum(), max(best, fitness.max())
        expected = {
            "current fitness": current,
            "mean fitness": fitness.mean(),
            "best fitness": fitness.max(),
            "overall best fitness": best,
            "fitness st.dev": fitness.std(),
            "success rate": (fitness > current).mean(),
            "mean episode length": (told["steps"] / 2).mean(),
            "mean steps per eval": told["steps"].mean(),
            "total sim steps": steps,
            "num unique workers": used["worker"].nunique(),
            "worker used times": used["worker"].value_counts().mean(),
            "time_to_eval": told["seconds"].mean(),
        }
        assert {name: logged[name] for name in expected} == pytest.approx(
            expected, rel=1e-4, abs=2e-6
        )
        assert logged["results skipped"] == 0 == logged["frac. results skipped"]
    rates = stored.metric("success rate").values
    assert len(np.unique(rates)) > 1 and (rates >= 0).all() and (rates <= 1).all()


def test_results_came_when_the_run_was_at_work(stored: RunReader, results: pd.DataFrame) -> None:
    elapsed = stored.metric("total time elapsed").values
    for number in range(GENERATIONS):
        finished = results.loc[results["generation"] == number, "finished"]
        assert (finished <= elapsed[number]).all()
        assert number == 0 or (finished >= elapsed[number - 1]).all()


def test_core_seconds_grow_within_their_bounds(
    made: tuple[RunReader, float], results: pd.DataFrame
) -> None:
    run, of_the_head = made
    spent = run.metric("total core-seconds").values
    assert len(spent) == GENERATIONS
    assert (np.diff(spent, prepend=0) > 0).all()
    assert spent[-1] < of_the_head + 1.1 * results["seconds"].sum()


def test_core_seconds_are_those_of_all_processes(noise: NoiseTable, crew: Crew) -> None:
    crew.start(2)
    with RedisEvaluator(connect(crew.url), SPHERE, noise, run_id="run") as evaluator:
        history, before = History(), time.process_time()
        generations = play(noise, history, 3, evaluator)
        of_the_head = time.process_time() - before
    of_workers = [sum(a.cpu_seconds.sum() for a in each.answers) for each in generations]
    assert all(seconds > 0 for seconds in of_workers)
    spent = [each.metrics["total core-seconds"] for each in generations]
    assert all(s > w for s, w in zip(spent, np.cumsum(of_workers), strict=True))
    assert spent[-1] < sum(of_workers) + of_the_head + 0.1


def test_a_run_does_not_list_its_evaluations_unless_told(tmp_path: Path) -> None:
    for wanted in (False, True):
        folder = tmp_path / str(wanted)
        config = {**CARTPOLE, **COUNTS, "num_generations": 2, "seed": 1}
        run_here("cartpole", folder=folder, **config, log_evaluations=wanted)
        assert (folder / "1" / RESULTS).exists() == wanted
    rows = read((tmp_path / "True" / "1" / RESULTS).read_bytes())
    assert len(rows) == 2 * (8 + 4) + 6
    assert set(rows["worker"]) == {"head"}


def test_log_evaluations_is_yes_or_no() -> None:
    with pytest.raises(Exception, match="log_evaluations='yes': must be True or False"):
        run_here("sphere", log_evaluations="yes")


# --- a run that goes on


@pytest.mark.slow
def test_a106_results_go_on_without_gap_or_repeat(runs: Runs) -> None:  # noqa: F811
    config = {"num_generations": 300, "checkpoint_every": 0.1, "log_evaluations": True}
    reference, killed = runs.start(**config), runs.start(**config)
    run_id = runs.kill_when_checkpointed(killed)
    expected = digest(reference.succeed())
    resumed = runs.resume(run_id)
    resumed.says("generation")
    resumed.send(signal.SIGTERM)
    assert resumed.end() in (0, 128 + signal.SIGTERM)
    if resumed.process.returncode:
        reader = RunReader(runs.db, run_id)
        (part,) = (each for each in reader.artifacts if each.name == RESULTS)
        assert set(read(reader.load(part))["candidate"]) == set(range(50))
        assert digest(runs.resume(run_id).succeed()) == expected
    found = []
    for each in (runs.id_of(reference), run_id):
        reader = RunReader(runs.db, each)
        (artifact,) = (each for each in reader.artifacts if each.name == RESULTS)
        found.append(read(reader.load(artifact)))
    for rows in found:
        assert rows["finished"].is_monotonic_increasing
        assert len(rows) == 300 * (50 + 2) + 3
    of_the_clock = ["seconds", "finished"]
    pd.testing.assert_frame_equal(*(rows.drop(columns=of_the_clock) for rows in found))


def lines(*numbers: int) -> list[Result]:
    return [Result(n, 0, "theta", n / 3, n, 1, 'a "b"\n', 1e-7, n / 7, True) for n in numbers]


def test_a_file_of_results_goes_on_where_it_was(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = ResultsFile(tmp_path)
    assert first.file() is None
    first.write(lines(0, 1))
    state = json.loads(json.dumps(first.state()))
    first.write(lines(2, 3))
    assert first.file() == tmp_path / RESULTS
    again = ResultsFile(tmp_path)
    again.restore(state)
    assert again.state() == state
    again.write(lines(2))
    rows = read((tmp_path / RESULTS).read_bytes())
    assert rows["generation"].tolist() == [0, 1, 2]
    assert rows["fitness"].to_numpy(np.float32).tolist() == [np.float32(n / 3) for n in range(3)]
    assert set(rows["worker"]) == {'a "b"\n'}
    fresh = ResultsFile(tmp_path)  # of a run without a checkpoint
    fresh.write(lines(5))
    assert read((tmp_path / RESULTS).read_bytes())["generation"].tolist() == [5]
    assert not caplog.text
    lost = ResultsFile(tmp_path)
    lost.restore(10_000)
    assert lost.file() == tmp_path / RESULTS
    assert "has lost its last" in caplog.text
    assert lost.state() == (tmp_path / RESULTS).stat().st_size


def test_half_a_line_is_not_sent(tmp_path: Path) -> None:
    """A signal may come in the middle of writing."""
    results = ResultsFile(tmp_path)
    results.write(lines(0))
    whole = (tmp_path / RESULTS).read_bytes()
    (tmp_path / RESULTS).write_bytes(whole + b"1,0,the")
    path = results.file()
    assert path is not None
    assert path.read_bytes() == whole


def test_a_temporary_file_goes() -> None:
    results = ResultsFile(None)
    results.write(lines(1))
    path = results.file()
    assert path is not None
    assert path.exists()
    results.close()
    assert not path.parent.exists()


# --- who answered what


def test_rows_are_numbered_part_after_part() -> None:
    shapes = PartShape("candidate", 3, 2, 5), PartShape("elite", 2, 1, 7)
    layout = Layout(shapes)
    assert layout.group_of.tolist() == [2, 2, 2, 1, 1]
    assert len(layout) == 8
    assert layout.rows(np.array([1, 3, 4])).tolist() == [2, 3, 6, 7]
    places = [layout.place(row) for row in range(8)]
    assert places == [(shapes[0], n) for n in range(6)] + [(shapes[1], n) for n in range(2)]


def test_what_came_twice_or_too_late_is_told_apart(
    server: Server, noise: NoiseTable, make_task: Callable[..., list[Part]]
) -> None:
    """12 pieces, the first five are pairs; all answers are there before the head asks."""
    task, runner = make_task(20, 0, noise), PieceRunner(SPHERE, noise)
    client = WorkerClient(connect(server.url), "w", Keys())

    def push(number: int, *pieces: int, run: str = "run") -> None:
        fitness, steps = runner.evaluate(task, pieces)
        numbers, steps = np.array(pieces, np.int32), steps.astype(np.int32)
        rows = Rows(numbers, fitness, steps, 0.5 * len(fitness), 0.0, 100.0)
        client.push(run, {"task": number, **rows.to_fields()})

    def told(number: int, evaluator: RedisEvaluator) -> list[tuple[int, str, int, bool]]:
        found = [r for a in evaluator.answers() for r in a.results(number, 0.0)]
        assert all(r.worker == "w" and r.seconds == 0.5 for r in found)
        return [(r.generation, r.kind, r.candidate, r.valid) for r in found]

    with RedisEvaluator(connect(server.url), SPHERE, noise, run_id="run") as evaluator:
        client.run_spec("run")
        push(0, 4, 5)
        push(0, 4, 6)
        push(0, 0, 1, 2, 3, 7, 8, 9, 10, 11)
        got = evaluator.evaluate(task)
        names = [("candidate", 8), ("candidate", 9), ("candidate", 0)]
        again = [("candidate", 8), ("candidate", 9), ("candidate", 1)]
        first = told(40, evaluator)
        assert first[:3] == [(40, *name, True) for name in names]
        assert first[3:6] == [(40, *each, each == again[2]) for each in again]
        assert sum(valid for *_, valid in first) == 17
        fitness = [r.fitness for a in evaluator.answers() for r in a.results(40, 0.0) if r.valid]
        assert fitness[:2] == got[0].fitness[8:].tolist()
        history = History()
        history.count_work(evaluator.answers())
        assert 300 <= history.core_seconds < 400
        push(0, 7)  # comes when the task is over
        evaluator.submit(task)
        push(1, *range(12))
        evaluator.gather()
        second = told(41, evaluator)
        assert second[0] == (40, "candidate", 2, False)
        assert all(generation == 41 and valid for generation, *_, valid in second[1:])
        assert evaluator.metrics()["results skipped"] == 1
    runner.close()


# --- core-seconds


def play(
    noise: NoiseTable, history: History, generations: int, evaluator: Evaluator | None = None
) -> list[Generation]:
    strategy = OpenAIES(np.zeros(20, np.float32), noise, pop_size=20, sigma=0.1, lr=0.1)
    with contextlib.nullcontext(evaluator) if evaluator else LocalEvaluator(SPHERE, noise) as each:
        return list(
            evolve(
                strategy,
                each,
                generations=generations,
                episodes=5,
                eval_episodes=5,
                seeding=Seeding(1),
                history=history,
            )
        )


def test_a_head_that_evaluates_itself_is_not_counted_twice(noise: NoiseTable) -> None:
    before = time.process_time()
    history = History()
    generations = play(noise, history, 5)
    spent = [each.metrics["total core-seconds"] for each in generations]
    assert 0 < spent[0] < spent[1] < spent[4] < time.process_time() - before
    assert all(answer.seconds.sum() > 0 for each in generations for answer in each.answers)


def test_core_seconds_go_on_with_a_run_that_goes_on(noise: NoiseTable) -> None:
    first, second = History(), History()
    empty: Any = np.empty(0)
    spent = np.array([1000.0])
    answer = Answer(["w"], empty, 0, 0.0, spent, spent, Layout(()), empty, empty, empty, empty)
    first.count_work([answer, answer])
    play(noise, first, 2)
    state = json.loads(json.dumps(first.state()))
    assert 2000 < state["core_seconds"] < first.core_seconds < 2100
    second.restore(state)
    (third,) = play(noise, second, 3)
    assert state["core_seconds"] < third.metrics["total core-seconds"] < 2100
