"""Hold images out of every class, by a seed or by their names."""

import hashlib
import os
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from mnas.data.image import Item

T = TypeVar("T")


def by_class(items: Sequence[Item], classes: Sequence[str]) -> list[list[Item]]:
    """Return the items of each class, in order."""
    groups: list[list[Item]] = [[] for _ in classes]
    for item in items:
        groups[item.label].append(item)
    return groups


def shuffled(values: Sequence[T], *seed: int) -> list[T]:
    """Return the values in an order drawn from `seed`."""
    order = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed))).permutation(len(values))
    return [values[i] for i in order]


def hold_out(
    items: Sequence[Item], classes: Sequence[str], share: float, most: int, seed: int
) -> tuple[list[Item], list[Item]]:
    """Return (remaining, held-out) items: `share` of every class, at least one image per class on both sides.

    At most about `most` images are held out. The draw of a class depends only on the seed and its own items, so that it
    does not change when another class grows.

    Raises:
        ValueError: a class has fewer than two images.
    """
    share = min(share, most / max(1, len(items)))
    remaining: list[Item] = []
    held: list[Item] = []
    for label, group in enumerate(by_class(items, classes)):
        if len(group) < 2:
            raise ValueError(
                f"--data must have at least 2 images in each class, as one is held out for validation, but class "
                f"{classes[label]!r} has {len(group)}"
            )
        count = min(max(1, round(len(group) * share)), len(group) - 1)
        order = shuffled(group, seed, label)
        held += order[:count]
        remaining += order[count:]
    return remaining, held


def hold_out_exactly(items: Sequence[Item], classes: Sequence[str], count: int) -> tuple[list[Item], list[Item]]:
    """Return (remaining, held-out) items: `count` images, from every class its share to the nearest image.

    The images of a class with the smallest SHA-256 of their names are held out, so that the choice does not depend on
    a seed, the order of files or a library's generator.
    """
    groups = by_class(items, classes)
    exact = [count * len(group) / len(items) for group in groups]
    counts = [int(share) for share in exact]
    remainders = sorted(range(len(groups)), key=lambda label: (counts[label] - exact[label], label))
    for label in remainders[: count - sum(counts)]:
        counts[label] += 1
    remaining: list[Item] = []
    held: list[Item] = []
    for group, number in zip(groups, counts, strict=True):
        order = sorted(group, key=lambda item: hashlib.sha256(os.fsencode(item.name)).digest())
        held += order[:number]
        chosen = {item.name for item in order[:number]}
        remaining += [item for item in group if item.name not in chosen]
    return remaining, held


def at_most(items: Sequence[Item], classes: Sequence[str], per_class: int, seed: int) -> list[Item]:
    """Return at most `per_class` images of every class, drawn from the seed; all images if `per_class` is 0."""
    if per_class == 0:
        return list(items)
    groups = by_class(items, classes)
    return [item for label, group in enumerate(groups) for item in shuffled(group, seed, label)[:per_class]]
