"""A film file, written picture by picture."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

# By the file's ending: codec, form of its pixels, most pictures per second. GIF counts in
# hundredths of a second, and viewers slow down what lasts only one.
CODECS: dict[str, tuple[str, str, float]] = {
    ".mp4": ("libx264", "yuv420p", 1000.0),
    ".gif": ("gif", "rgb8", 50.0),
}


class Film:
    """An .mp4 or .gif file in the making; a context manager, at whose end it is complete.

    Attributes:
        pictures: how many it has so far.
    """

    def __init__(self, path: Path, pictures_per_second: float) -> None:
        """Begin the file.

        Raises:
            ValueError: no such kind of film, or the file cannot be written.
        """
        check_film(path)
        import av

        codec, self._pixels, most = CODECS[path.suffix.lower()]
        rate = Fraction(min(pictures_per_second, most)).limit_denominator(1000)
        try:
            self._file = av.open(str(path), "w")
        except OSError as error:
            raise ValueError(f"{path} cannot be written: {error.strerror or error}") from error
        self._stream: Any = self._file.add_stream(codec, rate=rate)
        self.pictures = 0

    def add(self, picture: np.ndarray) -> None:
        """Append a picture: uint8[height, width, 3], the same size each time."""
        import av

        even = np.pad(picture, [(0, size % 2) for size in picture.shape[:2]] + [(0, 0)], "edge")
        if self.pictures == 0:
            self._stream.height, self._stream.width = even.shape[:2]
            self._stream.pix_fmt = self._pixels
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")
        self._file.mux(self._stream.encode(frame))
        self.pictures += 1

    def __enter__(self) -> "Film":
        return self

    def __exit__(self, *_: object) -> None:
        if self.pictures:
            self._file.mux(self._stream.encode())
        self._file.close()


def check_film(path: Path) -> None:
    """Refuse a film that could not be made.

    Raises:
        ValueError: no such kind of film, or no such folder.
    """
    if path.suffix.lower() not in CODECS:
        raise ValueError(f"{path}: films are .mp4 or .gif files")
    if not path.parent.is_dir():
        raise ValueError(f"{path}: there is no folder {path.parent}")
