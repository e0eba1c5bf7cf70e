"""The class table of images that are listed but not decoded yet."""

from collections.abc import Mapping, Sequence

from mnas.counts import class_counts
from mnas.data.image import Item
from mnas.data.listing.class_table import ClassTable, Listing


def table_of(name: str, classes: Sequence[str], parts: Mapping[str, Sequence[Item]], listing: Listing) -> ClassTable:
    """Return the table of the items of each part."""
    images = {part: class_counts([item.label for item in items], len(classes)) for part, items in parts.items()}
    counts = {part: len(items) for part, items in parts.items()}
    return ClassTable(name=name, classes=tuple(classes), counts=counts, images=images, listing=listing)
