"""Where runs are kept: the MongoDB that the user has set, else the embedded store under runs/."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.lean import without
from utils.settings import VARIABLES, SettingsError, setting

with without("pandas"):  # Sacred can do without, which saves a tenth of a program's start
    from sacred.utils import SacredError

if TYPE_CHECKING:
    import pymongo
    import pymongo.database

RUNS = Path(__file__).resolve().parent.parent / "runs"
MONGO_VARIABLE = VARIABLES["store", "url"]
FILE = "store.sqlite"
DATABASE = "sacred"
REACH_MILLISECONDS = 4000
ANSWER_MILLISECONDS = 20_000


class StoreError(SacredError):
    """A store that cannot be reached; the user sees one line."""


def _setting(table: str, key: str) -> str | None:
    try:
        return setting(table, key)
    except SettingsError as error:
        raise StoreError(str(error), print_traceback=False) from error


def runs_folder() -> Path:
    """Where runs are kept on this machine."""
    return Path(_setting("runs", "folder") or RUNS)


def store_file() -> Path:
    """The file of the embedded store."""
    return runs_folder() / FILE


def has_store() -> bool:
    """True if something may have been stored before; nothing is started to find out."""
    return bool(_setting("store", "url")) or store_file().exists()


def store_url() -> str:
    """The URL of the store in use; the embedded one is started if need be.

    Raises:
        StoreError: it cannot be started.
    """
    if url := _setting("store", "url"):
        return url
    from store.embedded.start import EmbeddedError, embedded_url

    try:
        return embedded_url(store_file())
    except EmbeddedError as error:
        raise StoreError(str(error), print_traceback=False) from error


def find_store() -> "pymongo.database.Database[dict[str, Any]]":
    """The database in which runs are kept; its client is the caller's to close.

    Raises:
        StoreError: nothing answers there within 5 seconds, or it cannot be started.
    """
    return open_store(store_url())


def open_store(url: str) -> "pymongo.database.Database[dict[str, Any]]":
    """The database that a URL names, "sacred" if it names none.

    Raises:
        StoreError: nothing answers there within 5 seconds.
    """
    import pymongo

    try:
        client: pymongo.MongoClient[dict[str, Any]] = pymongo.MongoClient(
            url,
            serverSelectionTimeoutMS=REACH_MILLISECONDS,
            connectTimeoutMS=REACH_MILLISECONDS,
            socketTimeoutMS=ANSWER_MILLISECONDS,
        )
    except (pymongo.errors.PyMongoError, ValueError) as error:
        raise _unreachable(url, error) from error
    try:
        with pymongo.timeout(REACH_MILLISECONDS / 1000):
            client.admin.command("ping")
        return client.get_default_database(DATABASE)
    except (pymongo.errors.PyMongoError, ValueError) as error:
        client.close()
        raise _unreachable(url, error) from error


def _unreachable(url: str, error: Exception) -> StoreError:
    reason = str(error).splitlines()[0][:200]
    return StoreError(
        f"no MongoDB answers at {without_password(url)} ({MONGO_VARIABLE}): start it, or unset"
        f" {MONGO_VARIABLE} to use the embedded store. {without_password(reason)}",
        print_traceback=False,
    )


def without_password(url: str) -> str:
    """The URL as it may be shown."""
    return re.sub(r"//[^@/\s]*@", "//", url)
