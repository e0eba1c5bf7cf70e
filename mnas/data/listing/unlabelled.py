"""A folder of images without labels, for distillation."""

from pathlib import Path

from mnas.data.image import Item
from mnas.data.listing.class_table import Listing, left_out_of
from mnas.data.listing.walk import images_below
from mnas.data.named import IMAGENET_MOMENTS
from mnas.data.source import Parts, Source

_CLASS = "unlabelled"


def unlabelled_source(folder: Path) -> Source:
    """Return all images below `folder` as the training part of a data set with one class.

    Raises:
        ValueError: the folder is missing, cannot be read, or contains no images.
    """
    if not folder.is_dir():
        what = "a file" if folder.exists() else "no such folder"
        raise ValueError(f"--unlabelled must be a folder of images, but got {str(folder)!r} ({what})")
    left_out: list[tuple[str, str, str]] = []
    try:
        rows = images_below(folder, lambda reason, name: left_out.append((reason, _CLASS, name)))
    except OSError as error:
        raise ValueError(f"--unlabelled {str(folder)!r} cannot be read ({error.strerror or error})") from None
    if not rows:
        raise ValueError(f"--unlabelled must be a folder of images (jpg, png, ...), but {str(folder)!r} has none")
    items = [Item(name=name, label=0, content=folder / name, size_bytes=size) for name, size, _ in rows]
    return Source(
        name=folder.resolve().name,
        classes=(_CLASS,),
        identity={"train": [list(row) for row in rows]},
        flip=True,
        own_val=True,
        files=lambda: {"train": [(name, str(folder / name)) for name, _, _ in rows]},
        parts=lambda: Parts(classes=(_CLASS,), train=items, val=[], test=None),
        moments=IMAGENET_MOMENTS,  # unused: a training normalises all images alike
        listing=Listing(left_out=left_out_of(left_out)),
    )
