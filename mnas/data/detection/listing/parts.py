"""Names of the parts of a detection data set."""

import re

PARTS = ("train", "val", "test")
WORDS = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "minival", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""Word -> the part that it names."""


def part_of(name: str) -> str:
    """Return the part that a name such as `instances_val2017` or `valid` stands for; empty for other names."""
    words = [word for word in re.split(r"[^a-z]+", name.lower()) if word]
    parts = {WORDS[word] for word in words if word in WORDS}
    return parts.pop() if len(parts) == 1 else ""
