"""How servers are reached: addresses and secrets, who may do what, silence, slow links, TLS."""

import contextlib
import itertools
import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from conftest import WaitFor

from cluster.addresses import find_url, url_of
from cluster.clients import HeadClient, WorkerClient
from cluster.connections import client_of
from cluster.keys import Keys
from cluster.redis_server import PasswordError, Server, ServerError, connect, start_server
from cluster.relay import Relay
from cluster.server_config import Listening
from cluster.tickets import Ticket

HOST = "127.0.0.1"
SECRET = "it's a #secret: ü/@%"  # nothing in it may mean anything to a URL or a config file
VARIABLES = ("EVO_REDIS", "EVO_REDIS_PASSWORD", "EVO_REDIS_PASSWORD_FILE", "EVO_REDIS_CA")


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def free_port() -> int:
    with socket.create_server((HOST, 0)) as found:
        return found.getsockname()[1]


# --- addresses


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("redis://host:1", "redis://worker:a%2Fb@host:1"),
        ("redis://:own@host:1", "redis://:own@host:1"),
        ("redis://me@host:1/2", "redis://me:a%2Fb@host:1/2"),
        ("redis://host?password=own", "redis://host?password=own"),
        ("rediss://host", "rediss://worker:a%2Fb@host?ssl_ca_certs=/dev/null"),
        ("rediss://:own@host?ssl_ca_certs=x", "rediss://:own@host?ssl_ca_certs=x"),
        ("unix:///run/socket", "unix:///run/socket"),
        ("redis://[", "redis://["),
    ],
)
def test_what_a_url_lacks_is_in_the_environment(
    given: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVO_REDIS_PASSWORD", "a/b")
    monkeypatch.setenv("EVO_REDIS_CA", "/dev/null")
    assert find_url(given, "worker") == url
    monkeypatch.setenv("EVO_REDIS", given)
    assert find_url(None, "worker") == url


def test_a_host_becomes_a_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert url_of("h") == "redis://h:6379"
    assert url_of("::1", 2) == "redis://[::1]:2"
    file = tmp_path / "password"
    monkeypatch.setenv("EVO_REDIS_PASSWORD_FILE", str(file))
    with pytest.raises(ServerError, match="PASSWORD_FILE"):
        url_of("h")
    file.write_text("\n")
    with pytest.raises(ServerError, match="empty"):
        url_of("h")
    file.write_text("secret\n")
    assert url_of("h", 3, "worker") == "redis://worker:secret@h:3"
    monkeypatch.setenv("EVO_REDIS_CA", str(tmp_path / "no.pem"))
    with pytest.raises(ServerError, match=r"EVO_REDIS_CA: there is no file .*no\.pem"):
        url_of("h")


# --- who may do what


@pytest.fixture
def guarded() -> Iterator[tuple[Server, str]]:
    """A server for other machines, and the URL of its workers."""
    port = free_port()
    with start_server(Listening(port=port, worker_password=SECRET)) as server:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("EVO_REDIS_PASSWORD", SECRET)
            url = url_of(HOST, port, "worker")
        yield server, url


def test_the_workers_user_can_do_all_that_workers_and_relays_do(
    guarded: tuple[Server, str], wait_for: WaitFor
) -> None:
    keys, master, url = Keys(), connect(guarded[0].url), guarded[1]
    head = HeadClient(master, "run", keys)
    head.lead()
    head.post_run({})
    head.add_task(0, {"share": 2})
    worker = WorkerClient(connect(url), "w", keys)
    tickets = [Ticket("run", 0, n) for n in range(8)]
    head.post(0, tickets)
    worker.say("run", tickets)
    first = worker.take(1)
    assert first is not None
    worker.give_back(first)
    assert len(worker.take_more(first, 1, 2, 4)) == 3
    assert worker.run_spec("run")
    assert worker.task("run", 0)
    assert not worker.is_banned("run")
    worker.push("run", {})
    assert len(head.results(1)) == 1
    worker.leave()
    with start_server() as below:
        over = threading.Event()
        relay = Relay(client_of(url), client_of(below.url), "machine", keys)
        thread = threading.Thread(target=relay.run, args=(lambda: not over.is_set(),))
        thread.start()
        wait_for(lambda: connect(below.url).exists(keys.task("run", 0)))
        wait_for(lambda: master.exists(keys.worker("machine")))
        over.set()
        thread.join()
    assert not master.exists(keys.worker("machine"))


FORBIDDEN = """
    acl whoami | acl list | acl setuser x | bgsave | client list | client kill type normal
    cluster info | command | config get * | config set requirepass x | config rewrite
    dbsize | debug sleep 0 | eval x 0 | evalsha x 0 | fcall x 0 | flushall | flushdb
    function list | info | keys * | latency latest | memory stats | migrate h 1 evo:x 0 1
    module list | monitor | move evo:x 1 | object freq evo:x | publish x y | randomkey
    rename evo:x evo:y
    replicaof no one | restore evo:x 0 x | save | scan 0 | script load x | select 1 | shutdown
    slowlog get | sort evo:x | subscribe x | swapdb 0 1 | sync | psync x 0 | unlink evo:x
    failover | dump evo:x | type evo:x | sadd evo:x y | multi | wait 0 0 | slaveof no one
    get other | set other x | del other | lpush other x | blpop other 1 | expire other 1 | llen evo
"""
REFUSALS = "[nN]o permissions|unknown command|DEBUG command not allowed"


def test_the_workers_user_can_do_nothing_else(guarded: tuple[Server, str]) -> None:
    server, url = guarded
    db = connect(url)
    assert db.set("evo:x", "y")
    words = itertools.chain.from_iterable(line.split("|") for line in FORBIDDEN.split("\n"))
    for command in filter(None, map(str.strip, words)):
        with pytest.raises(redis.ResponseError) as refused:
            db.execute_command(*command.split())
        assert re.search(REFUSALS, str(refused.value)), (command, refused.value)
    assert connect(server.url).get("evo:x") == b"y"
    for other in (url.replace("worker:", "default:"), f"redis://{url.rpartition('@')[2]}"):
        with pytest.raises(PasswordError):
            connect(other)


def test_the_server_is_not_told_the_workers_password(guarded: tuple[Server, str]) -> None:
    folder = guarded[0].folder
    for file in folder.iterdir():
        assert not file.stat().st_mode & 0o077
        if file.name != "worker-password" and not file.is_socket():
            assert SECRET not in file.read_text()
    assert guarded[0].password_file.read_text() == SECRET + "\n"


# --- silence, and slow links


def test_a_host_that_accepts_and_is_silent_is_given_up() -> None:
    with socket.create_server((HOST, 0)) as silent:
        started = time.monotonic()
        with pytest.raises(ServerError, match="no redis server answers"):
            connect(f"redis://{HOST}:{silent.getsockname()[1]}")
        assert time.monotonic() - started < 5


def test_silence_is_noticed_once_and_a_lost_connection_made_again(server: Server) -> None:
    db = client_of(server.url, silence=0.5)
    pid = db.info("server")["process_id"]
    os.kill(pid, signal.SIGSTOP)
    try:
        started = time.monotonic()
        with pytest.raises(redis.TimeoutError):
            db.ping()
        assert 0.4 < time.monotonic() - started < 0.9  # it was not tried again
    finally:
        os.kill(pid, signal.SIGCONT)
    assert db.ping()
    connect(server.url).execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    assert db.ping()


class SlowLink:
    """Passes bytes on between a port and a socket, no more than so many a second."""

    def __init__(self, path: str, bytes_per_second: float) -> None:
        self._path, self._rate = path, bytes_per_second
        self._listener = socket.create_server((HOST, 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                near.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
                far = socket.socket(socket.AF_UNIX)
                far.connect(self._path)
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self._pass, args=(one, other), daemon=True).start()

    def _pass(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError), one, other:
            while data := one.recv(1 << 16):
                other.sendall(data)
                time.sleep(len(data) / self._rate)

    def close(self) -> None:
        self._listener.close()


@pytest.mark.slow
def test_16_megabytes_pass_over_a_slow_link(server: Server) -> None:
    """It takes several times as long as a silence that would end the connection."""
    path, _, query = server.url.removeprefix("unix://").partition("?password=")
    silence, data = 1.5, os.urandom(16 << 20)
    link = SlowLink(path, len(data) / (4 * silence))
    db = client_of(f"redis://:{query}@{HOST}:{link.port}", silence=silence, retries=0)
    started = time.monotonic()
    db.set("evo:x", data)
    assert db.get("evo:x") == data
    assert time.monotonic() - started > 6 * silence
    link.close()


# --- TLS


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority and a certificate of it for the loopback, and another authority."""
    folder = tmp_path_factory.mktemp("tls")
    new_key = "req -x509 -newkey rsa:2048 -nodes -days 2 -keyout {0}.key -out {0}.pem -subj /CN={0}"
    commands = [new_key.format("ca"), new_key.format("other")]
    commands.append("req -newkey rsa:2048 -nodes -keyout s.key -out s.csr -subj /CN=server")
    commands.append(
        "x509 -req -in s.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -out s.pem -extfile x"
    )
    (folder / "x").write_text(f"subjectAltName=IP:{HOST}\n")
    try:
        for command in commands:
            subprocess.run(
                ["openssl", *command.split()], cwd=folder, check=True, capture_output=True
            )
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no openssl to make certificates: {error}")
    return folder


@pytest.fixture
def tls(papers: Path) -> Iterator[int]:
    """The port of a server that speaks TLS."""
    port = free_port()
    certificate = papers / "s.pem", papers / "s.key"
    try:
        server = start_server(Listening(HOST, port, *certificate, worker_password=SECRET))
    except ServerError as error:
        if "tls" in str(error).lower():
            pytest.skip(f"the server that is installed was built without TLS: {error}")
        raise
    with server:
        yield port


def test_tls_with_an_authority_of_ones_own(
    tls: int, papers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVO_REDIS_PASSWORD", SECRET)
    monkeypatch.setenv("EVO_REDIS_CA", str(papers / "ca.pem"))
    url = url_of(HOST, tls, "worker")
    assert url.startswith("rediss://")
    assert connect(url).set("evo:x", os.urandom(1 << 20))
    with pytest.raises(ServerError, match="certificate"):
        connect(url_of("localhost", tls, "worker"))  # the certificate is for another name
    monkeypatch.setenv("EVO_REDIS_CA", str(papers / "other.pem"))
    with pytest.raises(ServerError, match="certificate"):
        connect(url_of(HOST, tls, "worker"))
    monkeypatch.delenv("EVO_REDIS_CA")
    started = time.monotonic()
    with pytest.raises(ServerError, match="no redis server answers"):
        connect(url_of(HOST, tls, "worker"))
    assert time.monotonic() - started < 5
