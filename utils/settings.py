"""The user's own settings: an environment variable, else a line of a TOML file."""

import os
import tomllib
from pathlib import Path
from typing import Any

FILE_VARIABLE = "EVO_SETTINGS"
FILE = "distributed-evolution/settings.toml"  # in XDG_CONFIG_HOME
VARIABLES = {  # of the file's [table] key
    ("store", "url"): "MONGO_URL",
    ("runs", "folder"): "EVO_RUNS",
    ("cluster", "owner"): "EVO_OWNER",
    ("aws", "region"): "EVO_AWS_REGION",
    ("aws", "bucket"): "EVO_AWS_BUCKET",
    ("aws", "image"): "EVO_AWS_IMAGE",
    ("aws", "subnets"): "EVO_AWS_SUBNETS",
}


class SettingsError(ValueError):
    """A settings file that cannot be read; the message is one line."""


def setting(table: str, key: str) -> str | None:
    """What the environment says, else the file; None if neither does.

    Raises:
        SettingsError: the file is none, or holds what nobody knows.
    """
    return os.environ.get(VARIABLES[table, key]) or _read(settings_file()).get((table, key))


def settings_file() -> Path:
    """Where the file is, or would be."""
    if named := os.environ.get(FILE_VARIABLE):
        return Path(named)
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / FILE


def _read(file: Path) -> dict[tuple[str, str], str]:
    try:
        with open(file, "rb") as opened:
            tables: dict[str, Any] = tomllib.load(opened)
    except FileNotFoundError:
        if os.environ.get(FILE_VARIABLE):
            raise SettingsError(f"{FILE_VARIABLE}: there is no file {file}") from None
        return {}
    except (OSError, ValueError) as error:
        raise SettingsError(f"{file} cannot be read: {error}") from error
    found = dict[tuple[str, str], str]()
    for table, keys in tables.items():
        for key, value in keys.items() if isinstance(keys, dict) else [("", keys)]:
            if (table, key) not in VARIABLES or not isinstance(value, str):
                known = ", ".join(f"[{t}] {k}" for t, k in VARIABLES)
                raise SettingsError(f"{file}: [{table}] {key} = {value!r}; known, as text: {known}")
            found[table, key] = value
    return found
