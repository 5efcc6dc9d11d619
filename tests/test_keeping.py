"""Processes that are kept: by what rule they are started again, and when that is given up."""

import itertools
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from conftest import WaitFor

ROOT = Path(__file__).resolve().parent.parent
KEEPER = """
import os, sys, time
from utils import keeping
from utils.keeping import HopelessError, Keeper, Kept
from utils.program import set_up_program

set_up_program()
keeping.SHORT_LIFE_SECONDS = {short_life}
keeping.FIRST_PAUSE, keeping.LONGEST_PAUSE = 0.1, 0.4

def work():
    with open("lives", "a") as file:
        file.write(f"{{os.getpid()}} {{time.monotonic()}}\\n")
    {work}

with Keeper() as keeper:
    try:
        keeper.keep([Kept("it", work)])
    except HopelessError as error:
        sys.exit(f"hopeless: {{error}}")
"""


def keeper(folder: Path, work: str, short_life: float = 1.0) -> "subprocess.Popen[str]":
    program = KEEPER.format(work=work, short_life=short_life)
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def lives(folder: Path) -> list[tuple[int, float]]:
    """Process and beginning of each."""
    file = folder / "lives"
    lines = file.read_text().splitlines() if file.exists() else []
    return [(int(line.split()[0]), float(line.split()[1])) for line in lines]


def test_short_lives_are_followed_by_growing_pauses(tmp_path: Path, wait_for: WaitFor) -> None:
    process = keeper(tmp_path, "sys.exit(3)", short_life=1e6)
    wait_for(lambda: len(lives(tmp_path)) >= 6)
    process.terminate()
    _, said = process.communicate()
    assert process.returncode == 0
    begun = [began for _, began in lives(tmp_path)]
    pauses = [after - before for before, after in itertools.pairwise(begun)]
    assert all(p >= least for p, least in zip(pauses, (0.1, 0.2, 0.4, 0.4, 0.4), strict=False))
    told = "it died (exit code 3), next start in {} s"
    assert [told.format(s) in said for s in (0.1, 0.2, 0.4, 0.8)] == [True, True, True, False]


def test_who_has_lived_is_followed_at_once(tmp_path: Path, wait_for: WaitFor) -> None:
    with keeper(tmp_path, "time.sleep(1000)", short_life=0.0) as process:
        for count in range(1, 4):
            wait_for(lambda number=count: len(lives(tmp_path)) == number)
            os.kill(lives(tmp_path)[-1][0], signal.SIGKILL)
        wait_for(lambda: len(lives(tmp_path)) == 4)
        process.terminate()
        _, said = process.communicate()
    assert said.count("it died (exit code -9), next start in 0 s") == 3
    for pid, _ in lives(tmp_path):
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_the_hopeless_is_not_tried_again(tmp_path: Path) -> None:
    process = keeper(tmp_path, "raise HopelessError('wrong\\nand more')")
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert said == "hopeless: wrong\n"
    assert len(lives(tmp_path)) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_who_does_not_listen_is_ended_with_its_keeper(
    number: signal.Signals, tmp_path: Path, wait_for: WaitFor
) -> None:
    work = """
    while True:
        try:
            time.sleep(1000)
        except SystemExit:
            pass
    """.replace("\n    ", "\n        ").strip()
    process = keeper(tmp_path, work)
    wait_for(lambda: lives(tmp_path))
    process.send_signal(number)
    process.communicate()
    started = time.monotonic()
    (pid, _), *more = lives(tmp_path)
    assert not more
    wait_for(lambda: not Path(f"/proc/{pid}/exe").exists())
    assert time.monotonic() - started < 20
