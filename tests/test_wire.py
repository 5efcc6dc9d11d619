"""Messages survive the wire, and nothing else gets through it."""

import json
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.wire import MAX_BYTES, VERSION, MessageError, _code, pack, unpack

MESSAGE: dict[str, Any] = {
    "text": "σ ± ε",
    "number": -7,
    "share": 0.1,
    "nothing": None,
    "truth": True,
    "nested": {"list": [1, "two", None]},
    "empty": np.zeros((0, 5), np.float32),
    "f4": np.array([[1.5, -0.0, np.inf], [np.nan, 1e-45, 3.4e38]], np.float32),
    "f8": np.array(np.pi),
    "i8": np.array([-(2**63), 2**63 - 1]),
    "i4": np.arange(24, dtype=np.int32).reshape(2, 3, 4),
    "b1": np.array([True, False, True]),
    "last": np.zeros(0, np.int64),
}


def framed(
    header: Any, tail: bytes = b"", version: int = VERSION, magic: bytes = b"evo\0"
) -> bytes:
    """A message around any header at all, with the code that belongs to it."""
    head = header if isinstance(header, bytes) else json.dumps(header).encode()
    code = _code(b"", len(head), head + tail)
    return struct.pack("<4sHI16s", magic, version, len(head), code) + head + tail


def test_round_trip_of_every_type() -> None:
    back = unpack(pack(MESSAGE))
    assert back.keys() == MESSAGE.keys()
    for name, value in MESSAGE.items():
        if isinstance(value, np.ndarray):
            assert back[name].dtype == value.dtype
            assert back[name].shape == value.shape
            assert back[name].tobytes() == value.tobytes()
            assert not back[name].flags.writeable
        else:
            assert back[name] == value
            assert type(back[name]) is type(value)


def test_round_trip_does_not_depend_on_the_memory_layout() -> None:
    array = np.arange(24, dtype=np.float64).reshape(4, 6)
    for view in (array.T, array[::-1], array[:, ::2], np.broadcast_to(array[0], (3, 6))):
        assert np.array_equal(unpack(pack({"a": view}))["a"], view)


@pytest.mark.parametrize(
    "value",
    [
        np.array(["text"]),
        np.array([object()]),
        np.zeros(2, np.float16),
        np.zeros(2, ">f4"),
        np.zeros(2, np.uint64),
        np.float32(1),
        b"bytes",
        {1, 2},
        object(),
    ],
)
def test_what_the_wire_does_not_carry_is_refused_by_the_sender(value: Any) -> None:
    with pytest.raises(TypeError):
        pack({"value": value})


def test_every_truncation_and_every_addition_is_refused() -> None:
    data = pack(MESSAGE | {"last": np.arange(3.0)})
    for length in range(len(data)):
        with pytest.raises(MessageError):
            unpack(data[:length])
    with pytest.raises(MessageError, match="code does not fit"):
        unpack(data + b"\0")


def test_every_changed_bit_is_noticed() -> None:
    data = pack(MESSAGE, b"key")
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(MessageError):
            unpack(bytes(changed), b"key")


def test_only_who_knows_the_key_is_believed() -> None:
    data = pack(MESSAGE, b"key")
    assert unpack(data, b"key")["number"] == -7
    for other in (b"", b"kez", b"key\0"):
        with pytest.raises(MessageError, match="of another run"):
            unpack(data, other)


@pytest.mark.parametrize(("version", "older"), [(1, "its sender"), (3, "this program")])
def test_of_two_versions_the_older_one_is_named(version: int, older: str) -> None:
    with pytest.raises(MessageError, match=f"{older} is the older one"):
        unpack(framed([{}, {}], version=version))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (framed([{}, {}], magic=b"EVO\0"), "do not begin as a message"),
        (framed([{}, {}], version=VERSION + 1), f"version {VERSION + 1}, this program speaks"),
        (framed(b"[{}, {}"), "not readable"),
        (framed(b"\xff\xfe\xfa"), "not readable"),
        (framed(b"[" * 100_000), "not readable"),
        (framed([{}]), "not readable"),
        (framed(3), "not readable"),
        (framed([{}, []]), "wrong form"),
        (framed({"a": 1, "b": 2}), "wrong form"),
        (framed([{}, {"a": "<f4"}]), "no dtype"),
        (framed([{}, {"a": []}]), "no dtype"),
        (framed([{}, {"a": ["|O", 1]}], bytes(8)), "no dtype"),
        (framed([{}, {"a": ["<f2", 1]}], bytes(2)), "no dtype"),
        (framed([{}, {"a": [["<f4"], 1]}]), "no dtype"),
        (framed([{}, {"a": [{}, 1]}]), "no dtype"),
        (framed([{}, {"a": [None]}]), "no dtype"),
        (framed([{}, {"a": ["<f4", -1]}]), "impossible shape"),
        (framed([{}, {"a": ["<f4", 1.0]}]), "impossible shape"),
        (framed([{}, {"a": ["<f4", True]}], bytes(4)), "impossible shape"),
        (framed([{}, {"a": ["<f4", "2"]}]), "impossible shape"),
        (framed([{}, {"a": ["<f4", MAX_BYTES + 1]}]), "impossible shape"),
        (framed([{}, {"a": ["<f4", *[1] * 9]}], bytes(4)), "impossible shape"),
        (framed([{}, {"a": ["<f4", 0, 2**30, 2**30, 2**30]}]), "impossible shape"),
        (framed([{}, {"a": ["<f8", 2]}], bytes(15)), "cut off"),
        (framed([{}, {"a": ["<f4", 2**28]}], bytes(8)), "cut off"),
        (framed([{}, {"a": ["<f4", 1]}], bytes(5)), "1 bytes too many"),
        (b"", "too few"),
        (b"x" * 10, "too few"),
        (b"x" * 30, "do not begin"),
    ],
)
def test_other_bytes_are_refused_with_the_reason(data: bytes, reason: str) -> None:
    with pytest.raises(MessageError, match=reason):
        unpack(data)


