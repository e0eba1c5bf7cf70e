"""The pixels of images at a bounded size, decoded once and memory-mapped, or decoded whenever they are asked for.

An entry of the cache is a folder `NAME-SIZEpx-KEY/` as in `mnas.data.cache`. It has the pixels of all images one after
another (`images.u8`), their shapes (`index.json`) and a seal. Its key is a digest of the files' content.
"""

import contextlib
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from filelock import FileLock
from PIL import Image

from mnas.data.content.digests import ContentChangedError, changing_files, verified
from mnas.data.decoding.decoders import Encoded, opened
from mnas.data.detection.record import BoxedImage
from mnas.data.entry import IMAGES, INDEX, SEAL, seal, stat_of, synced
from mnas.data.image import Pixels, UnreadableImage, reason
from mnas.readers import open_regular, read_json

PixelForm = Literal["bounded", "square"]
"""bounded: the longer side has at most `size` pixels. square: both sides have `size` pixels, whatever the shape."""

MOST_CACHED_BYTES = 8_000_000_000
"""Largest entry of the cache; more images are decoded whenever they are asked for."""
_VERSION = 1
_BLOCK = 1 << 24
_AHEAD = 64  # images that are decoded at once before they are written; bounds the memory
_INDEX_BYTES = 1 << 30


def read_stretched(content: Encoded, size: int) -> tuple[Pixels, tuple[int, int]]:
    """Return an upright image, resized to a square with antialiasing, and its own width and height.

    The aspect ratio changes, as in SSD. Pixels are uint8 (size, size, 3), RGB. Raises UnreadableImage.
    """
    with opened(content) as image:
        width, height = image.size
        rgb = image.rgb((2 * size, 2 * size))
    return stretched(rgb, size), (width, height)


def stretched(picture: Image.Image, size: int) -> Pixels:
    """Return a picture (RGB) as `read_stretched` does."""
    return np.array(picture.resize((size, size), Image.Resampling.BILINEAR))  # torch expects writable memory


def _read_bounded(content: Encoded, shape: tuple[int, int, int]) -> Pixels:
    """Return an upright image, resized with antialiasing to the shape. Raises UnreadableImage."""
    height, width, _ = shape
    with opened(content) as image:
        rgb = image.rgb((2 * width, 2 * height))
    return np.array(rgb if rgb.size == (width, height) else rgb.resize((width, height), Image.Resampling.BILINEAR))


@dataclass(frozen=True, kw_only=True, eq=False)
class PixelSource:
    """The pixels of images, by their places in the sequence from which it was opened."""

    images: Sequence[BoxedImage]
    form: PixelForm
    size: int
    file: Path | None
    """File with all pixels; None: images are decoded whenever they are asked for."""
    unreadable: Mapping[int, str]
    """Place -> reason, for images that cannot be decoded; empty without a file."""

    def __post_init__(self) -> None:
        ends = np.cumsum([0, *(int(np.prod(self.shape(place))) for place in range(len(self.images)))])
        object.__setattr__(self, "_ends", ends)
        object.__setattr__(self, "_mapped", None)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_mapped": None}  # every process maps the file itself

    def shape(self, place: int) -> tuple[int, int, int]:
        """Return height, width and 3."""
        if self.form == "square":
            return self.size, self.size, 3
        width, height = self.images[place].width, self.images[place].height
        scale = min(1.0, self.size / max(width, height))
        return max(1, round(height * scale)), max(1, round(width * scale)), 3

    @property
    def total_bytes(self) -> int:
        """Size of all pixels."""
        return int(self._ends[-1])  # type: ignore[attr-defined]

    def pixels(self, place: int) -> Pixels:
        """Return an image, uint8 of its `shape`. Raises UnreadableImage."""
        if self.file is None:
            return self.decoded(place, self.images[place].path)
        if place in self.unreadable:
            raise UnreadableImage(self.unreadable[place])
        mapped: Pixels | None = self._mapped  # type: ignore[attr-defined]
        if mapped is None:
            mapped = np.memmap(self.file, dtype=np.uint8, mode="c")  # copy on write: torch expects writable memory
            object.__setattr__(self, "_mapped", mapped)
        start, end = self._ends[place : place + 2]  # type: ignore[attr-defined]
        return mapped[start:end].reshape(self.shape(place))

    def decoded(self, place: int, content: Encoded) -> Pixels:
        """Return the image, decoded from `content`. Raises UnreadableImage."""
        if self.form == "square":
            return read_stretched(content, self.size)[0]
        return _read_bounded(content, self.shape(place))


