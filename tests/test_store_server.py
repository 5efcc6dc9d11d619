"""The life of an embedded store's server: one per file, found by all, gone when unused."""

import json
import os
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from commands import ROOT, complaint, wait_until
from pymongo.errors import PyMongoError
from stores import connect, end_server, is_free, served

from store import location
from store.embedded.note import beside, read_note, running_server, write_note
from store.embedded.start import EmbeddedError, embedded_url

ASK = (
    "import sys, pathlib, store.embedded.start as start;"
    "print(start.embedded_url(pathlib.Path(sys.argv[1])))"
)


@pytest.fixture
def file(tmp_path: Path) -> Any:
    """Where a store of this test's own may be; its server is ended."""
    path = tmp_path / "runs" / "store.sqlite"
    yield path
    if path.parent.exists():
        end_server(path)


def command(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    """Run the server's program to its end."""
    line = [sys.executable, "-m", "store.server", *map(str, arguments)]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)


def pid_of(file: Path) -> int:
    note = running_server(file)
    assert note is not None
    return note.pid


def test_all_who_ask_at_once_get_the_same_server(file: Path) -> None:
    line = [sys.executable, "-c", ASK, str(file)]
    asking = [subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    urls = {process.communicate()[0].strip() for process in asking}
    assert len(urls) == 1
    assert urls == {embedded_url(file)}
    pid = pid_of(file)
    assert os.getsid(pid) == pid  # Ctrl-C and the end of who started it do not reach it
    with connect(*urls) as client:
        assert client.admin.command("serverStatus")["pid"] == pid


def test_note_and_files_are_private(file: Path) -> None:
    url = embedded_url(file)
    for path in file.parent.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert json.loads(beside(file, "server").read_text())["password"] in url
    beside(file, "server").chmod(0o644)
    assert read_note(file) is None
    beside(file, "server").chmod(0o600)


def test_listens_to_this_machine_only(file: Path) -> None:
    embedded_url(file)
    note = running_server(file)
    assert note is not None
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", note.port), 2)


def test_ends_when_nobody_uses_it(file: Path) -> None:
    url = embedded_url(file, 0.2)
    with connect(url) as client:
        client.sacred.things.insert_one({"_id": 1})
        pid = pid_of(file)
    wait_until(lambda: is_free(file), "the idle end")
    assert running_server(file) is None
    assert {path.name for path in file.parent.iterdir()} == {
        *("store.sqlite", "store.sqlite.lock", "store.sqlite.server")
    }  # SQLite's log has gone into the file
    with served(file) as client:
        assert client.sacred.things.find_one() == {"_id": 1}
        assert pid_of(file) != pid


def test_stays_while_a_client_is_there(file: Path) -> None:
    with connect(embedded_url(file, 0.2)) as client:
        client.admin.command("ping")
        pid = pid_of(file)
        waited = threading.Event()
        waited.wait(1.0)  # several times its patience
        client.admin.command("ping")
        assert pid_of(file) == pid


def test_stop_and_status(file: Path) -> None:
    embedded_url(file)
    note = running_server(file)
    assert note is not None
    assert str(pid_of(file)) in command("status", "--file", file).stdout
    assert "has ended" in command("stop", "--file", file).stdout
    assert "no server" in command("stop", "--file", file).stdout
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", note.port), 2)


def test_run_says_where_it_serves_or_that_another_does(file: Path) -> None:
    line = [sys.executable, "-m", "store.server", "run", "--file", str(file)]
    with subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert str(file) in process.stdout.readline()
        wait_until(lambda: running_server(file), "its note")
        assert "served already" in command("run", "--file", file).stdout
        process.send_signal(signal.SIGINT)
        assert process.wait() == 0
    assert is_free(file)


def test_a_stale_note_is_recognised(file: Path) -> None:
    embedded_url(file)
    note = running_server(file)
    assert note is not None
    end_server(file, signal.SIGKILL)
    write_note(file, note)  # a dead process
    assert running_server(file) is None
    write_note(file, type(note)(os.getpid(), note.port, note.password))  # nothing answers
    assert running_server(file) is None
    other = file.with_name("other.sqlite")
    with served(other):
        foreign = running_server(other)
        assert foreign is not None
        write_note(file, foreign)  # answers, but for another file
        assert running_server(file) is None
        with served(file) as client:
            client.admin.command("ping")
            assert pid_of(file) != foreign.pid
    for junk in ("", "[]", '{"pid": "x"}', '{"pid": 1, "port": 99999999, "password": "x"}'):
        beside(file, "server").write_text(junk)
        assert running_server(file) is None


def test_comes_back_at_the_same_address_after_a_kill(file: Path) -> None:
    with connect(embedded_url(file)) as client:
        client.sacred.things.insert_one({"_id": 1})
        end_server(file, signal.SIGKILL)
        url = embedded_url(file)
        with served(file) as another:
            assert another.sacred.things.find_one() == {"_id": 1}

        def reached() -> bool:
            try:
                return client.sacred.things.find_one() == {"_id": 1}
            except PyMongoError:
                return False

        assert embedded_url(file) == url
        wait_until(reached, "the client that was there before")


def test_ends_when_its_file_is_gone(file: Path) -> None:
    with served(file) as client:
        client.sacred.things.insert_one({"_id": 1})
        pid = pid_of(file)
        file.unlink()
        assert running_server(file) is None
        with connect(embedded_url(file)) as another:  # a new one, as soon as the old one sees it
            assert another.sacred.things.find_one() is None
        assert pid_of(file) != pid


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"no database at all", "no SQLite file"),
        ("foreign", "another program"),
        ("newer", "version 99"),
    ],
)
def test_a_file_that_is_not_ours_is_left_alone(
    file: Path, content: bytes | str, reason: str
) -> None:
    file.parent.mkdir()
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        if content == "newer":
            embedded_url(file)
            end_server(file)
        with sqlite3.connect(file) as sql:
            sql.execute("CREATE TABLE things(x)")
            sql.execute("PRAGMA user_version = 99")
        sql.close()
    before = file.read_bytes()
    with pytest.raises(EmbeddedError, match=reason) as caught:
        embedded_url(file)
    assert "\n" not in str(caught.value)
    assert file.read_bytes() == before
    done = command("run", "--file", file)
    assert done.returncode == 1
    assert reason in complaint(done.stderr)


