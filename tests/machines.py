"""A head's server for other machines, and machines as our programs make them, in one place."""

import os
import secrets
import signal
import socket

import redis
from commands import HEAD, WORKER, Command, Place, wait_until

from cluster.keys import Keys, workers_alive
from cluster.redis_server import connect

HOST = "127.0.0.1"
KEYS = Keys()


class Site(Place):
    """A place whose server other machines can reach, with a password that they know."""

    def __init__(self, *, has_server: bool = True) -> None:
        super().__init__()
        with socket.create_server((HOST, 0)) as free:
            self.port = free.getsockname()[1]
        self.password = self.folder / "password"
        self.password.touch(0o600)
        self.password.write_text(secrets.token_hex(8))
        self.env["EVO_REDIS_PASSWORD_FILE"] = str(self.password)
        self.run_server = self.serve() if has_server else None

    def serve(self) -> Command:
        """Start the head's server."""
        server = self.start(HEAD, "run-server", f"--port={self.port}")
        server.says("server ready")
        return server

    @property
    def master(self) -> list[str]:
        """Where it is, as words of the command line."""
        return [f"--master_host={HOST}", f"--master_port={self.port}"]

    def machine(self, number: int = 2) -> "Machine":
        """Start a machine of so many workers."""
        return Machine(self, number)

    def alive(self) -> int:
        """How many workers the head's server has heard of, whatever they stand behind."""
        return sum(each["workers"] for each in workers_alive(connect(self.url), KEYS))


class Machine:
    """`workers`: its processes, and its own server."""

    def __init__(self, site: Site, number: int) -> None:
        self.site, self._number = site, number
        words = [f"--num_workers={number}", "--preload="]
        self._socket = site.folder / f"relay-{secrets.token_hex(3)}.sock"
        socket_path = f"--relay_socket_path={self._socket}"
        self.command = site.start(WORKER, "workers", *site.master, socket_path, *words)

    def is_whole(self) -> bool:
        """True if its relay and all of its workers have been heard of."""
        there = self.statement()
        return there is not None and there["workers"] == self._number

    def works(self) -> None:
        """Wait until it is whole."""
        wait_until(self.is_whole, self.command)

    def statement(self) -> dict | None:
        """What the relay says of the machine at the head's server, if that answers."""
        try:
            said = workers_alive(connect(self.site.url), KEYS)
        except (redis.RedisError, RuntimeError):
            return None
        mine = [each for each in said if each["name"].endswith(f"-{self.command.process.pid}")]
        return mine[0] if mine else None

    def server(self) -> redis.Redis:
        """The machine's own server."""
        for config in self.site.temporary.glob("evo-redis-*/config"):
            lines = config.read_text().splitlines()
            words = dict(line.split(" ", 1) for line in lines)
            if words["unixsocket"].strip('"') == str(self._socket):
                return connect(f"unix://{self._socket}?password={words['requirepass']}")
        raise AssertionError(f"no server of {self.command}")

    def pid(self, victim: str) -> int:
        """A process of it: worker, relay or mirror."""
        if victim == "relay":
            statement = wait_until(self.statement, self.command)
            return int(statement["pid"])
        if victim == "mirror":
            return int(self.server().info("server")["process_id"])
        said = wait_until(lambda: workers_alive(self.server(), KEYS), self.command)
        return int(said[0]["pid"])

    def kill(self, victim: str) -> None:
        """As the kernel does when memory runs out."""
        os.kill(self.pid(victim), signal.SIGKILL)
