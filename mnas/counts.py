"""Numbers of images per class, and the scores that follow from them alone."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def class_counts(labels: npt.ArrayLike, classes: int) -> tuple[int, ...]:
    """Return the number of images of each class, for labels 0 to `classes` - 1."""
    return tuple(np.bincount(np.asarray(labels, np.int64), minlength=classes).tolist())


def largest_class(counts: Sequence[int]) -> int:
    """Return the class with the most images, the first one in a tie."""
    return max(range(len(counts)), key=lambda label: counts[label])


def majority_share(counts: Sequence[int]) -> float:
    """Return the accuracy of always predicting the most frequent class, given images per class; 0 without images."""
    total = sum(counts)
    return max(counts) / total if total else 0.0


def balanced_accuracy(right: Sequence[int], counts: Sequence[int]) -> float:
    """Return the mean recall of the classes that have images; 0 without images.

    Args:
        right: number of correct predictions for each class.
        counts: number of images of each class.
    """
    recalls = [hits / count for hits, count in zip(right, counts, strict=True) if count]
    return sum(recalls) / len(recalls) if recalls else 0.0


def wilson(share: float, count: int) -> tuple[float, float]:
    """Return the 95 % interval of a share of `count` images (E. B. Wilson, 1927)."""
    z2 = 1.959964**2
    centre = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = math.sqrt(z2 * (share * (1 - share) / count + z2 / (4 * count * count))) / (1 + z2 / count)
    return max(0.0, centre - half), min(1.0, centre + half)
