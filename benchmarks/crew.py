"""Named configs of the experiment, and workers for them, as a run has them."""

import contextlib
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from common import ROOT

from cluster.redis_server import URL_VARIABLE, connect, start_server
from es.experiment import ex
from evolution.evaluation import Evaluator
from evolution.noise import NoiseTable
from evolution.problem import Problem
from evolution.redis_evaluator import RedisEvaluator


def named_config(name: str, seed: int) -> dict[str, Any]:
    """All settings of `python es/experiment.py with NAME seed=SEED`."""
    defaults: dict[str, Any] = {}
    for scope in ex.configurations:
        defaults |= scope(preset=defaults)
    return {**defaults, **ex.named_configs[name](preset=defaults), "seed": seed}


@contextlib.contextmanager
def redis_workers(
    count: int, problem: Problem, noise: NoiseTable, min_seconds: float
) -> Iterator[Evaluator]:
    """A server of our own and workers at it, whatever else runs on this machine."""
    command = [sys.executable, str(ROOT / "es" / "worker.py"), "start-workers"]
    preload = problem.engine if problem.engine == "envpool" else ""
    options = [f"--num_workers={count}", f"--preload={preload}", "--until_stdin_ends"]
    with start_server() as server:
        crew = subprocess.Popen(
            [*command, *options],
            env={**os.environ, URL_VARIABLE: server.url},
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            with RedisEvaluator(
                connect(server.url),
                problem,
                noise,
                run_id=f"bench-{secrets.token_hex(4)}",
                min_seconds=min_seconds,
            ) as evaluator:
                yield evaluator
        finally:
            assert crew.stdin is not None
            crew.stdin.close()
            crew.terminate()
            crew.wait()
