"""Several runs of one config at once, on the same workers: each is a process with its own seed.

The first is this process; the others get its config, but for the seed and the group of workers. The
workers serve all groups in turn, so the runs share nothing but time, and each comes to the same
result as alone.
"""

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.addresses import URL_VARIABLE, find_url
from evolution.settings import RunSettings
from evolution.workplace import open_private_workplace

if TYPE_CHECKING:
    from sacred.run import Run

log = logging.getLogger(__name__)

FELLOW = "EVO_FELLOW"  # in the environment of the others: they end with the first
FELLOWS = "fellows"  # in the run's info


@contextlib.contextmanager
def fellows(
    run: "Run", config: Mapping[str, Any], settings: RunSettings, engine: str
) -> Iterator[None]:
    """Start the other runs, and wait for them at the end; end them if this one fails.

    Args:
        config: of this run; ``count`` says how many there are, this one included.
        engine: that workers should import before they are asked to.
    """
    if os.environ.get(FELLOW):
        _end_with_the_first()
    others = range(1, config["count"])
    if not others or any(getattr(each, "is_resumed", False) for each in run.observers):
        yield
        return
    groups = [settings.group, *(f"{settings.group}-{number}" for number in others)]
    with contextlib.ExitStack() as opening:
        _open_workplace(opening, settings, engine, groups)
        folder = Path(opening.enter_context(tempfile.TemporaryDirectory(prefix="evo-fellows-")))
        started = list[subprocess.Popen[str]]()
        for number in others:
            own = {"count": 1, "seed": config["seed"] + number, "group": groups[number]}
            started.append(_start(run, {**config, **own}, folder / f"{number}.json"))
            opening.callback(_end, started[-1])
        run.info[FELLOWS] = [config["seed"] + number for number in others]
        yield
        for number, each in zip(others, started, strict=True):
            if each.wait():
                name = f"the run of seed {config['seed'] + number}"
                log.error("%s has ended with exit code %d", name, each.returncode)
                run.info["failed fellows"] = True


def _open_workplace(
    opening: contextlib.ExitStack, settings: RunSettings, engine: str, groups: list[str]
) -> None:
    """One server and its workers for all; they find it as one finds a server of somebody else."""
    if settings.evaluator != "redis":
        return
    if find_url(settings.redis):
        log.warning("workers that serve all runs are started with --group=%s", ",".join(groups))
        return
    place = open_private_workplace(settings.num_workers, engine, groups)
    server = opening.enter_context(place).own_server
    assert server is not None
    os.environ[URL_VARIABLE] = server.url
    opening.callback(lambda: os.environ.pop(URL_VARIABLE))


def _start(run: "Run", config: Mapping[str, Any], file: Path) -> "subprocess.Popen[str]":
    """Another run, of the same script and observers."""
    file.write_text(json.dumps({key: config[key] for key in config if key != "__doc__"}))
    file.chmod(0o600)
    options = run.meta_info["options"].items()
    flags = [str(word) for name, value in options for word in _words(name, value)]
    script = Path(run.experiment_info["base_dir"]) / run.experiment_info["mainfile"]
    process = subprocess.Popen(
        [sys.executable, str(script), "with", str(file), *flags],
        env={**os.environ, FELLOW: "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # Ctrl-C is for the first, which then ends the others
    )
    told = process, f"[seed {config['seed']}]"
    threading.Thread(target=_tell, args=told, name="fellow", daemon=True).start()
    return process


def _words(name: str, value: Any) -> list[Any]:
    """An option of Sacred's as it stands on a command line."""
    if not name.startswith("--") or value is None or value is False:
        return []
    return [name] if value is True else [name, value]


def _tell(process: "subprocess.Popen[str]", name: str) -> None:
    """Pass on what it says, line by line."""
    assert process.stdout is not None
    for line in process.stdout:
        sys.stdout.write(f"{name} {line}")


def _end(process: "subprocess.Popen[str]") -> None:
    """Let it tidy up, if it has not ended."""
    process.terminate()
    process.wait()
    assert process.stdin is not None
    process.stdin.close()


def _end_with_the_first() -> None:
    """End as by SIGTERM when the first is gone, whatever it died of."""

    def wait() -> None:
        os.read(sys.stdin.fileno(), 1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="the first", daemon=True).start()
