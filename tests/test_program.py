"""What programs do with Ctrl-C."""

import os
import signal
import threading
import time
from collections.abc import Callable

import pytest

from utils.program import interrupted_between_steps

LONG = 60.0


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_waits_until_a_step_has_ended() -> None:
    before, done = signal.getsignal(signal.SIGINT), []
    with pytest.raises(KeyboardInterrupt), interrupted_between_steps() as rest:
        rest()
        interrupt()
        done.append("step")
        rest(LONG)
    assert done == ["step"] and signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_ends_a_rest_at_once() -> None:
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt), interrupted_between_steps() as rest:
        threading.Timer(0.1, interrupt).start()
        rest(LONG)
    assert time.monotonic() - began < LONG


def test_other_threads_have_no_ctrl_c() -> None:
    done: list[Callable[..., None]] = []

    def steps() -> None:
        with interrupted_between_steps() as rest:
            rest()
            done.append(rest)

    thread = threading.Thread(target=steps)
    thread.start()
    thread.join()
    assert len(done) == 1
