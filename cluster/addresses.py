"""Which server to talk to, and the secrets for it: never from a command line.

| variable | meaning |
|---|---|
| EVO_REDIS | the URL of the server, whole |
| EVO_REDIS_PASSWORD | the password for an address that names none, … |
| EVO_REDIS_PASSWORD_FILE | … or the file that holds it |
| EVO_REDIS_CA | the file of the authority whose certificates are believed: connections use TLS |
"""

import os
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

from cluster.notes import running_server
from cluster.redis_server import ServerError

URL_VARIABLE = "EVO_REDIS"
PASSWORD_VARIABLE = "EVO_REDIS_PASSWORD"
PASSWORD_FILE_VARIABLE = "EVO_REDIS_PASSWORD_FILE"
CA_VARIABLE = "EVO_REDIS_CA"
PORT = 6379


def find_url(configured: str | None = None, user: str = "") -> str | None:
    """The server to use: the configured one, else EVO_REDIS, else this user's run-server.

    Args:
        configured: a URL.
        user: to whom the password from the environment belongs; "" for the head.
    Raises:
        ServerError: a file with a secret is named and not there.
    """
    if chosen := configured or os.environ.get(URL_VARIABLE):
        return completed(chosen, user)
    running = running_server()
    return running["url"] if running else None


def url_of(host: str, port: int = PORT, user: str = "") -> str:
    """The URL of another machine's server, with the secrets of the environment.

    Raises:
        ServerError: a file with a secret is named and not there.
    """
    scheme = "rediss" if os.environ.get(CA_VARIABLE) else "redis"
    name = f"[{host}]" if ":" in host else host
    return completed(f"{scheme}://{name}:{port}", user)


def completed(url: str, user: str = "") -> str:
    """Add what a URL lacks and the environment knows: password and authority."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return url  # whoever connects will say so
    if parts.scheme not in ("redis", "rediss"):
        return url
    place, query = parts.netloc, parts.query
    secret = password_from_environment()
    if secret and parts.password is None and "password=" not in query:
        name = parts.username or user
        place = f"{name}:{quote(secret, safe='')}@{place.rpartition('@')[2]}"
    if parts.scheme == "rediss" and "ssl_ca" not in query and (authority := _authority()):
        query = "&".join(filter(None, [query, f"ssl_ca_certs={quote(authority)}"]))
    return urlunsplit(parts._replace(netloc=place, query=query))


def password_from_environment() -> str | None:
    """EVO_REDIS_PASSWORD, or what is in the file that EVO_REDIS_PASSWORD_FILE names.

    Raises:
        ServerError: the file cannot be read, or is empty.
    """
    if given := os.environ.get(PASSWORD_VARIABLE):
        return given
    if not (name := os.environ.get(PASSWORD_FILE_VARIABLE)):
        return None
    try:
        found = Path(name).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ServerError(f"{PASSWORD_FILE_VARIABLE}: {error}") from error
    if not found:
        raise ServerError(f"{PASSWORD_FILE_VARIABLE}: {name} is empty")
    return found


def _authority() -> str | None:
    name = os.environ.get(CA_VARIABLE)
    if name and not os.access(name, os.R_OK):
        raise ServerError(f"{CA_VARIABLE}: there is no file {name} that can be read")
    return name
