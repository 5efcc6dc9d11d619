"""Whether a window can be opened here."""

import contextlib
import ctypes
import os
import socket
import sys
from pathlib import Path


def missing_display() -> str | None:
    """Why no window can be opened, in a few words; None if one can.

    A variable may name a display that has long gone. Some drawing libraries abort the whole
    program then and others draw unseen, so the display is asked first.
    """
    if sys.platform != "linux" or _x11_answers() or _wayland_answers():
        return None
    named = [f"{name}={os.environ[name]}" for name in ("DISPLAY", "WAYLAND_DISPLAY") if _is(name)]
    return f"{named[0]} does not answer" if named else "no display here"


def _is(name: str) -> bool:
    return bool(os.environ.get(name))


def _x11_answers() -> bool:
    """True if the server takes us for a client, which a mere connection does not tell.

    We stay one: a server whose last client leaves may begin anew, and be deaf for a moment.
    """
    if not _is("DISPLAY"):
        return False
    try:
        x11 = ctypes.CDLL("libX11.so.6")
    except OSError:
        return False  # then nobody else in this process can open a window either
    x11.XOpenDisplay.argtypes, x11.XOpenDisplay.restype = [ctypes.c_char_p], ctypes.c_void_p
    return x11.XOpenDisplay(os.fsencode(os.environ["DISPLAY"])) is not None


def _wayland_answers() -> bool:
    if not _is("WAYLAND_DISPLAY"):
        return False
    address = Path(os.environ.get("XDG_RUNTIME_DIR", "/")) / os.environ["WAYLAND_DISPLAY"]
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as probe:
        try:
            probe.connect(str(address))
        except OSError:  # also for a path that is too long
            return False
    return True
