"""What one head can take: results per second, bytes, and its part of a generation.

    python benchmarks/head.py [--quick] [--json FILE] [--plot FILE]

The real head (`RedisEvaluator`) at a real server; workers are simulated (see `simulated.py`), from
10 to 10,000, alone or behind relays. At first they answer at once, so that all there is, is the
head, the server and the messages; then with the lengths of lander episodes, at such a speed that
the longest lot of a generation lasts two seconds. The head's and the server's time is their CPU
time: the simulated workers share the cores. `of_2_s` is that of both, over two seconds.
"""

import contextlib
import cProfile
import multiprocessing
import os
import pstats
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import redis
from common import Row, machine, parser, show, write_json
from simulated import FORK, IN_TRAINING, LENGTHS, Crowd, simulated

from cluster.keys import Keys, workers_alive
from cluster.redis_server import connect, start_server
from cluster.relay import Relay
from evolution.evaluation import Part
from evolution.noise import NoiseTable
from evolution.population import Mirrored
from evolution.problem import choose_problem
from evolution.redis_evaluator import RedisEvaluator

PROBLEM = choose_problem(env_name="Sphere-v0", policy_kwargs={"hidden_sizes": []})
CROWDS = (
    *(Crowd(10), Crowd(100), Crowd(1000)),
    *(Crowd(4, 25), Crowd(10, 10), Crowd(10, 100), Crowd(100, 100), Crowd(10, 1000)),
)
POPULATIONS = (10_000, 100_000)
GENERATION_SECONDS = 2.0
PLACES = {  # function: what it is for
    "results": "redis client",
    "read": "unpacking",
    "split": "telling merged answers apart",
    "read_sound": "checks",
    "fill": "filling in",
    "note": "list of results",
    "submit": "posting",
    "look": "looking after workers",
}


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--plot", type=Path, metavar="FILE", help="draw results per second")
    chosen = options.parse_args()
    print(machine())
    generations = 2 if chosen.quick else 8
    crowds = (CROWDS[1], CROWDS[3], CROWDS[7]) if chosen.quick else (*CROWDS, Crowd(10_000))
    rows = [
        ingest_row(crowd, population, generations)
        for crowd in crowds
        for population in (POPULATIONS[:1] if chosen.quick else POPULATIONS)
    ]
    show("workers that answer at once", rows)
    speed = GENERATION_SECONDS / (2 * LENGTHS[IN_TRAINING].max())
    slow_crowds = [Crowd(10, 1000, speed)]
    if not chosen.quick:
        slow_crowds += [Crowd(100, 100, speed), Crowd(10_000, 1, speed)]
    slow = [ingest_row(crowd, 20_000, generations) for crowd in slow_crowds]
    show("the longest lot of a generation lasts 2 s", slow)
    relayed = [relay_row(workers, generations) for workers in (10, 100)]
    show("a real relay, 10,000 candidates", relayed)
    places = place_rows(Crowd(100, 100), 100_000) + place_rows(Crowd(1000), 10_000)
    show("where the head's time goes (under the profiler)", places)
    write_json(chosen.json, rows + slow + relayed + places)
    if chosen.plot:
        plot(rows, chosen.plot)


def ingest_row(crowd: Crowd, population: int, generations: int) -> Row:
    """Generations with a crowd: what each costs the head, the server and the network."""
    task = make_task(population)
    with at_work(crowd) as (server, evaluator):
        evaluator.evaluate(task)
        before = counts(server)
        cpu, wall = time.process_time(), time.perf_counter()
        for _ in range(generations):
            evaluator.evaluate(task)
        head = (time.process_time() - cpu) / generations
        wall = (time.perf_counter() - wall) / generations
        used = {name: (n - before[name]) / generations for name, n in counts(server).items()}
        skipped = evaluator.metrics()["results skipped"]
    return {
        "workers": crowd.machines * crowd.workers,
        "relays": crowd.machines if crowd.workers > 1 else 0,
        "population": population,
        "results_per_head_second": round(population / head),
        "head_ms": round(1e3 * head, 1),
        "server_ms": round(1e3 * used["cpu"], 1),
        "wall_ms": round(1e3 * wall, 1),
        "of_2_s": round((head + used["cpu"]) / GENERATION_SECONDS, 3),
        "bytes_in": round(used["in"] / population, 1),
        "bytes_out": round(used["out"] / population, 1),
        "skipped": round(skipped),
    }


