"""Machines of a relay and workers: who may come, go and be killed, and the bits stay the same."""

import re
import secrets
import signal
import time
from collections.abc import Iterator

import pytest
from commands import EXPERIMENT, HEAD, WORKER, Command, complaint, run_here, setting, wait_until
from machines import HOST, KEYS, Machine, Site

from cluster.keys import Keys, head_status, workers_alive
from cluster.redis_server import connect
from cluster.wire import unpack

pytestmark = pytest.mark.slow  # whole programs, which take seconds to start
COMMON = {"noise_size": 50_000, "seed": 7, "final_episodes": 3, "eval_episodes": 2}
SPHERE = {**COMMON, "num_generations": 4}
CARTPOLE = {**COMMON, "num_generations": 3, "pop_size": 8, "num_episodes": 2}
LONG = {**COMMON, "num_generations": 300, "pop_size": 100}
ENDLESS = {**COMMON, "num_generations": 10_000_000}
PICK_UP_SECONDS = 10  # two are promised on a machine that is not busy

_known: dict[str, str] = {}


def expected(name: str, config: dict[str, object]) -> str:
    """What any number of workers must find: what one process finds alone."""
    if (words := f"{name} {config}") not in _known:
        _known[words] = run_here(name, evaluator="local", **config).info["theta sha256"]
    return _known[words]


def digest(printed: str) -> str:
    return re.findall(r"^theta sha256 (\w+)$", printed, re.MULTILINE)[0]


def experiment(site: Site, name: str, **config: object) -> Command:
    return site.start(EXPERIMENT, "with", name, *setting(**config))


def generation(site: Site, keys: Keys = KEYS) -> int:
    """How far the head says that it is; -1 while it does not."""
    status = head_status(connect(site.url), keys)
    return status["generation"] if status else -1


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with Site() as site:
        yield site


@pytest.fixture(scope="module")
def machine(site: Site) -> Machine:
    machine = site.machine()
    machine.works()
    return machine


def test_a071_a_machine_goes_on_with_another_experiment(site: Site, machine: Machine) -> None:
    """The head is killed in mid-generation; the next has another environment and network."""
    first = experiment(site, "sphere", **ENDLESS)
    first.says("generation 1/")
    first.send(signal.SIGKILL)
    first.end()
    old = unpack(connect(site.url).get(KEYS.run))["run"]
    second = experiment(site, "cartpole", **CARTPOLE)

    def posted() -> str | None:
        data = connect(site.url).get(KEYS.run)
        run = unpack(data)["run"] if data else old
        return None if run == old else run

    serving = f"serves run {wait_until(posted, second)}"
    wait_until(lambda: serving in machine.command.err, machine.command, PICK_UP_SECONDS)
    assert digest(second.succeed()) == expected("cartpole", CARTPOLE)
    assert "died" not in machine.command.err


def test_a072_flush_reaches_the_workers_behind_a_relay(site: Site, machine: Machine) -> None:
    head = experiment(site, "sphere", **ENDLESS)
    head.says("generation 1/")
    head.send(signal.SIGKILL)
    head.end()
    below = machine.server()
    assert below.exists(KEYS.run)
    site.run(HEAD, "flush")
    started = time.monotonic()
    wait_until(lambda: not below.exists(KEYS.run, KEYS.tickets), machine.command)
    assert time.monotonic() - started < PICK_UP_SECONDS
    wait_until(lambda: not any(w["doing"] for w in workers_alive(below, KEYS)), machine.command)
    machine.works()


@pytest.mark.parametrize("victim", ["worker", "relay", "mirror", "head's server"])
def test_a073_whoever_is_killed_the_run_gives_the_same_bits(
    victim: str, site: Site, machine: Machine
) -> None:
    head = experiment(site, "sphere", **LONG)
    head.says("generation 1/")
    for _ in range(3):
        machine.works()
        number = generation(site)
        if victim == "head's server":
            site.send(connect(site.url).info("server")["process_id"], signal.SIGKILL)
        else:
            machine.kill(victim)
        wait_until(
            lambda before=number: (
                (answers(site) and generation(site) > before + 5) or head.process.poll() is not None
            ),
            head,
        )
    assert digest(head.succeed()) == expected("sphere", LONG)
    machine.works()


