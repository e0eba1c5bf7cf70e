"""Write pictures to a folder under the names of the images that they show, and say how many could not be read."""

import io
import itertools
import re
from collections.abc import Sequence
from pathlib import Path

from PIL.Image import Image

from mnas.atomic import write_atomic
from mnas.data.web import is_url
from mnas.predict.video import is_video
from mnas.text import counted


def free_path(folder: Path, name: str, suffix: str) -> Path:
    """Return FOLDER/NAME with the suffix for the image at a path or URL, or NAME-2, NAME-3 where that exists."""
    last = re.split(r"[/\\]", name.split("?")[0].rstrip("/") if is_url(name) else name)[-1]
    stem = re.sub(r"[^\w. -]", "_", Path(last).stem)[:60] or "image"  # file systems limit names to 255 bytes
    path = folder / f"{stem}{suffix}"
    for number in itertools.count(2):
        if not path.exists():
            break
        path = folder / f"{stem}-{number}{suffix}"
    return path


def unread_line(unread: int, names: Sequence[str]) -> str:
    """Return how many of the named images and videos could not be read."""
    videos = sum(map(is_video, names))
    noun = "image" if not videos else "video" if videos == len(names) else "images and video"
    return f"{unread:,} of {counted(len(names), noun)} could not be read"


def write_picture(folder: Path, name: str, picture: Image) -> None:
    """Write the picture as a .jpg file at its `free_path`. Raises OSError."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=92)
    write_atomic(free_path(folder, name, ".jpg"), file.getvalue())