def make_task(population: int) -> list[Part]:
    rng = np.random.default_rng(0)
    pairs = population // 2
    candidates = Mirrored(np.zeros(20, np.float32), 0.1, rng.integers(0, 10_000_000, pairs))
    return [Part(candidates, rng.integers(0, 2**31, (pairs, 1)))]


@contextlib.contextmanager
def at_work(crowd: Crowd) -> Iterator[tuple[redis.Redis, RedisEvaluator]]:
    """A server, a crowd and a head."""
    with (
        NoiseTable(1000, 1) as noise,
        start_server() as server,
        simulated(server.url, crowd),
        contextlib.closing(connect(server.url)) as client,
        RedisEvaluator(client, PROBLEM, noise, run_id=f"1-{secrets.token_hex(4)}") as evaluator,
    ):
        yield client, evaluator


def counts(server: redis.Redis) -> dict[str, float]:
    """CPU seconds of the server, and bytes that it has received and sent."""
    told: Any = server.info("everything")
    return {
        "cpu": told["used_cpu_user"] + told["used_cpu_sys"],
        "in": told["total_net_input_bytes"],
        "out": told["total_net_output_bytes"],
    }


def relay_row(workers: int, generations: int) -> Row:
    """What a relay costs its machine."""
    task = make_task(10_000)
    with (
        NoiseTable(1000, 1) as noise,
        start_server() as above,
        start_server() as below,
        relay_between(above.url, below.url) as relay,
        simulated(below.url, Crowd(workers)),
        contextlib.closing(connect(above.url)) as client,
        RedisEvaluator(client, PROBLEM, noise, run_id=f"1-{secrets.token_hex(4)}") as evaluator,
    ):
        while sum(each["workers"] for each in workers_alive(client, Keys())) < workers:
            time.sleep(0.01)
        evaluator.evaluate(task)
        before, wall = cpu_of(relay.pid), time.perf_counter()
        for _ in range(generations):
            evaluator.evaluate(task)
        spent = (cpu_of(relay.pid) - before) / generations
        wall = (time.perf_counter() - wall) / generations
    return {
        "workers": workers,
        "relay_ms": round(1e3 * spent, 1),
        "results_per_relay_second": round(10_000 / spent),
        "wall_ms": round(1e3 * wall, 1),
    }


@contextlib.contextmanager
def relay_between(above: str, below: str) -> Iterator[multiprocessing.process.BaseProcess]:
    """A relay in a process of its own."""
    parent = os.getpid()

    def work() -> None:
        relay = Relay(connect(above), connect(below), "machine", Keys())
        relay.run(lambda: os.getppid() == parent)

    process = FORK.Process(target=work)
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join()


def cpu_of(pid: int | None) -> float:
    """CPU seconds of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def place_rows(crowd: Crowd, population: int) -> list[Row]:
    """The head's time by what it does."""
    task, profile = make_task(population), cProfile.Profile(time.process_time)
    with at_work(crowd) as (_, evaluator):
        evaluator.evaluate(task)
        profile.enable()
        evaluator.evaluate(task)
        profile.disable()
    known: Any = pstats.Stats(profile)
    spent = {
        function: sum(
            cumulative
            for (file, _, name), (_, _, _, cumulative, _) in known.stats.items()
            if name == function and ("/cluster/" in file or "/evolution/" in file)
        )
        for function in PLACES
    }
    return [
        {
            "workers": crowd.machines * crowd.workers,
            "relays": crowd.machines if crowd.workers > 1 else 0,
            "population": population,
            "place": place,
            "share": round(spent[function] / known.total_tt, 3),
        }
        for function, place in PLACES.items()
    ]


def plot(rows: list[Row], file: Path) -> None:
    """Results per second over the number of workers, a line for each kind of crowd."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 3.6), dpi=110)
    kinds = sorted({(bool(row["relays"]), row["population"]) for row in rows})
    for relayed, population in kinds:
        own = [r for r in rows if (bool(r["relays"]), r["population"]) == (relayed, population)]
        own.sort(key=lambda row: row["workers"])
        axes.loglog(
            [row["workers"] for row in own],
            [row["results_per_head_second"] for row in own],
            marker="o",
            linestyle="-" if relayed else "--",
            label=f"population {population:,}, {'relays' if relayed else 'no relays'}",
        )
    axes.set(xlabel="simulated workers", ylabel="results per second of the head's CPU")
    axes.legend(fontsize=8)
    axes.grid(alpha=0.25)
    figure.tight_layout()
    figure.savefig(file)


if __name__ == "__main__":
    main()
