"""Where a run's candidates are evaluated: in this process, or by workers at a redis server."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import redis

from cluster.addresses import URL_VARIABLE, find_url
from cluster.clients import AnotherHeadError
from cluster.keys import Keys, head_status, is_gone
from cluster.redis_server import Server, ServerError, connect, start_server
from evolution.evaluation import Evaluator, LocalEvaluator
from evolution.noise import NoiseTable
from evolution.problem import Problem
from evolution.redis_evaluator import RedisEvaluator
from evolution.settings import RunSettings
from utils.names import did_you_mean

WORKER_SCRIPT = Path(__file__).resolve().parent.parent / "es" / "worker.py"
EVALUATORS = ("redis", "local")


@dataclass(frozen=True)
class Workplace:
    """An open workplace; ``evaluator`` is made when problem and noise are at hand."""

    server: redis.Redis | None  # None: this process works itself
    group: str = "default"
    crew: "subprocess.Popen[bytes] | None" = None
    own_server: Server | None = None

    def evaluator(
        self,
        problem: Problem,
        noise: NoiseTable,
        run_id: str,
        min_seconds: float,
        audit: float = 0.0,
    ) -> Evaluator:
        """The evaluator of one run; see `RedisEvaluator`.

        Raises:
            AnotherHeadError: the server already serves a head.
        """
        if self.server is None:
            return LocalEvaluator(problem, noise)
        return RedisEvaluator(
            self.server,
            problem,
            noise,
            run_id=run_id,
            keys=Keys(self.group),
            min_seconds=min_seconds,
            watch=self._watch,
            expect_others=self.crew is None,
            audit=audit,
        )

    def _watch(self) -> None:
        if self.own_server and self.own_server.ended:
            raise ServerError("the redis server has ended, and nobody starts it again")
        if self.crew and self.crew.poll() is not None:
            raise ServerError(f"the workers have ended (exit code {self.crew.returncode})")


def check_workplace(evaluator: str, url: str | None, local: bool, group: str) -> None:
    """Refuse what ``open_workplace`` could not open, before anything is started.

    Raises:
        ValueError: a misspelt evaluator, an impossible group, or a password that the run's record
            would show.
        ServerError: a server that does not answer or is missing.
        AnotherHeadError: one that has a head already.
    """
    if evaluator not in EVALUATORS:
        hint = did_you_mean(evaluator, EVALUATORS)
        raise ValueError(f"evaluator={evaluator!r} is none of {', '.join(EVALUATORS)}.{hint}")
    if not isinstance(url, str | None):
        raise ValueError(f"redis={url!r}: must be a URL, such as redis://host:6379")
    if (url and "password=" in url.partition("?")[2]) or "@" in (url or ""):
        raise ValueError(
            "redis: the config is stored with the run, so a URL with a password belongs into"
            f" the environment variable {URL_VARIABLE}"
        )
    keys = Keys(group)
    found = find_url(url) if evaluator == "redis" else None
    if found:
        head = head_status(connect(found), keys)
        if head and not is_gone(head):
            raise AnotherHeadError(head)
    elif evaluator == "redis" and not local:
        raise ServerError(
            "local=False needs a server: name it with redis=URL, or start one with"
            " 'python es/head.py run-server'"
        )


@contextlib.contextmanager
def open_workplace(settings: RunSettings, engine: str) -> Iterator[Workplace]:
    """Use the server that is configured or found; else start one, and workers, for this run alone.

    What is started here ends with this process, however it ends.

    Args:
        engine: that the workers should import before they are asked to.
    """
    if settings.evaluator == "local":
        yield Workplace(None)
    elif found := find_url(settings.redis):
        yield Workplace(connect(found), settings.group)
    else:
        with open_private_workplace(settings.num_workers, engine) as workplace:
            yield workplace


@contextlib.contextmanager
def open_private_workplace(
    num_workers: int, engine: str, groups: Sequence[str] = ("default",)
) -> Iterator[Workplace]:
    """Start a server and workers for the caller alone, whatever else runs on this machine.

    Args:
        groups: that the workers serve in turn; the workplace is of the first.
    """
    with start_server() as server, _crew(server.url, num_workers, engine, groups) as crew:
        yield Workplace(connect(server.url), groups[0], crew=crew, own_server=server)


@contextlib.contextmanager
def _crew(
    url: str, num_workers: int, engine: str, groups: Sequence[str]
) -> Iterator["subprocess.Popen[bytes]"]:
    command = [sys.executable, str(WORKER_SCRIPT), "start-workers", f"--num_workers={num_workers}"]
    preload = engine if engine == "envpool" else ""
    crew = subprocess.Popen(
        [*command, f"--group={','.join(groups)}", f"--preload={preload}", "--until_stdin_ends"],
        env={**os.environ, URL_VARIABLE: url},
        stdin=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for the head, which then ends its crew
    )
    try:
        yield crew
    finally:
        assert crew.stdin is not None
        crew.stdin.close()
        crew.terminate()
        crew.wait()
