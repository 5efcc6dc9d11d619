"""Processes to be tormented: each is started again when it dies, as its supervisor would do it."""

import ctypes
import faulthandler
import logging
import os
import secrets
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import redis

from cluster.redis_server import server_program

RESTART_SECONDS = 1.0  # that a supervisor waits before it starts a dead process anew
START_SECONDS = 20.0
_PR_SET_PDEATHSIG = 1


class Child:
    """A process of one purpose; a fork, so it knows what this process has set up.

    Its messages are in ``FOLDER/NAME.log``. It dies with this process.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        work: Callable[[], None],
        enter: Callable[[], None] = lambda: None,
    ) -> None:
        """A process that is not there yet.

        Args:
            work: all that it does.
            enter: called in it first; brings it to its host.
        """
        self.name, self.log = name, folder / f"{name}.log"
        self._work, self._enter = work, enter
        self.pid = 0  # 0: not running
        self.code: int | None = None  # with which it ended by itself
        self._due = 0.0  # when it is to be started anew; 0: it is not

    def start(self) -> None:
        self._due, self.code, parent = 0.0, None, os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            self._live(parent)

    def _live(self, parent: int) -> None:
        code = 1
        try:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            self._speak_into_the_log()
            if sys.platform == "linux":
                ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() == parent:
                self._enter()
                self._work()
                code = 0
        except BaseException:  # whatever it is, it is for the log
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)

    def _speak_into_the_log(self) -> None:
        file = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        for number in (1, 2):
            os.dup2(file, number)
        sys.stderr = os.fdopen(2, "w", closefd=False)
        faulthandler.register(signal.SIGUSR1, sys.stderr, all_threads=True)
        form = f"%(asctime)s.%(msecs)03d {os.getpid()} %(levelname)s %(message)s"
        logging.basicConfig(
            level=logging.DEBUG, stream=sys.stderr, format=form, datefmt="%T", force=True
        )
        logging.getLogger("evolution").setLevel(logging.DEBUG)

    # --- what may happen to it

    def kill(self) -> None:
        """As by kill -9; it is started anew in a moment."""
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self._gone()

    def stop(self) -> None:
        """As by SIGSTOP; one that is stopped already is left so."""
        if self.pid and "(stopped)" not in self.state():
            os.kill(self.pid, signal.SIGSTOP)
            os.waitpid(self.pid, os.WUNTRACED)  # a stop takes its time

    def go_on(self) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGCONT)

    def say_where_it_is(self) -> None:
        """Have a Python process write into its log what it is at."""
        if self.pid:
            os.kill(self.pid, signal.SIGUSR1)

    def state(self) -> str:
        """What the kernel says of it: running, sleeping, stopped, …"""
        status = Path(f"/proc/{self.pid}/status")
        lines = status.read_text().splitlines() if self.pid and status.exists() else []
        return next((line for line in lines if line.startswith("State")), "not there")

    def look_after(self) -> None:
        """Start it again if it was killed; note its end if it ended by itself."""
        if self.has_ended() or self.code is not None:
            return
        if not self.pid and self._due and time.monotonic() > self._due:
            self.start()

    def has_ended(self) -> bool:
        """True at the moment when it is found to have ended by itself."""
        if not self.pid:
            return False
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if pid:
            self.pid, self.code = 0, os.waitstatus_to_exitcode(status)
        return bool(pid)

    def _gone(self) -> None:
        self.pid, self._due = 0, time.monotonic() + RESTART_SECONDS

    def end(self) -> None:
        """Kill it for good."""
        self.kill()
        self._due = 0.0


class DataServer(Child):
    """A redis-compatible server that comes back at the same address."""

    def __init__(
        self,
        name: str,
        folder: Path,
        address: str | None = None,
        enter: Callable[[], None] = lambda: None,
    ) -> None:
        """A server that is not running yet.

        Args:
            address: of its host, where it listens beside its socket; None: nowhere.
        """
        super().__init__(name, folder, self._serve, enter)
        self.folder = folder / name
        self.folder.mkdir()
        password = secrets.token_hex(8)
        self.url = f"unix://{self.folder}/socket?password={password}"
        self.tcp_url = f"redis://:{password}@{address}:6379"
        settings = {
            **{"port": 6379 if address else 0, "bind": address or "127.0.0.1"},
            **{"unixsocket": self.folder / "socket", "unixsocketperm": 700},
            **{"requirepass": password, "save": '""', "dir": self.folder},
        }
        text = "".join(f"{key} {value}\n" for key, value in settings.items())
        (self.folder / "config").write_text(text)
        self.db = redis.Redis.from_url(self.url)

    def _serve(self) -> None:
        program = server_program()
        os.execv(program, [program, str(self.folder / "config")])

    def lose(self) -> None:
        """Die; what it held is lost."""
        self.kill()
        (self.folder / "dump.rdb").unlink(missing_ok=True)

    def keep(self) -> None:
        """Die; what it held will be there again."""
        self.db.save()
        self.kill()

    def wait_until_up(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self.db.ping()
                return
            except redis.ConnectionError:
                assert time.monotonic() < deadline, self.log.read_text()
                time.sleep(0.005)
