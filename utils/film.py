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
        pictures: how many it has so far; without any, no file is written.
    """

    def __init__(self, path: Path, pictures_per_second: float) -> None:
        """Get ready to write.

        Raises:
            ValueError: no such kind of film, or no such folder.
        """
        check_film(path)
        self._path, self._rate = path, pictures_per_second
        self._file: Any = None
        self._stream: Any = None
        self.pictures = 0

    def add(self, picture: np.ndarray) -> None:
        """Append a picture: uint8[height, width, 3], the same size each time.

        Raises:
            ValueError: the file cannot be written.
        """
        import av

        even = np.pad(picture, [(0, size % 2) for size in picture.shape[:2]] + [(0, 0)], "edge")
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")
        try:
            if self._file is None:
                self._open(frame.width, frame.height)
            self._file.mux(self._stream.encode(frame))
        except OSError as error:
            raise ValueError(f"{self._path} cannot be written: {error.strerror}") from error
        self.pictures += 1

    def _open(self, width: int, height: int) -> None:
        import av

        codec, pixels, most = CODECS[self._path.suffix.lower()]
        rate = Fraction(min(self._rate, most)).limit_denominator(1000)
        self._file = av.open(str(self._path), "w")
        self._stream = self._file.add_stream(codec, rate=rate)
        self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, pixels

    def __enter__(self) -> "Film":
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            with self._file:
                self._file.mux(self._stream.encode())


def check_film(path: Path) -> None:
    """Refuse a film that could not be made.

    Raises:
        ValueError: no such kind of film, or no such folder.
    """
    if path.suffix.lower() not in CODECS:
        raise ValueError(f"{path}: films are .mp4 or .gif files")
    if not path.parent.is_dir():
        raise ValueError(f"{path}: there is no folder {path.parent}")