def test_a_message_above_the_cap_is_not_even_read() -> None:
    data = pack({"a": np.zeros(100)})
    with pytest.raises(MessageError, match="too many"):
        unpack(data, limit=len(data) - 1)
    assert unpack(data, limit=len(data))["a"].shape == (100,)


class Canary:
    """Sings when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self._path,)


def test_a077_a_pickle_is_refused_and_not_executed(tmp_path: Path) -> None:
    song = pickle.dumps(Canary(tmp_path / "song"))
    for data in (song, framed(song), framed([{}, {"a": ["<f4", 1]}], song)):
        with pytest.raises(MessageError):
            unpack(data)
    assert not list(tmp_path.iterdir())
    pickle.loads(song)  # the canary can sing
    assert list(tmp_path.iterdir())


def test_noise_never_gets_through_and_never_breaks_anything() -> None:
    rng = np.random.default_rng(20)
    data = pack(MESSAGE)
    refused = 0
    for _ in range(4000):
        noisy = bytearray(data)
        for place in rng.integers(0, len(noisy), rng.integers(1, 4)):
            noisy[place] = rng.integers(256)
        if rng.random() < 0.2:
            at, end = sorted(rng.integers(0, len(noisy), 2).tolist())
            del noisy[at:end]
        try:
            unpack(bytes(noisy))
        except MessageError:
            refused += 1
        else:
            assert noisy == data
    assert refused > 3000


def test_random_headers_never_break_anything() -> None:
    rng = np.random.default_rng(21)
    words: list[Any] = [
        None,
        True,
        -1,
        0,
        3,
        2**31,
        1.5,
        "<f4",
        "<i8",
        "|O",
        "a",
        [],
        {},
        float("nan"),
    ]

    def grown(depth: int) -> Any:
        kind = rng.integers(3) if depth else 0
        some = range(rng.integers(4))
        if kind == 1:
            return [grown(depth - 1) for _ in some]
        if kind == 2:
            return {str(key): grown(depth - 1) for key in some}
        return words[rng.integers(len(words))]

    for _ in range(2000):
        arrays = {str(key): grown(2) for key in range(rng.integers(4))}
        header = [{}, arrays] if rng.random() < 0.8 else grown(3)
        try:
            message = unpack(framed(header, rng.bytes(int(rng.integers(40)))))
        except MessageError:
            continue
        assert isinstance(message, dict)


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
@pytest.mark.parametrize(
    ("least", "most", "size"),
    [(0, 255, 1), (-128, 127, 1), (0, 256, 2), (-129, 0, 2), (0, 2**16, 4), (-1, 2**15, 4)],
)
def test_whole_numbers_travel_in_as_few_bytes_as_they_need(
    dtype: type, least: int, most: int, size: int
) -> None:
    array = np.linspace(least, most, 100).astype(dtype).reshape(4, 25)
    data = pack({"a": array})
    assert len(data) - len(pack({"a": array[:0]})) < 100 * size + 16
    back = unpack(data)["a"]
    assert back.dtype == array.dtype
    assert np.array_equal(back, array)
    assert not back.flags.writeable


@pytest.mark.parametrize("kinds", ["<i4<u4", "<i4<i8", "<f4<u2", "|b1|u1", "<i8<f4"])
def test_numbers_that_cannot_be_narrowed_so_are_refused(kinds: str) -> None:
    with pytest.raises(MessageError, match="no dtype that the wire carries"):
        unpack(framed([{}, {"a": [kinds, 2]}], bytes(16)))
