"""Where runs are kept: MongoDB when MONGO_URL is set, else files under runs/."""

import os
from typing import TYPE_CHECKING, Any

from store.location import MONGO_VARIABLE, RUNS, RUNS_VARIABLE, open_store

if TYPE_CHECKING:
    from sacred import Experiment

CHOSEN_BY_HAND = ("--file_storage", "--mongo_db", "--unobserved", "--sql", "--tiny_db", "--s3")


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
    from sacred.observers import MongoObserver

    database = open_store(url)
    return MongoObserver(client=database.client, db_name=database.name)
