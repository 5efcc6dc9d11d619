"""Many messages in one, which costs the network and its reader less than each by itself."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from cluster.wire import MessageError, pack, unpack

SMALL_BYTES = 1 << 16  # a larger message gains nothing


def merge(messages: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One message for many of the same form.

    What all have in common is said once, other values are listed; arrays lie one behind the other.
    """
    first = messages[0]
    arrays = [name for name, value in first.items() if isinstance(value, np.ndarray)]
    columns = {name: [each[name] for each in messages] for name in first if name not in arrays}
    common = {name: values[0] for name, values in columns.items() if _are_equal(values)}
    listed = {name: values for name, values in columns.items() if name not in common}
    lengths = np.array([[len(each[name]) for each in messages] for name in arrays], np.int32)
    merged = {"merged": arrays, "common": common, "listed": listed, "lengths": lengths}
    joined = {f".{name}": np.concatenate([each[name] for each in messages]) for name in arrays}
    return merged | joined


def _are_equal(values: list[Any]) -> bool:
    return all(type(each) is type(values[0]) and each == values[0] for each in values)


def split(message: dict[str, Any]) -> list[dict[str, Any]]:
    """The messages in one; itself if it is not merged.

    Raises:
        MessageError: its parts do not fit together.
    """
    if not is_merged(message):
        return [message]
    names, common, listed = message["merged"], message["common"], message["listed"]
    cut = [
        _cut(message[f".{name}"], of) for name, of in zip(names, message["lengths"], strict=True)
    ]
    fields, columns = [*listed, *names], [*listed.values(), *cut]
    return [
        {**common, **dict(zip(fields, values, strict=True))}
        for values in zip(*columns, strict=True)
    ]


def is_merged(message: dict[str, Any]) -> bool:
    """Whether it is many in one.

    Raises:
        MessageError: it should be, but its parts do not fit together.
    """
    if "merged" not in message:
        return False
    try:
        names, common, listed = message["merged"], message["common"], message["listed"]
        lengths = message["lengths"]
        rows, count = lengths.shape
        if lengths.dtype.kind != "i" or rows != len(names) or (lengths < 0).any():
            raise ValueError("lengths that cannot be")
        if not (isinstance(common, dict) and isinstance(listed, dict)):
            raise TypeError("fields without names")
        if len({*names, *common, *listed}) != len(names) + len(common) + len(listed):
            raise ValueError("a field that is there twice")
        if not all(isinstance(each, list) and len(each) == count for each in listed.values()):
            raise ValueError("lists of different lengths")
        for name, in_all in zip(names, lengths.sum(axis=1, dtype=np.int64), strict=True):
            if message[f".{name}"].shape != (in_all,):
                raise ValueError("an array that is longer or shorter than its parts")
    except (KeyError, ValueError, TypeError, AttributeError, IndexError) as error:
        raise MessageError(f"messages that are badly merged: {error}") from error
    return True


def values_of(message: dict[str, Any], name: str) -> list[Any]:
    """What all messages in one say in a field that is no array.

    Args:
        message: sound, if it is merged; see `is_merged`.
    Raises:
        KeyError: there is no such field.
    """
    if "merged" not in message:
        return [message[name]]
    if name in message["common"]:
        return [message["common"][name]] * message["lengths"].shape[1]
    return message["listed"][name]


def array_of(message: dict[str, Any], name: str) -> tuple[Any, np.ndarray]:
    """The arrays of all messages in one, one behind the other; and int64[messages], their lengths.

    Args:
        message: sound, if it is merged; see `is_merged`.
    Raises:
        KeyError: there is no such field.
        TypeError: it is no array.
    """
    if "merged" not in message:
        array = message[name]
        return array, np.array([len(array)], np.int64)
    if name not in message["merged"]:
        raise KeyError(name)
    row = message["merged"].index(name)
    return message[f".{name}"], message["lengths"][row].astype(np.int64)


def _cut(array: np.ndarray, lengths: np.ndarray) -> list[np.ndarray]:
    ends = np.cumsum(lengths, dtype=np.int64).tolist()
    return [array[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def merged(data: Sequence[bytes], key: bytes) -> list[bytes]:
    """The same messages in fewer; what is no message, or cannot be merged, stays as it is."""
    alike: dict[tuple[Any, ...], list[tuple[bytes, list[dict[str, Any]]]]] = {}
    rest = list[bytes]()
    for each in data:
        messages = _small_messages(each, key)
        form = _form(messages[0]) if messages else None
        if form is None:
            rest.append(each)
        else:
            alike.setdefault(form, []).append((each, messages))
    for group in alike.values():
        single = len(group) == 1
        together = itertools.chain.from_iterable(messages for _, messages in group)
        rest.append(group[0][0] if single else pack(merge(list(together)), key))
    return rest


def _small_messages(data: bytes, key: bytes) -> list[dict[str, Any]]:
    try:
        return split(unpack(data, key, SMALL_BYTES))
    except MessageError:  # whoever it is for will say so
        return []


def _form(message: dict[str, Any]) -> tuple[Any, ...] | None:
    """Equal for messages that can be merged; None if it cannot be."""
    arrays = {n: v.dtype.str for n, v in message.items() if isinstance(v, np.ndarray)}
    if not arrays or any(message[name].ndim != 1 for name in arrays):
        return None
    return tuple(sorted((name, arrays.get(name, "")) for name in message))
