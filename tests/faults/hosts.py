"""Hosts as network namespaces, each joined to one bridge by a link that can be made bad."""

import contextlib
import ctypes
import fcntl
import heapq
import mmap
import os
import random
import secrets
import select
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from processes import Child

SUBNET = "10.77.0"  # seen by the hosts alone
_CLONE_NEWNET = 0x40000000
_TUNSETIFF, _IFF_TAP, _IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
_STATE = struct.Struct("4d")  # delay, jitter, loss, down
_QUEUED = 10_000  # frames under way at most; what comes beyond is lost, as in a router
_FRAME = 1 << 16


def why_not() -> str:
    """Why there can be no such hosts on this machine; "" if there can."""
    if sys.platform != "linux" or not hasattr(os, "geteuid") or os.geteuid() != 0:
        return "hosts are network namespaces, which need Linux and root"
    if not shutil.which("ip"):
        return "hosts are made with the program 'ip' of iproute2"
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        return "links between hosts need /dev/net/tun"
    name = f"evo{secrets.token_hex(3)}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False)
    if made.returncode:
        return f"no network namespaces here: {made.stderr.decode().strip()}"
    _ip("netns", "delete", name)
    return ""


class Link:
    """Carries frames between a host and the bridge: late, not at all, or as they come."""

    def __init__(self, name: str, folder: Path, seed: int) -> None:
        """Make both ends of the link: the devices NAMEb and NAMEh."""
        self.names = f"{name}b", f"{name}h"
        self._state = mmap.mmap(-1, _STATE.size)
        self._ends = [_tap(each) for each in self.names]
        self._random = random.Random(seed)
        self.process = Child(f"link-{name}", folder, self._forward)

    def start(self) -> None:
        self.process.start()
        for end in self._ends:  # they are the process's alone, and end with it
            os.close(end)

    def be(
        self, *, delay: float = 0, jitter: float = 0, loss: float = 0, down: bool = False
    ) -> None:
        """Change at once; without arguments, be a good link again.

        Args:
            delay: seconds, each way.
            jitter: seconds at most, on top of the delay; frames keep their order.
            loss: share of the frames.
        """
        self._state[:] = _STATE.pack(delay, jitter, loss, down)

    def _forward(self) -> None:
        one, other = self._ends
        waiting: list[tuple[float, int, int, bytes]] = []  # when, number, whereto, frame
        number, last = 0, {one: 0.0, other: 0.0}
        poll = select.poll()
        for end in self._ends:
            poll.register(end, select.POLLIN)
        while True:
            while waiting and waiting[0][0] <= time.monotonic():
                _, _, end, frame = heapq.heappop(waiting)
                with contextlib.suppress(OSError):  # the device is down
                    os.write(end, frame)
            pause = (waiting[0][0] - time.monotonic()) * 1000 if waiting else 100
            for end, _ in poll.poll(max(pause, 0)):
                target = other if end == one else one
                for frame in _frames(end):
                    if (delay := self._delay()) is not None and len(waiting) < _QUEUED:
                        last[target] = max(last[target], time.monotonic() + delay)
                        number += 1
                        heapq.heappush(waiting, (last[target], number, target, frame))

    def _delay(self) -> float | None:
        """Seconds that a frame takes; None if it never arrives."""
        delay, jitter, loss, down = _STATE.unpack(self._state[:])
        if down or self._random.random() < loss:
            return None
        return delay + jitter * self._random.random()


class Host:
    """A machine with an address of its own."""

    def __init__(self, namespace: str, address: str, link: Link) -> None:
        self.namespace, self.address, self.link = namespace, address, link

    def enter(self) -> None:
        """Have this process be on the host from now on."""
        libc = ctypes.CDLL(None, use_errno=True)
        with open(f"/run/netns/{self.namespace}") as file:
            if libc.setns(file.fileno(), _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), f"cannot enter {self.namespace}")


@contextlib.contextmanager
def network(count: int, folder: Path, seed: int) -> Iterator[list[Host]]:
    """Hosts that see each other and nothing else.

    Args:
        seed: of what their links lose.
    """
    token = f"evo{secrets.token_hex(3)}"
    hosts: list[Host] = []
    with contextlib.ExitStack() as stack:
        _ip("link", "add", f"{token}b", "type", "bridge")
        stack.callback(_ip, "link", "delete", f"{token}b")
        _ip("link", "set", f"{token}b", "up")
        for number in range(count):
            name, address = f"{token}{number}", f"{SUBNET}.{10 + number}"
            _ip("netns", "add", name)
            stack.callback(_ip, "netns", "delete", name)
            link = Link(name, folder, seed + number)
            stack.callback(link.process.end)
            _join(link, f"{token}b", name, address)
            link.start()
            hosts.append(Host(name, address, link))
        yield hosts


def _join(link: Link, bridge: str, namespace: str, address: str) -> None:
    ours, theirs = link.names
    _ip("link", "set", ours, "master", bridge, "up")
    _ip("link", "set", theirs, "netns", namespace)
    inside = ("-n", namespace)
    _ip(*inside, "link", "set", theirs, "name", "eth0")
    _ip(*inside, "address", "add", f"{address}/24", "dev", "eth0")
    for device in ("lo", "eth0"):
        _ip(*inside, "link", "set", device, "up")


def _tap(name: str) -> int:
    end = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.ioctl(end, _TUNSETIFF, struct.pack("16sH", name.encode(), _IFF_TAP | _IFF_NO_PI))
    return end


def _frames(end: int) -> Iterator[bytes]:
    with contextlib.suppress(BlockingIOError, OSError):
        while True:
            yield os.read(end, _FRAME)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
