"""Read the frames of a video file, and write pictures as one, by PyAV.

The container format follows from the file's suffix, and FFmpeg gets an open file instead of a name, so that a file
cannot make it read other files or the network.
"""

import itertools
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from PIL import Image

from mnas.readers import open_regular

CONTAINERS = {
    ".mp4": "mov",
    ".m4v": "mov",
    ".mov": "mov",
    ".mkv": "matroska",
    ".webm": "matroska",
    ".avi": "avi",
}
"""Suffix -> container format of FFmpeg."""
_RATE = Fraction(30)  # where a file does not tell its own
_MOST_PIXELS = 8192 * 8192


@dataclass(frozen=True, kw_only=True, eq=False)
class Frame:
    """One picture of a video."""

    number: int
    """Number of the frame, from 0."""
    time_s: float
    """Time since the beginning, in seconds."""
    picture: Image.Image
    """RGB, upright."""


def is_video(name: str) -> bool:
    """Return whether a name has the suffix of a video file."""
    return Path(name).suffix.lower() in CONTAINERS


@contextmanager
def opened_video(path: Path, *, every: int = 1) -> Iterator["Video"]:
    """Open a video for reading, and close it at the end.

    Args:
        every: read each n-th frame only, from the first.

    Raises:
        ImportError: PyAV is not installed.
        ValueError: the file is missing, is no video of its suffix's format, or has no picture stream.
    """
    av = _av()
    with ExitStack() as stack, _readable(av):
        file = stack.enter_context(open_regular(path))
        container = stack.enter_context(av.open(file, format=CONTAINERS[path.suffix.lower()]))
        if not container.streams.video:
            raise ValueError("the file has no video stream")
        video = Video(container, every)
        opened = stack.pop_all()
    with opened:
        yield video


class Video:
    """The frames of an open video, in order; iterate over it once."""

    def __init__(self, container: Any, every: int) -> None:
        self._container, self._every = container, every
        self._stream = container.streams.video[0]
        self._stream.thread_type = "AUTO"
        if self._stream.width * self._stream.height > _MOST_PIXELS:
            raise ValueError(f"its pictures have {self._stream.width}x{self._stream.height} pixels, which is too large")
        self.rate: Fraction = (self._stream.average_rate or _RATE) / every
        """Frames per second of those that are read."""
        self.frames: int = -(-int(self._stream.frames or 0) // every)
        """Number of frames that are read, as far as the file tells; else 0."""

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames. Raises ValueError where the file is damaged."""
        frames = self._container.decode(self._stream)
        for number in itertools.count():
            with _readable(_av()):
                frame = next(frames, None)
            if frame is None:
                return
            if number % self._every == 0:
                picture = frame.to_image()
                if turn := int(getattr(frame, "rotation", 0) or 0):
                    picture = picture.rotate(turn, expand=True)
                yield Frame(number=number, time_s=float(frame.time or 0.0), picture=picture)


class VideoFile:
    """A new video file of pictures with one size, H.264 in MP4."""

    def __init__(self, path: Path, rate: Fraction) -> None:
        self._av = _av()
        self._container = self._av.open(str(path), "w", format="mp4")
        self._rate = rate
        self._stream: Any = None

    def add(self, picture: Image.Image) -> None:
        """Append a picture; all must have the size of the first, of which an odd side loses its last pixel."""
        if self._stream is None:
            self._stream = self._container.add_stream("libx264", rate=self._rate.limit_denominator(65535))
            self._stream.width, self._stream.height = picture.width // 2 * 2, picture.height // 2 * 2
            self._stream.pix_fmt = "yuv420p"
        cut = picture.crop((0, 0, self._stream.width, self._stream.height))
        for packet in self._stream.encode(self._av.VideoFrame.from_image(cut)):
            self._container.mux(packet)

    def close(self) -> None:
        """Write what is pending, and close the file."""
        if self._stream is not None:
            for packet in self._stream.encode():
                self._container.mux(packet)
        self._container.close()


@contextmanager
def _readable(av: Any) -> Iterator[None]:
    """Turn the errors of a file that is no video into a ValueError of one line that does not repeat its name."""
    try:
        yield
    except (av.error.FFmpegError, OSError) as error:
        raise ValueError(f"it is not a readable video ({error.strerror or error})") from None


def _av() -> Any:
    try:
        import av
    except ImportError:
        raise ImportError("videos need PyAV: pip install 'mnas[video]'") from None
    return av
