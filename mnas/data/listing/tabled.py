"""The table of classes of images that are listed and not yet decoded."""

from collections import Counter
from collections.abc import Mapping, Sequence

from mnas.data.image import Item
from mnas.data.listing.class_table import ClassTable, Listing


def table_of(name: str, classes: Sequence[str], parts: Mapping[str, Sequence[Item]], listing: Listing) -> ClassTable:
    """Return the table of the items of each part."""
    images = {}
    for part, items in parts.items():
        found = Counter(item.label for item in items)
        images[part] = tuple(found[label] for label in range(len(classes)))
    counts = {part: len(items) for part, items in parts.items()}
    return ClassTable(name=name, classes=tuple(classes), counts=counts, images=images, listing=listing)