def open_pixels(
    images: Sequence[BoxedImage],
    form: PixelForm,
    size: int,
    *,
    cache_dir: Path,
    name: str,
    sha256: Mapping[str, bytes],
    most_bytes: int = MOST_CACHED_BYTES,
    on_image: Callable[[], None] = lambda: None,
) -> PixelSource:
    """Return the pixels of images; they are decoded now unless the cache has them, or they take too much space.

    Args:
        size: see `PixelForm`.
        name: start of the name of the cache's folder.
        sha256: path -> digest of each file, which identifies the entry.
        most_bytes: largest entry; 0: no cache.
        on_image: is called after each image that is decoded.

    Raises:
        ValueError: a file changes meanwhile, or the cache folder cannot be written.
    """
    plain = PixelSource(images=images, form=form, size=size, file=None, unreadable={})
    if not images or plain.total_bytes > most_bytes:
        return plain
    described = [_VERSION, form, size, [sha256[str(image.path)].hex() for image in images]]
    key = hashlib.sha256(json.dumps(described).encode()).hexdigest()
    ending = f"-{size}px-{form}-{key[:32]}"
    folder = min(cache_dir.glob(f"*{ending}"), default=cache_dir / f"{name}{ending}")
    try:
        unreadable = _opened(folder, key, plain)
        if unreadable is None:
            cache_dir.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{folder}.lock"):
                unreadable = _opened(folder, key, plain)  # another process may have built it during the wait
                if unreadable is None and shutil.disk_usage(cache_dir).free < 1.1 * plain.total_bytes:
                    return plain
                if unreadable is None:
                    unreadable = _build(folder, key, plain, sha256, on_image)
    except ContentChangedError as error:
        raise ValueError(changing_files(error, 1)) from None
    except OSError as error:
        raise ValueError(
            f"cannot write to the cache folder {str(cache_dir)!r} ({error.strerror or error}); free some disk space, "
            "or set XDG_CACHE_HOME to another folder"
        ) from None
    return PixelSource(images=images, form=form, size=size, file=folder / IMAGES, unreadable=unreadable)


def _opened(folder: Path, key: str, plain: PixelSource) -> dict[int, str] | None:
    """Return the unreadable images of an entry; None if it is missing or damaged, which is logged."""
    if not folder.is_dir():
        return None
    try:
        with open_regular(folder / IMAGES) as images, open_regular(folder / INDEX) as index:
            stats = {IMAGES: stat_of(os.fstat(images.fileno())), INDEX: stat_of(os.fstat(index.fileno()))}
            sealed = read_json(folder / SEAL)
            content = index.read(_INDEX_BYTES)
            values = json.loads(content)
            if stats[IMAGES][1] != plain.total_bytes or values["key"] != key:
                raise ValueError("it belongs to other images")
            if sealed["stats"] != stats:  # the cache was copied, or a file was changed
                if hashlib.sha256(content).hexdigest() != sealed["index"]:
                    raise ValueError(f"{INDEX} was changed")
                digest = hashlib.sha256()
                while block := images.read(_BLOCK):
                    digest.update(block)
                if digest.hexdigest() != sealed["pixels"]:
                    raise ValueError(f"{IMAGES} was changed")
            return {int(place): str(why) for place, why in values["unreadable"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        logging.getLogger(__name__).warning(
            "The cached images in %s are damaged (%s). Decoding the images again.", folder, reason(error)
        )
        return None


def _build(
    folder: Path, key: str, plain: PixelSource, sha256: Mapping[str, bytes], on_image: Callable[[], None]
) -> dict[int, str]:
    """Decode all images into the entry, and return (place, reason) of the unreadable ones."""
    temporary = Path(f"{folder}.tmp")
    for stale in (temporary, folder):
        shutil.rmtree(stale, ignore_errors=True)
        with contextlib.suppress(FileNotFoundError):
            stale.unlink()
    temporary.mkdir()

    def decode(place: int) -> Pixels | str:
        path = str(plain.images[place].path)
        try:
            with verified(path, sha256[path]) as file:
                return plain.decoded(place, file)
        except (UnreadableImage, OSError) as error:
            return reason(error)

    unreadable: dict[int, str] = {}
    digest = hashlib.sha256()
    try:
        with (temporary / IMAGES).open("wb") as file, ThreadPoolExecutor(os.cpu_count()) as pool:
            for start in range(0, len(plain.images), _AHEAD):
                places = range(start, min(start + _AHEAD, len(plain.images)))
                for place, pixels in zip(places, pool.map(decode, places), strict=True):
                    if isinstance(pixels, str):
                        unreadable[place] = pixels
                        pixels = np.zeros(plain.shape(place), np.uint8)
                    content = pixels.tobytes()
                    digest.update(content)
                    file.write(content)
                    on_image()
            synced(file)
        with (temporary / INDEX).open("wb") as file:
            file.write(json.dumps({"key": key, "unreadable": list(unreadable.items())}).encode())
            synced(file)
        seal(temporary, digest.hexdigest())
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return unreadable
