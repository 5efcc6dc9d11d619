"""Images and the cluster that compose makes of them, as far as one can without Docker."""

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml
from commands import HAS_PROC, PATH, ROOT, WORKER, Place, wait_until
from packaging.requirements import Requirement

from cluster.keys import Keys, workers_alive
from cluster.redis_server import connect, server_program
from es.experiment import ex

FOLDER = ROOT / "cluster" / "docker"
DOCKERFILE = (FOLDER / "Dockerfile").read_text().replace("\\\n", " ")
COMPOSE = yaml.safe_load((FOLDER / "docker-compose.cluster.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
STAGES = {name: base for base, name in re.findall(r"(?m)^FROM (\S+) AS (\w+)$", DOCKERFILE)}


def requirements(name: str) -> dict[str, Requirement]:
    lines = [line.partition("#")[0].strip() for line in (ROOT / name).read_text().splitlines()]
    found = [Requirement(line) for line in lines if line and not line.startswith("-")]
    return {each.name.lower().replace("_", "-"): each for each in found}


# --- images


def test_a128_the_dockerfile_lints() -> None:
    if (hadolint := shutil.which("hadolint", path=PATH)) is None:
        pytest.skip("no hadolint here: pip install -r requirements-dev.txt")
    command = [hadolint, "--no-color", FOLDER / "Dockerfile"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout == "", done.stdout


@pytest.mark.parametrize("script", sorted(FOLDER.glob("*.sh")), ids=lambda path: path.name)
def test_scripts_of_images_pass_shellcheck(script: Path) -> None:
    if (shellcheck := shutil.which("shellcheck", path=PATH)) is None:
        pytest.skip("no shellcheck here: pip install -r requirements-dev.txt")
    done = subprocess.run([shellcheck, script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_a128_all_that_images_name_is_there() -> None:
    """No image is built here: only paths, commands and configs in the Dockerfile are looked up."""
    assert {"head", "worker", "supervised"} <= {*STAGES}
    for words in re.findall(r"(?m)^COPY (?!--from)(.*) \S+$", DOCKERFILE):
        assert all((ROOT / word).exists() for word in words.split())
    for stage in re.findall(r"COPY --from=(\w+)", DOCKERFILE):
        assert stage in STAGES
    called = [json.loads(words) for words in re.findall(r"(?:ENTRYPOINT|CMD) (\[.*\])", DOCKERFILE)]
    paths = [word for words in called for word in words if "/" in word]
    assert len(paths) >= 4 and all((ROOT / path).is_file() for path in paths)
    scripts = "".join(path.read_text() for path in FOLDER.glob("*.sh"))
    conf = (FOLDER / "supervisord.conf").read_text()
    for path in re.findall(r"\b\w+/\w+\.py\b", scripts + conf):
        assert (ROOT / path).is_file()
    named = [words[words.index("with") + 1] for words in called if "with" in words]
    named.append(SERVICES["head"]["command"][2])
    assert named == ["lander", "sphere"] and set(named) <= set(ex.named_configs)


def test_a128_images_hold_the_packages_and_nothing_that_lies_about() -> None:
    lines = (FOLDER / "Dockerfile.dockerignore").read_text().splitlines()
    allowed = {line[1:] for line in lines if line.startswith("!")}
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert lines[1] == "*" and allowed == {*packages, "requirements.txt"}
    assert {"**/.env", "**/__pycache__"} <= set(lines)


def test_a128_images_are_pinned_and_run_without_rights() -> None:
    bases = {base for base in STAGES.values() if base not in STAGES}
    assert all(re.search(r":\d+\.\d+\.\d+-slim", base) for base in bases)
    wanted, pinned = (
        requirements("requirements.txt"),
        requirements("cluster/docker/constraints.txt"),
    )
    assert all(re.fullmatch(r"==[^,*]+", str(each.specifier)) for each in pinned.values())
    for name, each in wanted.items():
        if name != "setuptools":  # it comes with Python
            version = str(pinned[name].specifier).removeprefix("==")
            assert each.specifier.contains(version), name
    users = re.findall(r"(?m)^USER (.*)$", DOCKERFILE)
    assert users == ["10001:10001"] and "HEALTHCHECK" in DOCKERFILE


# --- compose


def test_a128_the_compose_file_is_one_of_its_kind() -> None:
    """It is parsed, not run: there is no Docker engine."""
    specification = pytest.importorskip("compose_spec").ComposeSpecification
    assert set(specification.model_validate(COMPOSE).services) == {
        *("redis", "head", "worker", "supervised"),
    }
    (other,) = COMPOSE["include"]
    included = yaml.safe_load((FOLDER / other).read_text())
    assert set(included["services"]) == {"mongo", "omniboard"}
    known = {*SERVICES, *included["services"]}
    for service in SERVICES.values():
        assert set(service.get("depends_on", {})) <= known
        assert "ports" not in service and service["mem_limit"]
        if build := service.get("build"):
            assert (FOLDER / build["context"]).resolve() == ROOT
            assert (ROOT / build["dockerfile"]).is_file() and build["target"] in STAGES
        else:
            assert re.search(r":\d+\.\d+\.\d+", service["image"]) and service["healthcheck"]
    assert SERVICES["worker"]["scale"] == 2


def test_a128_passwords_are_not_in_the_repository() -> None:
    texts = [(FOLDER / name).read_text() for name in ("docker-compose.cluster.yml",)]
    texts.append((ROOT / "sacred" / "docker-compose.yml").read_text())
    used = {name for text in texts for name in re.findall(r"(?<!\$)\$\{(\w+)", text)}
    used |= {each["environment"] for each in COMPOSE["secrets"].values()}
    lines = (FOLDER / ".env.example").read_text().splitlines()
    example = dict(line.split("=") for line in lines if "=" in line and not line.startswith("#"))
    assert used == set(example)
    assert example["MONGO_PASSWORD"] == example["REDIS_PASSWORD"] == ""


def test_a128_redis_of_the_compose_file_wants_the_password(tmp_path: Path) -> None:
    """Its command, run for real with the server that is here."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (tmp_path / "secret").write_text("a-password")
    sh, option, text = SERVICES["redis"]["command"]
    for there, here in {
        "$$": "$",
        "/run/secrets/redis": str(tmp_path / "secret"),
        "/tmp/redis.conf": str(tmp_path / "redis.conf"),
        "exec redis-server": f"exec {shlex.quote(server_program())}",
    }.items():
        assert there in text
        text = text.replace(there, here)
    log = tmp_path / "log"
    with log.open("wb") as out:
        server = subprocess.Popen(
            [sh, option, f"{text.rstrip()} --port {port} --bind 127.0.0.1"],
            stdout=out,
            cwd=tmp_path,
        )
    try:
        wait_until(lambda: "eady to accept" in log.read_text(), log.read_text, 30)
        with redis.Redis(port=port) as anybody, pytest.raises(redis.AuthenticationError):
            anybody.ping()
        env = {
            **os.environ,
            "PATH": PATH,
            "EVO_REDIS": f"redis://default@127.0.0.1:{port}",
            "EVO_REDIS_PASSWORD_FILE": str(tmp_path / "secret"),
        }
        healthy = ["sh", str(FOLDER / "healthy.sh")]
        assert subprocess.run(healthy, env=env, cwd=ROOT, check=False).returncode == 0
        env["EVO_REDIS_PASSWORD_FILE"] = str(log)
        assert subprocess.run(healthy, env=env, cwd=ROOT, check=False).returncode != 0
        assert (tmp_path / "redis.conf").stat().st_mode & 0o777 == 0o600
    finally:
        server.terminate()
        server.wait()


# --- supervisord


@pytest.mark.slow
@pytest.mark.skipif(not HAS_PROC, reason="no /proc")
def test_a128_supervisord_keeps_a_worker_for_each_core() -> None:
    """R-206. For real, but not in a container."""
    pytest.importorskip("supervisor")
    cores = len(os.sched_getaffinity(0))
    with Place() as place:
        place.server()
        env = {k: v for k, v in place.env.items() if k != "NUMPROC"} | {"PATH": PATH}
        out = place.folder / "supervised"
        with out.open("wb") as said:
            supervised = subprocess.Popen(
                ["sh", str(FOLDER / "supervised.sh")],
                env={**env, "PYTHONPATH": str(ROOT)},
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
            )
        try:
            _keeps_workers(place, supervised.pid, cores, out)
        finally:
            supervised.send_signal(signal.SIGTERM)
            assert supervised.wait(60) == 0, out.read_text()
        wait_until(lambda: WORKER not in str(place.processes()), place.processes, 30)


def _keeps_workers(place: Place, supervisor: int, cores: int, out: Path) -> None:
    server = connect(place.url)

    def count() -> int:
        return sum(each["workers"] for each in workers_alive(server, Keys()))

    def keepers() -> set[int]:
        """Supervisord's own children that hold a worker each."""
        there = {pid for pid, line in place.processes().items() if "start-workers" in line}
        return {pid for pid in there if _parent(pid) == supervisor}

    wait_until(lambda: count() == cores, out.read_text, 60)
    before = keepers()
    assert len(before) == cores
    killed = min(before)
    place.send(killed, signal.SIGKILL)
    wait_until(lambda: len(keepers() - {killed}) == cores, out.read_text, 60)
    assert len(keepers() & before) == cores - 1
    (fresh,) = keepers() - before
    wait_until(lambda: fresh in map(_parent, place.processes()), out.read_text, 60)  # its worker


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0
