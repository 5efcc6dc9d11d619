"""Where runs are kept: MongoDB when MONGO_URL is set, else files under runs/."""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sacred.utils import SacredError

if TYPE_CHECKING:
    from sacred import Experiment

RUNS = Path(__file__).resolve().parent.parent / "runs"
MONGO_VARIABLE = "MONGO_URL"
RUNS_VARIABLE = "EVO_RUNS"
DATABASE = "sacred"
CHOSEN_BY_HAND = ("--file_storage", "--mongo_db", "--unobserved", "--sql", "--tiny_db", "--s3")
REACH_MILLISECONDS = 4000


class StoreError(SacredError):
    """A store that cannot be reached; the user sees one line."""


def observe_by_default(ex: "Experiment") -> None:
    """Give an experiment its observer, unless the command line names one."""

    @ex.option_hook
    def choose(options: dict[str, Any]) -> None:
        if any(options.get(name) for name in CHOSEN_BY_HAND):
            return
        url = os.environ.get(MONGO_VARIABLE)
        if url:
            ex.observers.append(_mongo(url))
        else:
            from sacred.observers import FileStorageObserver

            ex.observers.append(FileStorageObserver(os.environ.get(RUNS_VARIABLE, RUNS)))


def _mongo(url: str) -> Any:
    import pymongo
    from sacred.observers import MongoObserver

    try:
        client: Any = pymongo.MongoClient(
            url, serverSelectionTimeoutMS=REACH_MILLISECONDS, socketTimeoutMS=20_000
        )
        client.admin.command("ping")
        database = client.get_default_database(DATABASE).name
    except (pymongo.errors.PyMongoError, ValueError) as error:
        shown = re.sub(r"//[^@/]*@", "//", url)
        raise StoreError(
            f"no MongoDB answers at {shown} ({MONGO_VARIABLE}): start it, or unset"
            f" {MONGO_VARIABLE} to keep runs as files. {str(error).splitlines()[0][:200]}",
            print_traceback=False,
        ) from error
    return MongoObserver(client=client, db_name=database)
