"""TEMPORARY, replaced by the embedded server's."""

import os
from pathlib import Path
from typing import Any

from sacred.utils import SacredError

RUNS = Path(__file__).resolve().parent.parent / "runs"
RUNS_VARIABLE = "EVO_RUNS"
DATABASE = "sacred"


class StoreError(SacredError):
    """A store that cannot be reached; the user sees one line."""


def find_store() -> Any:
    import pymongo

    client: Any = pymongo.MongoClient(
        os.environ["MONGO_URL"], serverSelectionTimeoutMS=4000, socketTimeoutMS=20000
    )
    return client.get_default_database(DATABASE)


def runs_folder() -> Path:
    """Where runs are kept on this machine."""
    return Path(os.environ.get(RUNS_VARIABLE, RUNS))


def find_url() -> str:
    """The address of the store."""
    return os.environ["MONGO_URL"]
