"""Real images for an export: some of the training part to calibrate on, some of the validation part to compare on."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from mnas.data.cache import user_cache_dir
from mnas.data.image import DAMAGED, Item, Pixels, read_image, square
from mnas.data.load import MOST_VAL_IMAGES, VAL_SHARE
from mnas.data.source import NAMED, folder_source
from mnas.data.split import hold_out, shuffled
from mnas.nn.weights import WeightsInfo


@dataclass(frozen=True, kw_only=True, eq=False)
class RealImages:
    """Squares of the network's input size, cropped as the network is to see them."""

    source: str
    """Where they are from, for people."""
    pixels: npt.NDArray[np.uint8]
    """(N, S, S, 3), RGB."""
    labels: npt.NDArray[np.int64] | None
    """(N,) indices into the network's classes; None where they show none of them."""

    def __len__(self) -> int:
        return len(self.pixels)


def photographs(size: int, count: int = 32) -> RealImages:
    """Squares of many sizes and places, cut from the two photographs that scikit-learn ships; the same every time."""
    from sklearn.datasets import load_sample_images

    photos = [Image.fromarray(array) for array in load_sample_images().images]
    draw = np.random.Generator(np.random.PCG64(0))
    pixels = []
    for i in range(count):
        photo = photos[i % len(photos)]
        side = int(draw.integers(min(photo.size) // 3, min(photo.size) + 1))
        left, top = (int(draw.integers(0, length - side + 1)) for length in photo.size)
        box = (left, top, left + side, top + side)
        pixels.append(np.asarray(photo.resize((size, size), Image.Resampling.BILINEAR, box=box)))
    return RealImages(
        source=f"{count} cuts of scikit-learn's two sample photographs", pixels=np.stack(pixels), labels=None
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Samples:
    """What of a data set an export may look at; files are read when they are drawn."""

    name: str
    train: Sequence[Item]
    val: Sequence[Item]

    def calibration(self, info: WeightsInfo, count: int, seed: int) -> RealImages:
        """Up to `count` training images drawn from the seed."""
        return _drawn(self.train, info, count, seed, f"training images of {self.name}")

    def validation(self, info: WeightsInfo, count: int, seed: int) -> RealImages:
        """Up to `count` validation images drawn from the seed; 0 for all."""
        return _drawn(self.val, info, count or len(self.val), seed, f"validation images of {self.name}")


def open_samples(
    data: str, info: WeightsInfo, *, seed: int, data_dir: Path | None = None, download: bool = False
) -> Samples:
    """A data set by name or folder, as `load_dataset` takes it, and split by it in the same way for the same seed.

    Raises:
        ValueError: as `load_dataset`, or the data has other classes than the network.
    """
    if data in NAMED:
        source = NAMED[data](user_cache_dir() / "downloads" if data_dir is None else data_dir, download)
    else:
        path = Path(data).expanduser()
        if not path.exists():
            raise ValueError(f"data must be a folder or one of {', '.join(NAMED)}, but got {data!r} (no such folder)")
        source = folder_source(path)
    parts = source.parts()
    if parts.classes != info.classes:
        raise ValueError(
            f"data must have the classes that the network was trained on ({_classes(info.classes)}), "
            f"but got {_classes(parts.classes)} in {data!r}"
        )
    train, val = parts.train, parts.val
    if val is None:
        train, val = hold_out(train, parts.classes, VAL_SHARE, MOST_VAL_IMAGES, seed)
    return Samples(name=source.name, train=train, val=val)


def _classes(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return f"{len(names)}: {shown}{', ...' if len(names) > 3 else ''}"


def _drawn(items: Sequence[Item], info: WeightsInfo, count: int, seed: int, what: str) -> RealImages:
    """The first `count` of the items in an order drawn from the seed, without those that cannot be read."""
    if count < 1:
        raise ValueError(f"images must be 1 or more, but got {count}")
    pixels: list[Pixels] = []
    labels: list[int] = []
    for item in shuffled(items, seed):
        if len(pixels) == count:
            break
        try:
            pixels.append(_square_of(item, info))
        except DAMAGED:
            continue
        labels.append(item.label)
    if not pixels:
        raise ValueError(f"images must be readable, but got none among the {what}")
    return RealImages(source=f"{len(pixels)} {what}", pixels=np.stack(pixels), labels=np.array(labels, np.int64))


def _square_of(item: Item, info: WeightsInfo) -> Pixels:
    if isinstance(item.content, Path):
        return read_image(item.content, info.input_size, info.crop)
    return square(Image.fromarray(item.content), info.input_size, info.crop)
