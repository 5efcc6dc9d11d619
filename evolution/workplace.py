"""Where a run's candidates are evaluated: in this process, or by workers at redis or on Ray."""

import contextlib
import logging
import os
import subprocess
import sys
import time
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
from evolution.ray_cluster import open_cluster
from evolution.redis_evaluator import RedisEvaluator
from evolution.settings import RunSettings
from utils.names import did_you_mean

log = logging.getLogger(__name__)

SHORT_LIFE_SECONDS = 3.0  # of a keeper that is killed so early, hence would be killed again
WORKER_SCRIPT = Path(__file__).resolve().parent.parent / "es" / "worker.py"
EVALUATORS = ("redis", "local", "ray")


@dataclass(frozen=True)
class Workplace:
    """An open workplace; ``evaluator`` is made when problem and noise are at hand."""

    server: redis.Redis | None  # None: this process works itself, or Ray does
    group: str = "default"
    crew: "OwnCrew | None" = None
    own_server: Server | None = None
    ray_workers: int | None = None  # None: no Ray; 0: as many as CPUs are free

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
        if self.ray_workers is not None:
            from evolution.ray_evaluator import RayEvaluator

            wanted = self.ray_workers or None
            return RayEvaluator(problem, noise, num_workers=wanted, min_seconds=min_seconds)
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
        if self.crew:
            self.crew.watch()


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
    elif settings.evaluator == "ray":
        with open_cluster(settings.ray_address, settings.num_workers):
            yield Workplace(None, ray_workers=settings.num_workers)
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
    with start_server() as server, OwnCrew(server.url, num_workers, engine, groups) as crew:
        yield Workplace(connect(server.url), groups[0], crew=crew, own_server=server)


class OwnCrew:
    """Workers of the caller alone, and a process that keeps them; they end with the caller.

    Should the keeper be killed, another is started with new workers.
    """

    def __init__(self, url: str, num_workers: int, engine: str, groups: Sequence[str]) -> None:
        """Start them.

        Args:
            url: of their server.
            engine: that they should import before they are asked to.
            groups: that they serve in turn.
        """
        preload = engine if engine == "envpool" else ""
        self._command = [sys.executable, str(WORKER_SCRIPT), "start-workers"]
        self._command += [f"--num_workers={num_workers}", f"--preload={preload}"]
        self._command += [f"--group={','.join(groups)}", "--until_stdin_ends"]
        self._url = url
        self._start()

    def _start(self) -> None:
        self._started = time.monotonic()
        self.keeper = subprocess.Popen(
            self._command,
            env={**os.environ, URL_VARIABLE: self._url},
            stdin=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the head, which then ends its crew
        )

    def watch(self) -> None:
        """Start the workers again if somebody killed their keeper.

        Raises:
            ServerError: it ended otherwise, or lived so shortly that it would be killed again.
        """
        code = self.keeper.poll()
        if code is None:
            return
        if code >= 0 or time.monotonic() - self._started < SHORT_LIFE_SECONDS:
            raise ServerError(f"the workers have ended (exit code {code})")
        log.warning("the workers' keeper was killed (signal %d): starting workers again", -code)
        self._end()
        self._start()

    def _end(self) -> None:
        assert self.keeper.stdin is not None
        self.keeper.stdin.close()
        self.keeper.terminate()
        self.keeper.wait()

    def __enter__(self) -> "OwnCrew":
        return self

    def __exit__(self, *_: object) -> None:
        self._end()
