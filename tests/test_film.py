"""Films, opened again: as many pictures as were put in, and the same ones."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from utils.film import Film

COLORS = [(230, 30, 40), (250, 250, 250), (0, 0, 0), (20, 90, 200)]


def picture(number: int, height: int = 60, width: int = 80) -> np.ndarray:
    """A square that wanders over stripes."""
    made = np.zeros((height, width, 3), np.uint8)
    for stripe, color in enumerate(COLORS):
        made[stripe * 16 : stripe * 16 + 16] = color
    made[number : number + 10, 2 * number : 2 * number + 10] = (90, 200, 10)
    return made


def shot(path: Path, pictures: list[np.ndarray], rate: float = 25.0) -> list[np.ndarray]:
    """Make a film and look at it."""
    with Film(path, rate) as film:
        for each in pictures:
            film.add(each)
    assert film.pictures == len(pictures)
    with av.open(str(path)) as opened:
        return [frame.to_ndarray(format="rgb24") for frame in opened.decode(video=0)]


@pytest.mark.parametrize(("ending", "exact"), [("gif", 6), ("mp4", 60)])
def test_a103_pictures_come_out_as_they_went_in(ending: str, exact: int, tmp_path: Path) -> None:
    """MP4 halves the resolution of colours, so it is less exact along edges."""
    pictures = [picture(number) for number in range(30)]
    pictures += [pictures[-1]] * 5  # standing still counts too
    seen = shot(tmp_path / f"film.{ending}", pictures)
    assert len(seen) == 35
    for ours, theirs in zip(pictures, seen, strict=True):
        difference = np.abs(ours.astype(int) - theirs)
        assert np.quantile(difference, 0.98) <= exact
        assert difference[:3].mean() < exact / 2


@pytest.mark.parametrize("ending", ["mp4", "gif"])
@pytest.mark.parametrize("count", [1, 2, 7])
def test_films_of_odd_sizes(ending: str, count: int, tmp_path: Path) -> None:
    """Codecs want an even number of pixels."""
    pictures = [picture(number, 33, 51) for number in range(count)]
    seen = shot(tmp_path / f"film.{ending}", pictures)
    assert [each.shape for each in seen] == [(34, 52, 3)] * count


@pytest.mark.parametrize(
    ("ending", "rate", "expected"), [("mp4", 60, 60), ("gif", 60, 50), ("gif", 20, 20)]
)
def test_a_film_runs_as_fast_as_its_environment(
    ending: str, rate: float, expected: float, tmp_path: Path
) -> None:
    """A GIF no faster than its viewers can."""
    shot(tmp_path / f"film.{ending}", [picture(number) for number in range(20)], rate)
    with av.open(str(tmp_path / f"film.{ending}")) as opened:
        assert opened.duration is not None
        seconds = Fraction(opened.duration, av.time_base)
    assert 20 / seconds == pytest.approx(expected, rel=0.06)


def test_no_pictures_no_file(tmp_path: Path) -> None:
    with Film(tmp_path / "film.mp4", 30):
        pass
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    for name, line in (("film.avi", ".mp4 or .gif"), ("no/film.gif", "there is no folder")):
        with pytest.raises(ValueError, match=line):
            Film(tmp_path / name, 30)
    (tmp_path / "film.gif").mkdir()
    with Film(tmp_path / "film.gif", 30) as film, pytest.raises(ValueError, match="written: Is a"):
        film.add(picture(0))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a file that is always full")
@pytest.mark.parametrize("count", [1, 200])
@pytest.mark.parametrize("ending", ["mp4", "gif"])
def test_a_full_disk_is_told(ending: str, count: int, tmp_path: Path) -> None:
    """A codec holds pictures back, so that it may be noticed at the end alone."""
    path = tmp_path / f"film.{ending}"
    path.symlink_to("/dev/full")
    with (
        pytest.raises(ValueError, match="cannot be written: No space left"),
        Film(path, 30) as film,
    ):
        for number in range(count):
            film.add(picture(number % 20))
