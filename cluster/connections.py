"""Clients that notice when their server, or the way to it, is gone."""

import socket
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import urlsplit

import redis
from redis.backoff import NoBackoff
from redis.connection import (
    AbstractConnection,
    Connection,
    SSLConnection,
    UnixDomainSocketConnection,
)
from redis.retry import Retry

CONNECT_SECONDS = 3.0
SILENCE_SECONDS = 4.0  # of a server; our longest blocking command takes one
PROBE_SECONDS = 20.0  # of silence, after which the kernel asks whether the other end is there
SLICE_BYTES = 1 << 16

_KEEP_ALIVE = {"TCP_KEEPIDLE": PROBE_SECONDS, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}


def client_of(url: str, *, silence: float = SILENCE_SECONDS, retries: int = 1) -> redis.Redis:
    """A client that connects when it is first used.

    Args:
        silence: seconds without a byte after which the server counts as away.
        retries: of a command whose connection broke, at once; redis-py's own three, with growing
            pauses, would hide an outage for seconds.
    Raises:
        ValueError: it is no redis URL.
    """
    scheme = urlsplit(url).scheme
    if scheme not in _CONNECTIONS:
        raise ValueError("must begin with redis://, rediss:// or unix://")
    settings: dict[str, Any] = {
        "connection_class": _CONNECTIONS[scheme],
        "socket_timeout": silence,
        "socket_connect_timeout": CONNECT_SECONDS,
        "retry": Retry(NoBackoff(), retries, supported_errors=(redis.ConnectionError,)),
        "health_check_interval": 30,
    }
    if scheme == "unix":
        del settings["socket_connect_timeout"]
    else:
        known = {name: value for name, value in _KEEP_ALIVE.items() if hasattr(socket, name)}
        settings["socket_keepalive"] = True
        settings["socket_keepalive_options"] = {
            getattr(socket, name): int(value) for name, value in known.items()
        }
    if scheme == "rediss":
        settings["ssl_check_hostname"] = True
    return redis.Redis.from_url(url, **settings)


class _InSlices(AbstractConnection):
    """Sends what is large piece by piece.

    Python gives a whole ``sendall`` as long as it gives a single ``recv``: 16 MB over a slow link
    would never pass.
    """

    def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        pieces = [command] if isinstance(command, str | bytes) else command
        super().send_packed_command(_slices(pieces), check_health)


def _slices(pieces: Iterable[Any]) -> Iterator[Any]:
    for piece in pieces:
        if len(piece) <= SLICE_BYTES:
            yield piece
        else:
            view = memoryview(piece)
            yield from (view[at : at + SLICE_BYTES] for at in range(0, len(view), SLICE_BYTES))


class _Tcp(_InSlices, Connection):
    pass


class _Tls(_InSlices, SSLConnection):
    pass


class _Unix(_InSlices, UnixDomainSocketConnection):
    pass


_CONNECTIONS = {"redis": _Tcp, "rediss": _Tls, "unix": _Unix}