def answers(site: Site) -> bool:
    try:
        return bool(connect(site.url).ping())
    except RuntimeError:
        return False


def test_a073_a_killed_machine_is_replaced(site: Site, machine: Machine) -> None:
    """The keeper itself: all of it ends, and another machine does the work."""
    other = site.machine(1)
    other.works()
    head = experiment(site, "sphere", **LONG)
    head.says("generation 1/")
    other.command.send(signal.SIGKILL)
    assert digest(head.succeed()) == expected("sphere", LONG)
    wait_until(lambda: other.statement() is None, other.command)


def test_status_has_a_line_for_each_machine(site: Site, machine: Machine) -> None:
    wait_until(lambda: machine.is_whole() and site.alive() == 2, machine.command)
    shown = site.run(HEAD, "status").splitlines()
    assert shown[0] == "no head at work"
    assert shown[1] == "2 workers alive, 0 of them in the run"
    assert shown[2] == "1 machine alive"
    assert re.fullmatch(r"  \S+: 2 workers alive, 0 of them in the run, 2 idle", shown[3])


def test_a078_mirror_relay_and_workers_each_by_itself() -> None:
    """Started in the wrong order, and each told to end."""
    with Site(has_server=False) as site:
        parts = [
            site.start(WORKER, "start-workers", "--force_relay", "--num_workers=2", "--preload="),
            site.start(WORKER, "run-relay", *site.master),
        ]
        for part in parts:
            part.says("waiting: no mirror")
        mirror = site.start(WORKER, "run-mirror")
        mirror.says("mirror ready")
        again = site.start(WORKER, "run-mirror")
        assert again.end() == 1
        assert f"process {mirror.process.pid}" in complaint(again.err)
        parts[1].says("waiting: no redis server answers")
        site.serve()
        wait_until(lambda: site.alive() == 2, parts)
        head = experiment(site, "sphere", **SPHERE)
        assert digest(head.succeed()) == expected("sphere", SPHERE)
        # another mirror, with another socket and another password
        mirror.send(signal.SIGTERM)
        assert mirror.end() == 0
        mirror = site.start(WORKER, "run-mirror")
        mirror.says("mirror ready")
        head = experiment(site, "sphere", **SPHERE)
        assert digest(head.succeed()) == expected("sphere", SPHERE)
        for part in (*parts, mirror):
            part.send(signal.SIGTERM)
            assert part.end() == 0
        assert "password" not in "".join(part.out + part.err for part in (*parts, mirror))


def test_a074_a_machine_is_there_before_its_server() -> None:
    with Site(has_server=False) as site:
        machine = site.machine(1)
        machine.command.says("waiting: no redis server answers")
        site.serve()
        head = experiment(site, "sphere", **SPHERE)
        assert digest(head.succeed()) == expected("sphere", SPHERE)
        assert machine.command.err.count("waiting") == 1


def test_a075_two_groups_on_one_server() -> None:
    """Two experiments at once: each has its own workers, and knows nothing of the others."""
    with Site() as site:
        crews, heads = {}, {}
        for group, (name, config) in {
            "a": ("sphere", LONG),
            "b": ("cartpole", CARTPOLE),
        }.items():
            words = ("--group", group, "--preload=")
            start = ("start-workers",) if group == "a" else ("workers", *site.master)
            crews[group] = site.start(WORKER, *start, *words)
            heads[group] = experiment(site, name, group=group, **config)
        third = experiment(site, "sphere", group="c", local=False, **SPHERE)
        third.says("no worker is here")
        assert digest(heads["b"].succeed()) == expected("cartpole", CARTPOLE)
        assert digest(heads["a"].succeed()) == expected("sphere", LONG)
        for group, crew in crews.items():
            pid = str(crew.process.pid)
            alive = workers_alive(connect(site.url), Keys(group))
            assert [each["name"].split("-")[-1 - (group == "a")] for each in alive] == [pid]
            assert len(set(re.findall(r"worker \S+ serves run (\S+)", crew.err))) == 1
        assert "0 workers alive" in site.run(HEAD, "status")
        assert "1 worker alive" in site.run(HEAD, "status", "--group=a")
        third.ctrl_c()
        third.end()


