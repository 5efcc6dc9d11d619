"""Find a class or function by its address in text."""

import importlib
from typing import Any

from utils.names import did_you_mean


def resolve(address: str) -> Any:
    """Import what `address` names: "package.module:Name" or "package.module.Name".

    Raises:
        ValueError: in one line, if the address has no module part, the module does not import or
            has no such name.
    """
    separator = ":" if ":" in address else "."
    module_name, _, name = address.rpartition(separator)
    if not name or not all(part.isidentifier() for part in module_name.split(".")):
        raise ValueError(f"{address!r} is no address: write it as package.module:Name")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"{address!r}: {error}. Is the folder it lies in on PYTHONPATH?"
        ) from error
    except Exception as error:  # whatever the user's module raises while it is imported
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(f"{address!r}: importing {module_name} failed with {reason}") from error
    try:
        return getattr(module, name)
    except AttributeError:
        hint = did_you_mean(name, [known for known in vars(module) if not known.startswith("_")])
        raise ValueError(f"{address!r}: module {module_name} has no {name!r}.{hint}") from None
