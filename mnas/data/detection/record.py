"""The images of a detection data set with their boxes, as every reader returns them."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from mnas.data.content.digests import content_of
from mnas.data.detection.faults import DataFault
from mnas.data.source import digests_of
from mnas.training_data import STAT, TrainingData, printable_name

DetectionPart = Literal["train", "val", "test"]


@dataclass(frozen=True, kw_only=True, eq=False)
class BoxedImage:
    """An image and its boxes, in pixels of the upright image."""

    path: Path
    name: str
    """Path relative to the data, for messages."""
    image_id: int
    """Number of the image in COCO JSON; unique within its part."""
    width: int
    height: int
    boxes: npt.NDArray[np.float32]
    """(N, 4): x1, y1, x2, y2, inside the image, each box of positive size."""
    labels: npt.NDArray[np.int64]
    """(N,): class of each box, from 0."""
    crowd: npt.NDArray[np.bool_]
    """(N,): whether the box surrounds a crowd of objects, in which a detection counts neither as right nor as wrong."""
    areas: npt.NDArray[np.float32]
    """(N,): area of each object in square pixels, from its segmentation if the data has one, else of its box.
    COCO's metrics by size use it."""
    size_bytes: int
    """Size of the file, in bytes."""


@dataclass(frozen=True, kw_only=True, eq=False)
class DetectionData:
    """A detection data set. Its parts may be empty, except for `train` where a training asked for it."""

    name: str
    layout: Literal["coco", "voc", "yolo"]
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    """Number of each class in COCO JSON: that of the data's own JSON; for other layouts 1, 2, ..."""
    train: tuple[BoxedImage, ...]
    val: tuple[BoxedImage, ...]
    test: tuple[BoxedImage, ...]
    seed: int
    """Seed that drew the validation images."""
    held_out: bool
    """Whether the validation images were drawn from the training images; else the data has its own."""
    faults: tuple[DataFault, ...]
    """Faults of the data that mnas worked around, the most frequent first."""
    unreadable: tuple[str, ...]
    """One line for each omitted image that is not readable: its name and the reason."""

    @property
    def parts(self) -> dict[DetectionPart, tuple[BoxedImage, ...]]:
        """The images of each part that is not empty."""
        every: dict[DetectionPart, tuple[BoxedImage, ...]] = {"train": self.train, "val": self.val, "test": self.test}
        return {part: images for part, images in every.items() if images}

    @property
    def fingerprint(self) -> str:
        """Digest of classes, parts, file names and sizes, and all boxes: 16 hexadecimal digits."""
        digest = hashlib.sha256(json.dumps(["boxes 1", self.classes, self.category_ids]).encode())
        for part, images in self.parts.items():
            digest.update(f"\n{part} {len(images)}\n".encode())
            for image in images:
                values = [image.name, image.size_bytes, image.image_id, image.width, image.height, len(image.boxes)]
                digest.update(json.dumps(values).encode())
                for array in (image.boxes, image.labels, image.crowd, image.areas):
                    digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:16]

    @property
    def by_stat(self) -> str:
        """`stat:` and `fingerprint`, which stands for `content` where reading all files would take too long."""
        return f"{STAT}{self.fingerprint}"

    def content(self, cache_dir: Path | None) -> str:
        """Return a digest of classes, boxes, and names and bytes of all image files, 64 hexadecimal digits.

        The split makes no difference to it if the validation images were drawn.

        Args:
            cache_dir: folder for cached digests of files; None: read every file.

        Raises OSError for a file that cannot be read.
        """
        merged: dict[str, Sequence[BoxedImage]] = dict(self.parts.items())
        if self.held_out:
            merged = {"train": [*self.train, *self.val], **({"test": self.test} if self.test else {})}
        sha256 = digests_of([str(image.path) for images in merged.values() for image in images], cache_dir)
        named = {
            part: [(image.name, _with_boxes(image, sha256[str(image.path)])) for image in images]
            for part, images in merged.items()
        }
        return content_of(self.classes, named)

    def training_data(self, content: str) -> TrainingData:
        """Return the record of a training on these images, for the model's file.

        Args:
            content: result of `content`, or `by_stat`.
        """
        return TrainingData(
            name=printable_name(self.name),
            content=content,
            images=sum(map(len, self.parts.values())),
            seed=self.seed,
            max_images_per_class=0,
            held_out=self.held_out,
        )


def count_objects(images: Sequence[BoxedImage]) -> int:
    """Return the number of boxes that are no crowds, which COCO's metrics need one of."""
    return sum(int((~image.crowd).sum()) for image in images)


def _with_boxes(image: BoxedImage, sha256: bytes) -> bytes:
    """Return a digest of a file and its boxes, which change without it."""
    digest = hashlib.sha256(sha256)
    for array in (image.boxes, image.labels, image.crowd):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.digest()
