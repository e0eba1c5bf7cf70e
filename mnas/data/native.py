"""The size at which a data set is trained on unless somebody says otherwise."""

import statistics
from pathlib import Path

from mnas.data.decoding.decoders import opened
from mnas.data.decoding.depth import UnreadableImage
from mnas.data.listing.folder import folder_source
from mnas.data.listing.given import data_folder

NATIVE_SIZES = {"digits": 16, "cifar10": 32, "fashion-mnist": 32, "imagenet": 224}
"""Pixels; digits are 8 x 8, which no skeleton of the paper's depth can work on."""


def native_size(data: str) -> int:
    """Side in pixels at which a data set is searched unless told: a folder's median image, from 16 up to 224."""
    if data in NATIVE_SIZES:
        return NATIVE_SIZES[data]
    try:
        path = data_folder(data, NATIVE_SIZES)
    except ValueError:
        return 224  # it makes no difference: loading it will say what is wrong
    images = folder_source(path).parts().train
    sides = []
    for item in images[:: max(1, len(images) // 100)]:
        assert isinstance(item.content, Path)
        try:
            with opened(item.content) as image:
                sides.append(min(image.stored_size))
        except UnreadableImage:  # counted later
            continue
    return min(224, max(16, int(statistics.median(sides)))) if sides else 224
