"""Config files, read without executing anything that stands in them."""

import json
import os
from collections.abc import Sequence
from typing import Any

ENDINGS = (".yaml", ".yml", ".json")
MOST_BYTES = 1 << 20


class ConfigFileError(ValueError):
    """A file that holds no config; the message is one line for the user."""


def split_off_files(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Of what stands behind ``with``, names of configs and names of files."""
    files = [name for name in names if os.path.isfile(name) or name.endswith(ENDINGS)]
    return [name for name in names if name not in files], files


def read_config_file(name: str) -> dict[str, Any]:
    """The content of a config file.

    Raises:
        ConfigFileError: it cannot be read, or holds no keys and values.
    """
    if not name.endswith(ENDINGS):
        raise ConfigFileError(f"{name}: config files end in {', '.join(ENDINGS)}")
    try:
        with open(name, "rb") as file:
            text = file.read(MOST_BYTES + 1).decode()
    except OSError as error:
        raise ConfigFileError(f"{name} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigFileError(f"{name} is no text") from error
    if len(text) > MOST_BYTES:
        raise ConfigFileError(f"{name} is larger than {MOST_BYTES} bytes")
    found = _json(name, text) if name.endswith(".json") else _yaml(name, text)
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise ConfigFileError(f"{name} holds no keys and values, such as 'pop_size: 1000'")
    return found


def _json(name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigFileError(f"{name} is no JSON: {error}") from error


def _yaml(name: str, text: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigFileError(f"{name} is no plain YAML: {reason}") from error
