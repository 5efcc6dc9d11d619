"""The network of the fake cloud: a wire to each machine, and security groups that filter packets.

It is a network namespace in which a thread of this process lives. So it has no name, nothing else
can see it, and it is gone as soon as this process is.
"""

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

AWS = "172.31.255.254"  # where machines reach AWS; no subnet of the default network has it
METADATA = "169.254.169.254"
PORTS = {AWS: 5000, METADATA: 80}
PROGRAMS = (
    *("ip", "nft", "unshare", "nsenter", "setpriv", "mount"),
    *("chroot", "hostname", "curl", "bash"),
)
MORE_PATHS = "/usr/sbin:/sbin"
HOW = "apt-get install nftables iproute2 util-linux hostname curl"
_CLONE_NEWNET = 0x40000000

T = TypeVar("T")


def why_not() -> str:
    """Why no machines can be booted here; "" if they can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "machines are namespaces, which need Linux and root"
    if missing := [name for name in PROGRAMS if program(name) is None]:
        return f"no {', '.join(missing)} here: {HOW}"
    for folder in (sys.prefix, sys.base_prefix):
        if Path(folder).stat().st_dev != Path("/").stat().st_dev:
            return f"machines see the root's file system alone, and {folder} is on another"
    tried = subprocess.run(
        ["unshare", "--net", "--pid", "--mount", "--fork", "bash", "-ec", _TRIAL],
        capture_output=True,
        text=True,
        check=False,
    )
    return f"no namespaces or overlays here: {tried.stderr.strip()}" if tried.returncode else ""


_TRIAL = """
mount -t tmpfs tmpfs /mnt
mkdir /mnt/upper /mnt/work /mnt/root
mount -t overlay overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work /mnt/root
"""


def program(name: str) -> str | None:
    """Where a program is, also if it is none for users."""
    return shutil.which(name, path=f"{os.environ['PATH']}:{MORE_PATHS}")


@dataclass(frozen=True)
class Rule:
    """What a machine lets in."""

    wire: str
    sources: tuple[str, ...]  # addresses, or ranges of them
    protocol: str  # tcp, udp, or -1 for all
    ports: tuple[int, int] | None  # the first and the last

    def __str__(self) -> str:
        said = f'oifname "{self.wire}" ip saddr {{ {", ".join(self.sources)} }}'
        if self.protocol != "-1":
            first, last = self.ports or (0, 65535)
            said += f" {self.protocol} dport {first}-{last}"
        return f"{said} accept"


class Network:
    """What machines are plugged into; a context manager."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "network", initializer=_leave_for_an_empty_network)
        self._wires: dict[str, str] = {}  # the address at each one's end
        self._rules = ""
        self.do(self._set_up)

    def do(self, what: Callable[..., T], *args: Any) -> T:
        """Call something inside: the sockets it makes, and the programs it starts, stay there."""
        return self._thread.submit(what, *args).result()

    def _set_up(self) -> None:
        _ip("link set lo up", *(f"address add {address}/32 dev lo" for address in PORTS))
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        self._filter([])

    def join(self, wire: str, pid: int, address: str) -> None:
        """Plug in the machine of a process, which has its end as eth0."""

        def work() -> None:
            _ip(
                f"link add {wire} type veth peer name eth0 netns {pid}",
                f"link set {wire} up",
                f"route add {address}/32 dev {wire}",
            )
            self._wires[wire] = address

        self.do(work)

    def leave(self, wire: str) -> None:
        """Pull the plug; the wire goes with its machine."""
        self._wires.pop(wire, None)

    def let_in(self, rules: Iterable[Rule]) -> None:
        """Let through what rules say, what belongs to it, and what machines ask of AWS."""
        self.do(self._filter, list(rules))

    def _filter(self, rules: list[Rule]) -> None:
        forged = [
            f'iifname "{wire}" ip saddr != {address} drop' for wire, address in self._wires.items()
        ]
        services = [f"ip daddr {where} tcp dport {port} accept" for where, port in PORTS.items()]
        known = "ct state established,related accept"
        text = "\n".join(
            [
                *("table inet cloud", "delete table inet cloud", "table inet cloud {"),
                *("chain input { type filter hook input priority 0; policy drop;", *forged),
                *(known, 'iifname "lo" accept', *services, "}"),
                *("chain forward { type filter hook forward priority 0; policy drop;", *forged),
                *(known, *sorted(map(str, rules)), "}", "}"),
            ]
        )
        if text != self._rules:
            _say(("nft", "-f", "-"), f"{text}\n")
            self._rules = text

    def __enter__(self) -> "Network":
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown()


def _leave_for_an_empty_network() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "no network namespace")


def _ip(*lines: str) -> None:
    _say(("ip", "-batch", "-"), "".join(f"{line}\n" for line in lines))


def _say(words: tuple[str, ...], text: str) -> None:
    name = program(words[0])
    assert name is not None
    done = subprocess.run(
        [name, *words[1:]], input=text, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{words}\n{text}\n{done.stderr}"