def test_a_port_that_is_taken(file: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = command("run", "--file", file, "--port", str(port))
        assert done.returncode == 1
        assert f"port {port} is in use" in complaint(done.stderr)
        embedded_url(file)
        note = running_server(file)
        assert note is not None
        end_server(file)
        assert note.port != port
    with socket.create_server(("127.0.0.1", note.port)), served(file) as client:  # its last one
        client.admin.command("ping")


def test_find_store(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVO_RUNS", str(file.parent))
    monkeypatch.delenv("MONGO_URL", raising=False)
    database = location.find_store()
    with database.client:
        assert database.name == "sacred"
        database.things.insert_one({"_id": 1})
        assert pid_of(file)
    monkeypatch.setenv("MONGO_URL", embedded_url(file).replace("/sacred?", "/else?"))
    database = location.find_store()
    with database.client:
        assert database.name == "else"
        assert database.things.find_one() is None


@pytest.mark.parametrize("url", ["mongodb://me:secret@127.0.0.1:9/x", "nonsense://me:secret@host"])
def test_a_store_that_does_not_answer(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MONGO_URL", url)
    monkeypatch.setattr(location, "REACH_MILLISECONDS", 300)
    with pytest.raises(location.StoreError, match="no MongoDB answers") as caught:
        location.find_store()
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(EmbeddedError, match="no folder"):
        embedded_url(tmp_path / "runs" / "store.sqlite")
