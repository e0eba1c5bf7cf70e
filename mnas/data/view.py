"""Views of one image in training and evaluation, for worker processes that decode on the fly.

All draws depend on (seed, epoch, image), and so not on the workers or on earlier images.
"""

import math
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from mnas.data.augment import erase, generator_of, seed_of
from mnas.data.augmentation import Augmentation
from mnas.data.decoding.decoders import Opened, opened
from mnas.data.image import Pixels, read_image, square

Content = Path | bytes | Pixels
"""Path of a file, its bytes, or pixels (H, W) or (H, W, 3)."""

_ASPECT = (3 / 4, 4 / 3)  # Szegedy et al., arXiv:1409.4842, and the published MnasNet code
_DRAWS, _ERASED = 16, 17  # purpose of a seed, its first number (below 16: those of `mnas.data.batches`)


@dataclass(frozen=True, kw_only=True)
class ImageView:
    """The crop, size and augmentation of images. Raises ValueError if a field is out of range."""

    size: int
    """Side of the result, in pixels."""
    crop: float
    """Side of the evaluation's crop as a share of an image's centre square."""
    augmentation: Augmentation
    flip: bool
    """Whether training mirrors half of the images."""
    seed: int

    def __post_init__(self) -> None:
        if type(self.size) is not int or not 8 <= self.size <= 1024:
            raise ValueError(f"--input-size must be an integer from 8 to 1024, but got {self.size!r}")
        if not 0 < self.crop <= 1:
            raise ValueError(f"--crop must be above 0 and at most 1, but got {self.crop!r}")
        if self.augmentation.auto_augment:
            _policy(self.augmentation.auto_augment, self.size)

    def scored(self, content: Content) -> Pixels:
        """Return the centre crop for evaluation, uint8 (size, size, 3). Raises UnreadableImage."""
        if isinstance(content, np.ndarray):
            return square(Image.fromarray(content).convert("RGB"), self.size, self.crop)
        return read_image(content, self.size, self.crop)

    def varied(self, content: Content, epoch: int, image: int) -> Pixels:
        """Return the image, augmented by (seed, epoch, image): uint8 (size, size, 3). Raises UnreadableImage."""
        how, seed = self.augmentation, (self.seed, epoch, image)
        with _seeded(seed_of(_DRAWS, *seed), arrays=bool(how.auto_augment)):
            seen = self._cropped(content) if how.kind == "inception" else self._shifted(content)
            if how.auto_augment:
                seen = _policy(how.auto_augment, self.size)(seen)
        pixels = np.array(seen)
        if how.random_erasing:
            erase(torch.from_numpy(pixels)[None], how.random_erasing, generator_of(_ERASED, *seed))
        return pixels

    def _shifted(self, content: Content) -> Image.Image:
        """Return the image shifted by up to a sixteenth, its border reflected, as `mnas.data.augment.augment` does."""
        padding = self.size // 16
        padded = np.pad(self.scored(content), ((padding, padding), (padding, padding), (0, 0)), mode="reflect")
        row, column = random.randint(0, 2 * padding), random.randint(0, 2 * padding)
        return self._mirrored(Image.fromarray(padded[row : row + self.size, column : column + self.size]))

    def _cropped(self, content: Content) -> Image.Image:
        if isinstance(content, np.ndarray):
            rgb = Image.fromarray(content).convert("RGB")
            crop = self._resized(rgb, rgb.size, self._box(rgb.size))
        else:
            with opened(content) as image:
                crop = self._resized_crop(image)
        return self._mirrored(crop)

    def _mirrored(self, image: Image.Image) -> Image.Image:
        return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if self.flip and random.random() < 0.5 else image

    def _resized_crop(self, image: Opened) -> Image.Image:
        """Return timm's random-resized crop, which is drawn before the image is decoded."""
        box = self._box(image.size)
        factor = min(box[2], box[3]) / self.size
        least = None
        if factor >= 2:  # a JPEG is decoded at a fraction of its size, with enough pixels for the crop
            width, height = image.size
            least = math.ceil(width / factor), math.ceil(height / factor)
        return self._resized(image.rgb(least), image.size, box)

    def _box(self, size: tuple[int, int]) -> tuple[int, int, int, int]:
        """Return (left, top, width, height) of a random crop of an image of (width, height)."""
        width, height = size
        upright = torch.empty((height, width), device="meta")  # timm reads only its shape
        scale = (self.augmentation.scale_low, 1.0)
        y, x, rows, columns = _crops().get_params(upright, scale, _ASPECT)
        return x, y, columns, rows

    def _resized(self, rgb: Image.Image, size: tuple[int, int], box: tuple[int, int, int, int]) -> Image.Image:
        """Return the resized crop `box` of an image of `size`, which may have been decoded at a smaller size."""
        (width, height), (x, y, columns, rows) = size, box
        x0, x1 = x * rgb.width / width, (x + columns) * rgb.width / width
        y0, y1 = y * rgb.height / height, (y + rows) * rgb.height / height
        outer = math.floor(x0), math.floor(y0), math.ceil(x1), math.ceil(y1)
        inner = x0 - outer[0], y0 - outer[1], x1 - outer[0], y1 - outer[1]
        # As in timm, crop first: resizing with a box alone mixes in pixels from outside it.
        return rgb.crop(outer).resize((self.size, self.size), Image.Resampling.BILINEAR, box=inner)


def _crops() -> Any:
    from timm.data.transforms import RandomResizedCropAndInterpolation  # takes seconds, and scoring does not need it

    return RandomResizedCropAndInterpolation


@cache
def _policy(config: str, size: int) -> Callable[[Image.Image], Image.Image]:
    """Return timm's transform of that name, for images of `size` pixels. Raises ValueError for an unknown name."""
    from timm.data import auto_augment

    makers = {"rand": auto_augment.rand_augment_transform, "augmix": auto_augment.augment_and_mix_transform}
    make = makers.get(config.split("-")[0], auto_augment.auto_augment_transform)
    try:
        policy: Callable[[Image.Image], Image.Image] = make(config, {"translate_const": int(size * 0.45)})
    except (AssertionError, ValueError, KeyError) as error:
        raise ValueError(
            "--auto-augment must be a policy of timm, such as rand-m9-mstd0.5-inc1 or augmix-m3-w3, but got "
            f"{config!r} ({str(error) or 'unknown'})"
        ) from None
    return policy


@contextmanager
def _seeded(seed: int, *, arrays: bool) -> Iterator[None]:
    """Seed the global generators, from which timm's transforms draw, and restore them afterwards.

    Args:
        arrays: also seed numpy's, which takes as long as decoding a small image.
    """
    before = random.getstate()
    before_arrays = np.random.get_state() if arrays else None
    random.seed(seed)
    if arrays:
        np.random.seed(seed % 2**32)
    try:
        yield
    finally:
        random.setstate(before)
        if before_arrays is not None:
            np.random.set_state(before_arrays)