def test_a073_a_private_server_that_is_killed() -> None:
    """The one that an experiment starts for itself: again at the same address, and empty."""
    with Site(has_server=False) as site:
        head = experiment(site, "sphere", num_workers=2, **LONG)
        head.says("generation 1/")
        (folder,) = site.temporary.glob("evo-redis-*")
        for deaths in range(3):
            pid = int((folder / "pid").read_text())
            site.send(pid, signal.SIGKILL)
            wait_until(
                lambda before=pid: (folder / "pid").read_text().strip() not in ("", str(before)),
                (deaths, head),
            )
        assert digest(head.succeed()) == expected("sphere", LONG)
        wait_until(lambda: site.leftovers() == [], site.leftovers())


# --- bad input


def test_a_wrong_password_ends_a_machine_in_one_line(site: Site) -> None:
    wrong = site.folder / "wrong"
    wrong.write_text("wrong")
    right = site.env["EVO_REDIS_PASSWORD_FILE"]
    site.env["EVO_REDIS_PASSWORD_FILE"] = str(wrong)
    url = f"redis://worker@{HOST}:{site.port}"
    try:
        several = ("--num_workers=3", "--preload=")
        commands = [
            site.start(WORKER, "workers", *site.master, *several),
            site.start(WORKER, "start-workers", f"--redis={url}", *several),
            site.start(HEAD, "status", f"--redis={url}"),
        ]
    finally:
        site.env["EVO_REDIS_PASSWORD_FILE"] = right
    for command in commands:
        assert command.end() == 1
        assert "refuses the password" in complaint(command.err)
        assert wrong.read_text() not in command.err.replace("refuses the password", "").split()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["workers", "--num_workers=0"], "--num_workers=0: must be 1 or more"),
        (["start-workers", "--num_workers=-2"], "--num_workers=-2: must be 1 or more"),
        (["start-workers", "--group=a b"], "--group='a b': up to 64 letters"),
        (["workers", "--relay_socket_path=/no/such/place"], "there is no folder /no/such"),
        (["run-mirror", "--relay_socket_path=/dev/null"], "/dev/null is there and no socket"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(words: list[str], said: str, site: Site) -> None:
    command = site.start(WORKER, *words)
    assert command.end() == 1
    assert said in complaint(command.err)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--tls_cert=/dev/null"], "belong together"),
        (["--tls_cert=/no/cert", "--tls_key=/no/key"], "there is no file /no/cert"),
        (["--host=192.0.2.1"], "did not start"),  # an address of no machine
    ],
)
def test_a_server_that_cannot_be_is_refused_in_one_line(words: list[str], said: str) -> None:
    with Site(has_server=False) as site:
        command = site.start(HEAD, "run-server", *words)
        assert command.end() == 1
        assert said in complaint(command.err)
        assert site.leftovers() == []


def test_the_password_is_drawn_if_none_is_given() -> None:
    with Site(has_server=False) as site:
        del site.env["EVO_REDIS_PASSWORD_FILE"]
        server = site.serve()
        (file,) = site.temporary.glob("evo-redis-*/worker-password")
        assert str(file) in server.out
        password = file.read_text().strip()
        assert len(password) >= 32
        assert password not in server.out + server.err
        assert file.stat().st_mode & 0o077 == 0
        site.env["EVO_REDIS_PASSWORD"] = password
        machine = site.machine(1)
        machine.works()
        lines = [line for line in site.processes().values() if password in line]
        assert lines == []
        name = secrets.token_hex(4)
        assert connect(f"redis://worker:{password}@{HOST}:{site.port}").set(f"evo:{name}", 1)
