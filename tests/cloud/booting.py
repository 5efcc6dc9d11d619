"""Machines of the fake cloud: namespaces above this machine's files, which they cannot change."""

import contextlib
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from network import AWS, MORE_PATHS, PORTS, Network, program

HERE = Path(__file__).resolve().parent
SCRIPT = "/var/lib/cloud/instance/scripts/part-001"  # where start scripts are on real machines
CONSOLE, LOG = "/var/log/cloud-init-output.log", "/opt/evo/log.txt"
ENDPOINT = f"http://{AWS}:{PORTS[AWS]}"
ENVIRONMENT = {
    "PATH": f"/usr/local/bin:/usr/local/sbin:/usr/bin:/bin:{MORE_PATHS}",
    "AWS_ENDPOINT_URL": ENDPOINT,
    # a machine that is short of cores takes longer than the second that is the default
    "AWS_METADATA_SERVICE_TIMEOUT": "20",
    "AWS_METADATA_SERVICE_NUM_ATTEMPTS": "3",
}
# Programs that would speak to this machine's own, and those that it may not have.
OURS = {"shutdown": "usr/sbin", "poweroff": "usr/sbin", "aws": "usr/local/bin"}
ENDS = "#!/bin/sh\nkill -TERM 1\n"
INIT = """\
set -e
mount -t tmpfs -o size=4g,mode=755 tmpfs "$FOLDER"
cd "$FOLDER"
mkdir upper work root
mount -t overlay overlay -o lowerdir=/,upperdir=upper,workdir=work root
cd root
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount --rbind /dev dev
for folder in run dev/shm; do mount -t tmpfs tmpfs "$folder"; done
rm -rf root/.aws opt/evo var/lib/cloud
mkdir -p opt/evo var/lib/cloud/instance/scripts
ln -s "$PREFIX" opt/evo/venv
printf '%s\\n' "$INSTALLED" >opt/evo/installed
for name in $OURS; do rm -f "$name"; cp "$PROGRAMS/${name##*/}" "$name"; done
cp "$PROGRAMS/user-data" "var/lib/cloud/instance/scripts/part-001"
hostname "ip-${ADDRESS//./-}"
printf '127.0.0.1 localhost\\n%s %s\\n' "$ADDRESS" "$(hostname)" >etc/hosts
: >etc/resolv.conf
echo ready
read -r _
ip -batch - <<IP
link set lo up
address add $ADDRESS/32 dev eth0
link set eth0 up
route add $AWS/32 dev eth0
route add default via $AWS
IP
exec chroot . /usr/bin/env -i $ENVIRONMENT /bin/bash -c "$BOOT" boot
"""
# What the first process of a machine does: it ends when it is told to, and with it all others.
BOOT = f"""
trap 'exit 0' TERM
cd /
echo up
exec >/dev/null
if [ -s {SCRIPT} ]; then {SCRIPT} </dev/null >{CONSOLE} 2>&1 & fi
sleep infinity &
wait
"""


class Booted:
    """A machine that runs."""

    def __init__(
        self,
        network: Network,
        folder: Path,
        name: str,
        *,
        address: str,
        script: str,
        installed: str,
    ) -> None:
        """Boot it.

        Args:
            folder: of its own, empty.
            name: as AWS calls it.
            script: that it was given to start with; "": none.
            installed: for which requirements.txt its image was made.
        """
        self.name, self.address, self.network = name, address, network
        self.wire = f"v{name[2:13]}"
        self._write_programs(folder, script)
        values = {
            "FOLDER": str(folder / "disk"),
            "PROGRAMS": str(folder),
            "PREFIX": sys.prefix,
            "INSTALLED": installed,
            "OURS": " ".join(f"{where}/{name}" for name, where in OURS.items()),
            "ADDRESS": address,
            "AWS": AWS,
            "ENVIRONMENT": " ".join(f"{key}={value}" for key, value in ENVIRONMENT.items()),
            "BOOT": BOOT,
            "PATH": ENVIRONMENT["PATH"],
        }
        self._log = (folder / "boot.txt").open("wb")
        network.do(self._start, values)
        self._hear(b"ready\n")
        network.join(self.wire, self._process.pid, address)
        assert self._process.stdin
        self._process.stdin.write(b"go on\n")
        self._process.stdin.close()
        self._hear(b"up\n")

    def _write_programs(self, folder: Path, script: str) -> None:
        (folder / "disk").mkdir(parents=True)
        aws = (HERE / "aws_program.py").read_text()
        texts = {"shutdown": ENDS, "poweroff": ENDS, "aws": f"#!{sys.executable} -I\n{aws}"}
        for name, text in (texts | {"user-data": script}).items():
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)

    def _start(self, values: Mapping[str, str]) -> None:
        """In the thread of the network, which lasts: machines end when it does."""
        words = ["setpriv", "--pdeathsig=KILL", "unshare", "--net", "--pid", "--mount", "--uts"]
        self._process = subprocess.Popen(
            [*words, "--ipc", "--fork", "--kill-child", "bash", "-c", INIT],
            env=dict(values),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            start_new_session=True,
        )

    def _hear(self, word: bytes) -> None:
        """Wait until it is so far."""
        assert self._process.stdout
        said = self._process.stdout.readline()
        assert said == word, Path(self._log.name).read_text()

    def run(self, command: str, seconds: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a command of the shell as root, with no rights but the machine's own."""
        inside = ["nsenter", f"--target={self._first()}", "--all", "--root", "--wd"]
        values = [f"{key}={value}" for key, value in ENVIRONMENT.items()]
        enter = program(inside[0])
        assert enter
        return subprocess.run(
            [enter, *inside[1:], "env", "-i", *values, "HOME=/root", "bash", "-c", command],
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    def _first(self) -> int:
        """Its first process, as this machine numbers it."""
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        assert children, f"{self.name} has ended"
        return int(children[0])

    @property
    def root(self) -> Path:
        """Its files, as this machine sees them."""
        return Path(f"/proc/{self._first()}/root")

    def text(self, *paths: str) -> str:
        """What is in files of it, or was in those that are gone: nothing."""
        found = []
        for path in paths:
            with contextlib.suppress(OSError, AssertionError):  # not yet, or not any more
                found.append((self.root / path.lstrip("/")).read_text())
        return "".join(found)

    def log(self) -> str:
        """What it has said in all of its life."""
        return self.text(CONSOLE, LOG)

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def end(self) -> None:
        """Switch it off; none of its processes is left."""
        self._process.kill()
        self._process.wait()
        self._log.close()
        if self._process.stdout:
            self._process.stdout.close()
        self.network.leave(self.wire)
