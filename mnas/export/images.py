"""Real images for an export: training images to calibrate on, and validation images to compare on."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from mnas.data.held_out import Selection, Wanted, select
from mnas.data.image import Item, Pixels, UnreadableImage
from mnas.data.listing.class_table import ClassTable
from mnas.data.listing.tabled import table_of
from mnas.data.load import open_source, split_parts
from mnas.data.scored import offered_by
from mnas.data.split import shuffled
from mnas.folders import user_cache_dir
from mnas.metadata import ModelMetadata
from mnas.predict.info import ModelInfo
from mnas.predict.matching import match_classes


@dataclass(frozen=True, kw_only=True, eq=False)
class RealImages:
    """Square images of the network's input size, cropped as the network expects."""

    source: str
    """Source of the images, in words."""
    pixels: npt.NDArray[np.uint8]
    """(N, S, S, 3), RGB."""
    labels: npt.NDArray[np.int64] | None
    """Indices (N,) into the network's classes; None where the images show none of them."""

    def __len__(self) -> int:
        return len(self.pixels)


def photographs(size: int, count: int = 32) -> RealImages:
    """Return squares of many sizes and places from scikit-learn's two photographs; the same at every call."""
    from sklearn.datasets import load_sample_images

    photos = [Image.fromarray(array) for array in load_sample_images().images]
    draw = np.random.Generator(np.random.PCG64(0))
    pixels = []
    for i in range(count):
        photo = photos[i % len(photos)]
        side = int(draw.integers(min(photo.size) // 3, min(photo.size) + 1))
        x, y = (int(draw.integers(0, length - side + 1)) for length in photo.size)
        box = (x, y, x + side, y + side)
        pixels.append(np.asarray(photo.resize((size, size), Image.Resampling.BILINEAR, box=box)))
    return RealImages(
        source=f"{count} crops of scikit-learn's two sample photographs", pixels=np.stack(pixels), labels=None
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Samples:
    """Images of a data set that an export may use; files are read when they are drawn."""

    name: str
    train: Sequence[Item]
    """Images to calibrate on."""
    held_out: Sequence[Item]
    """Images to compare on."""
    selection: Selection
    """Selection that `held_out` comes from."""
    table: ClassTable
    """Number of images of each class, to calibrate on (`train`) and to compare on (`val`)."""

    def calibration(self, info: ModelMetadata, count: int, seed: int) -> RealImages:
        """Draw up to `count` images to calibrate on, by the seed."""
        kind = "images" if self.selection.part == "all" else "training images"
        return _drawn(self.train, info, count, seed, f"{kind} of {self.name}")

    def validation(self, info: ModelMetadata, count: int, seed: int) -> RealImages:
        """Draw up to `count` images to compare on, by the seed; 0 for all."""
        kind = "images" if self.selection.part == "all" else "validation images"
        return _drawn(self.held_out, info, count or len(self.held_out), seed, f"{kind} of {self.name}")


def open_samples(
    data: str,
    info: ModelMetadata,
    *,
    part: Literal["auto", "all"] = "auto",
    seed: int | None = None,
    beside: int | None = None,
    data_dir: Path | None = None,
    download: bool = False,
    ours: bool = True,
) -> Samples:
    """Return the images of a data set by name or folder, as `load_dataset` takes it, split as in the training.

    Args:
        part: `auto`: the images that the training held out, or the data's own validation part; `all`: any image.
        seed: seed of the split, for weights that do not record their training; None for the seed that they record.
        beside: seed in the settings beside weights that record no seed; see `select`.
        ours: whether mnas wrote the weights; see `select`.

    Raises:
        ValueError: see `load_dataset` and `select`; or the data's classes are not the network's (`match_classes`).
    """
    cache_dir = user_cache_dir()
    source = open_source(data, cache_dir / "downloads" if data_dir is None else data_dir, download)
    given = source.parts()
    outputs, _ = match_classes(_model_info(info), given.classes)
    wanted: Wanted = "all" if part == "all" else "val"
    selection = select(wanted, seed, offered_by(source, given), info.trained_on, ours=ours, beside=beside)
    if selection.part == "all":
        train: Sequence[Item] = [*given.train, *(given.val or ()), *(given.test or ())]
        held_out = train
    elif selection.seed is None:  # the data has a validation part
        train, held_out = given.train, given.val or ()
    else:
        record = selection.record
        per_class = 0 if record is None else record.max_images_per_class
        _, parts = split_parts(source, selection.seed, per_class, cache_dir)
        train, held_out = parts["train"], parts["val"]
    return Samples(
        name=source.name,
        train=_relabelled(train, outputs),
        held_out=_relabelled(held_out, outputs),
        selection=selection,
        table=table_of(source.name, given.classes, {"train": train, "val": held_out}, source.listing),
    )


def _model_info(info: ModelMetadata) -> ModelInfo:
    return ModelInfo(
        format="mnas",
        classes=info.classes,
        outputs=len(info.classes),
        input_size=info.input_size,
        mean=info.mean,
        std=info.std,
        crop=info.crop,
        arch=info.arch,
        probabilities=False,
        size_bytes=0,
    )


def _relabelled(items: Sequence[Item], outputs: npt.NDArray[np.int64]) -> Sequence[Item]:
    """Return the images with the network's class numbers instead of the data's."""
    if np.array_equal(outputs, np.arange(len(outputs))):
        return items
    return [dataclasses.replace(item, label=int(outputs[item.label])) for item in items]


def _drawn(items: Sequence[Item], info: ModelMetadata, count: int, seed: int, what: str) -> RealImages:
    """Return the first `count` readable items in an order drawn from the seed."""
    if count < 1:
        raise ValueError(f"a comparison or calibration needs 1 or more {what}, but got {count}")
    pixels: list[Pixels] = []
    labels: list[int] = []
    for item in shuffled(items, seed):
        if len(pixels) == count:
            break
        try:
            pixels.append(dataclasses.replace(item, crop=info.crop).pixels(info.input_size))
        except UnreadableImage:
            continue
        labels.append(item.label)
    if not pixels:
        raise ValueError(f"at least one of the {what} must be readable, but none is")
    return RealImages(source=f"{len(pixels)} {what}", pixels=np.stack(pixels), labels=np.array(labels, np.int64))
