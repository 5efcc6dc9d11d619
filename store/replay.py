"""Sends what runs could not when their store was away: python -m store.replay"""

import logging
import sys

import click
from pymongo.database import Database
from pymongo.errors import PyMongoError

from store.location import StoreError, find_store, runs_folder
from store.shipper import Shipper, TakenOverError
from store.spool import Spool, spools
from utils.program import set_up_program

log = logging.getLogger("replay")


@click.command()
@click.option("--list", "only_list", is_flag=True, help="Show what there is, send nothing.")
def cli(only_list: bool) -> None:
    """Send what lies on this machine to the store; what a run still writes is left to it."""
    set_up_program()
    found = [Spool(folder) for folder in spools(runs_folder() / "spool")]
    if only_list:
        for spool in found:
            click.echo(f"{spool.folder}  {describe(spool)}")
        return
    try:
        store = find_store()
    except StoreError as error:
        raise click.ClickException(str(error)) from error
    if not all([replay(spool, store) for spool in found]):
        sys.exit(1)


def describe(spool: Spool) -> str:
    """What a spool has that the store has not, in words."""
    entry, _ = spool.run()
    points = sum(spool.waiting_points(name) for name in spool.metrics())
    files = len(spool.waiting_artifacts())
    return f"run {entry['_id']} ({entry['status']}): {points} values, {files} files to send"


def replay(spool: Spool, store: Database) -> bool:
    """Send one spool; false if it could not be, or only in part."""
    if not spool.take():
        log.info("%s is being written to: left alone", spool.folder)
        return True
    log.info("%s", describe(spool))
    try:
        Shipper(spool, store).ship(last=True)
    except TakenOverError as error:
        log.warning("%s: what lies in %s is out of date", error, spool.folder)
        return True
    except (PyMongoError, OSError) as error:
        log.error("%s stays: %s", spool.folder, str(error).partition("\n")[0])
        return False
    finally:
        spool.release()
    if spool.run()[0]["status"] == "COMPLETED":  # others may want to go on
        spool.remove()
    return True


if __name__ == "__main__":
    cli()
