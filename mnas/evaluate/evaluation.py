"""The score of a trained candidate, its noise, and the score of guessing.

A score means nothing without its baseline: of 190 images of one class and 10 of another, 95 % are right for a model
that never says the second. So the share of the most frequent class (`majority_share`) stands beside every accuracy, and
the mean of the classes' recalls (`balanced_accuracy`), 1 / classes for such a model, can be searched for instead.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from mnas.counts import majority_share

Metric = Literal["accuracy", "balanced-accuracy"]
"""The score that a search maximises; the first value of its trials."""

METRICS: tuple[Metric, ...] = get_args(Metric)


class EvaluationError(Exception):
    """The candidate's own failure (diverged, out of memory), with a one-line reason; the search goes on without it."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The score of one candidate; raises ValueError where a field is not what it must be."""

    accuracy: float
    """Mean over the repeats, in [0, 1]."""
    accuracies: tuple[float, ...]
    """Of each repeat."""
    val_images: int
    """How many images each accuracy is a share of."""
    train_s: float
    """Wall-clock seconds, all repeats, scoring included."""
    images_per_s: float
    """Training images a second, scoring left out."""
    epochs: int
    balanced_accuracy: float | None = None
    """Mean over classes of the share of each class's images that are right, then over the repeats; None in records
    that were made before it was kept."""
    right: tuple[int, ...] = ()
    """Right answers for each class, of all repeats together; empty in records that were made before it was kept."""

    def __post_init__(self) -> None:
        shares = [
            self.accuracy,
            *self.accuracies,
            *([] if self.balanced_accuracy is None else [self.balanced_accuracy]),
        ]
        if not all(_is_number(share) and 0 <= share <= 1 for share in shares) or not self.accuracies:
            raise ValueError(f"accuracies must be from 0 to 1, but got {shares}")
        for name in ("val_images", "epochs"):
            if type(getattr(self, name)) is not int or getattr(self, name) < 0:
                raise ValueError(f"{name} must be an integer of 0 or more, but got {getattr(self, name)!r}")
        for name in ("train_s", "images_per_s"):
            if not _is_number(getattr(self, name)) or getattr(self, name) < 0:
                raise ValueError(f"{name} must be a number of 0 or more, but got {getattr(self, name)!r}")
        if any(type(count) is not int or count < 0 for count in self.right):
            raise ValueError(f"right must be counts, but got {self.right}")

    def score(self, metric: Metric) -> float:
        """Return the value that is searched for. Raises ValueError where the record does not hold it."""
        if metric == "accuracy":
            return self.accuracy
        if self.balanced_accuracy is None:
            raise ValueError("the record must hold a balanced accuracy, but it was made by an earlier version")
        return self.balanced_accuracy

    def to_dict(self) -> dict[str, Any]:
        """Plain values, JSON-able; `from_dict` reads them back equal."""
        return asdict(self) | {"accuracies": list(self.accuracies), "right": list(self.right)}

    @staticmethod
    def from_dict(values: object) -> "Evaluation":
        """The inverse of `to_dict`; also of records without the fields that have a default. Raises ValueError."""
        names = {field.name for field in fields(Evaluation)}
        if not isinstance(values, dict) or not names - {"balanced_accuracy", "right"} <= set(values) <= names:
            raise ValueError(f"an evaluation must have the fields {', '.join(sorted(names))}, but got {values!r}")
        lists = {name: values.get(name, []) for name in ("accuracies", "right")}
        if not all(isinstance(value, list | tuple) for value in lists.values()):
            raise ValueError(f"accuracies and right must be lists, but got {lists}")
        return Evaluation(**{**values, **{name: tuple(value) for name, value in lists.items()}})


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


# The score of guessing


def baseline(metric: Metric, counts: Sequence[int]) -> float:
    """Return the score of always saying one class: the majority share, or 1 / classes for balanced accuracy."""
    if metric == "accuracy":
        return majority_share(counts)
    present = sum(count > 0 for count in counts)
    return 1 / present if present else 0.0


def effective_images(metric: Metric, counts: Sequence[int]) -> int:
    """Return the number of images on which a plain accuracy would be as uncertain as the metric on these.

    The mean of K recalls has the variance p (1 - p) sum(1 / n_k) / K^2 where all are p: that of a share of
    K^2 / sum(1 / n_k) images, which is all of them where classes are equally frequent.
    """
    present = [count for count in counts if count]
    if metric == "accuracy" or not present:
        return sum(present)
    return max(1, round(len(present) ** 2 / sum(1 / count for count in present)))


def accuracy_error(accuracy: float, val_images: int) -> float:
    """Standard error of an accuracy on `val_images` images (binomial).

    Two hits and two misses are added (Agresti and Coull, 1998), so that 0 and 1 are not taken for certain.
    """
    count = val_images + 4
    share = (accuracy * val_images + 2) / count
    return math.sqrt(share * (1 - share) / count)


def accuracy_noise(accuracy: float, val_images: int) -> float:
    """The smallest difference between two models near `accuracy` that 95 % confidence takes for real.

    Both as if scored on images of their own; on the same ones, as in a search, their errors partly cancel, so this is
    on the safe side. It knows nothing of the noise of training (`repeats` does).
    """
    return 1.96 * math.sqrt(2) * accuracy_error(accuracy, val_images)
