"""A film file, written picture by picture."""

import contextlib
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

# By the file's ending: codec, form of its pixels, most pictures per second. GIF counts in
# hundredths of a second, and viewers slow down what lasts only one.
CODECS: dict[str, tuple[str, str, float]] = {
    ".mp4": ("libx264", "yuv420p", 1000.0),
    ".gif": ("gif", "pal8", 50.0),
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
        self._path = path
        self._codec, self._pixels, most = CODECS[path.suffix.lower()]
        self._rate = Fraction(min(pictures_per_second, most)).limit_denominator(1000)
        self._file: Any = None
        self._stream: Any = None
        self._palettes: _Palettes | None = None
        self._is_broken = False
        self.pictures = 0

    def add(self, picture: np.ndarray) -> None:
        """Append a picture: uint8[height, width, 3], the same size each time.

        Raises:
            ValueError: the file cannot be written.
        """
        import av

        even = np.pad(picture, [(0, size % 2) for size in picture.shape[:2]] + [(0, 0)], "edge")
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")
        frame.pts, frame.time_base = self.pictures, 1 / self._rate
        with self._writing():
            if self._file is None:
                self._open(frame.width, frame.height)
            self._write(frame)
        self.pictures += 1

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._is_broken = True
            raise ValueError(f"{self._path} cannot be written: {error.strerror}") from error

    def _open(self, width: int, height: int) -> None:
        import av

        self._file = av.open(str(self._path), "w")
        self._stream = self._file.add_stream(self._codec, rate=self._rate)
        self._stream.width, self._stream.height = width, height
        self._stream.pix_fmt = self._pixels
        if self._pixels == "pal8":
            self._palettes = _Palettes(width, height, self._rate)

    def _write(self, frame: Any) -> None:
        """Encode a frame, or with None what is still held back."""
        for each in [frame] if self._palettes is None else self._palettes.applied(frame):
            if each is not None:
                self._file.mux(self._stream.encode(each))
        if frame is None:
            self._file.mux(self._stream.encode())

    def __enter__(self) -> "Film":
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is None:
            return
        if self._is_broken:  # PyAV crashes when it is to go on after an error
            with contextlib.suppress(OSError):
                self._file.close()
            return
        with self._writing(), self._file:
            self._write(None)


class _Palettes:
    """Gives each picture the 256 colours that suit it best.

    FFmpeg's filters do it; left to itself, its GIF encoder has one coarse palette for all, and
    PyAV spoils the first rows of the pictures that it converts to that.
    """

    def __init__(self, width: int, height: int, rate: Fraction) -> None:
        import av
        from av.filter import Graph
        from av.video.format import VideoFormat

        self._nothing_yet = (av.error.BlockingIOError, av.error.EOFError)
        self._graph = Graph()
        source = self._graph.add_buffer(
            width=width, height=height, format=VideoFormat("rgb24"), time_base=1 / rate
        )
        split, find, use, sink = (
            self._graph.add("split"),
            self._graph.add("palettegen", "stats_mode=single"),
            self._graph.add("paletteuse", "new=1"),
            self._graph.add("buffersink"),
        )
        source.link_to(split)
        split.link_to(find, 0, 0)
        split.link_to(use, 1, 0)
        find.link_to(use, 0, 1)
        use.link_to(sink)
        self._graph.configure()

    def applied(self, frame: Any) -> Iterator[Any]:
        """Take a frame, or None after the last one; give those that are ready."""
        self._graph.push(frame)
        while True:
            try:
                yield self._graph.pull()
            except self._nothing_yet:
                return


def check_film(path: Path) -> None:
    """Refuse a film that could not be made.

    Raises:
        ValueError: no such kind of film, or no such folder.
    """
    if path.suffix.lower() not in CODECS:
        raise ValueError(f"{path}: films are .mp4 or .gif files")
    if not path.parent.is_dir():
        raise ValueError(f"{path}: there is no folder {path.parent}")
