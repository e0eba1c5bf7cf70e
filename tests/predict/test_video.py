"""Frames of videos: number, time, order and pixels as written; files that are none are refused in one line."""

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mnas.predict.video import VideoFile, is_video, opened_video

COUNT = 12


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """Twelve frames of 64x48, each brighter than the last, at 25 a second."""
    path = tmp_path / "film.mp4"
    file = VideoFile(path, Fraction(25))
    for number in range(COUNT):
        file.add(Image.new("RGB", (65, 48), (20 * number,) * 3))
    file.close()
    return path


def test_frames_come_in_order_with_their_times_and_pixels(film: Path) -> None:
    with opened_video(film) as video:
        frames = list(video)
    assert (video.rate, video.frames) == (25, COUNT)
    assert [frame.number for frame in frames] == list(range(COUNT))
    assert [frame.time_s for frame in frames] == pytest.approx([number / 25 for number in range(COUNT)])
    assert {frame.picture.size for frame in frames} == {(64, 48)}
    means = [np.asarray(frame.picture).mean() for frame in frames]
    np.testing.assert_allclose(means, [20 * number for number in range(COUNT)], atol=3)


def test_every_fifth_frame(film: Path) -> None:
    with opened_video(film, every=5) as video:
        assert [frame.number for frame in video] == [0, 5, 10]
    assert (video.rate, video.frames) == (5, 3)


def test_files_that_are_no_videos_are_refused(film: Path, tmp_path: Path) -> None:
    assert is_video("a/B.MP4")
    assert not is_video("a/b.jpg")
    playlist = tmp_path / "list.mp4"  # FFmpeg would open the files that a playlist names
    playlist.write_text(f"ffconcat version 1.0\nfile {film}\n")
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(film.read_bytes()[:200])
    for path in (playlist, cut, tmp_path / "missing.mp4"):
        with pytest.raises(ValueError, match="it is not a readable video"), opened_video(path) as video:
            list(video)


def test_errors_of_the_reader_are_not_taken_for_those_of_the_file(film: Path) -> None:
    reading = opened_video(film)
    reading.__enter__()
    error = OSError("disk full")
    assert not reading.__exit__(OSError, error, None)  # it propagates as it is


def test_without_pyav_the_error_names_the_extra(film: Path) -> None:
    code = (
        "import sys; sys.modules['av'] = None\n"
        "from pathlib import Path\nfrom mnas.predict.video import opened_video\n"
        f"try:\n    opened_video(Path({str(film)!r})).__enter__()\n"
        "except ImportError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "videos need PyAV: pip install 'mnas[video]'\n"
