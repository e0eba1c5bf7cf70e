"""The default input size of a data set, and the number of its images, without decoding them."""

import statistics
from pathlib import Path

from mnas.data.decoding.decoders import opened
from mnas.data.decoding.depth import UnreadableImage
from mnas.data.listing.folder import folder_source
from mnas.data.listing.given import data_folder
from mnas.data.load import split_parts
from mnas.folders import user_cache_dir

NATIVE_SIZES = {"digits": 16, "cifar10": 32, "fashion-mnist": 32, "imagenet": 224}
"""Data set -> default input size in pixels; digits are 8 x 8, too small for a skeleton of the paper's depth."""


def native_size(data: str) -> int:
    """Return the default input size of a data set in pixels; for a folder its median image side, from 16 to 224."""
    if data in NATIVE_SIZES:
        return NATIVE_SIZES[data]
    try:
        path = data_folder(data, NATIVE_SIZES)
    except ValueError:
        return 224  # any value: loading the data reports the fault
    images = folder_source(path).parts().train
    sides = []
    for item in images[:: max(1, len(images) // 100)]:
        assert isinstance(item.content, Path)
        try:
            with opened(item.content) as image:
                sides.append(min(image.stored_size))
        except UnreadableImage:  # loading the data counts it
            continue
    return min(224, max(16, int(statistics.median(sides)))) if sides else 224


def count_training(data: str, seed: int) -> int:
    """Return the number of training images in a folder, without those held out by `seed`; 0 if it cannot be read."""
    try:
        source = folder_source(data_folder(data, NATIVE_SIZES))
        return len(split_parts(source, seed, 0, user_cache_dir())[1]["train"])
    except (ValueError, OSError):  # loading the data reports the fault
        return 0
