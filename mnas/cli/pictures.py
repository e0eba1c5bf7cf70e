"""Write pictures to a folder under the names of the images that they show."""

import io
import itertools
import re
from pathlib import Path

from PIL.Image import Image

from mnas.atomic import write_atomic
from mnas.data.web import is_url


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


def write_picture(folder: Path, name: str, picture: Image) -> None:
    """Write the picture as a .jpg file at its `free_path`. Raises OSError."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=92)
    write_atomic(free_path(folder, name, ".jpg"), file.getvalue())
