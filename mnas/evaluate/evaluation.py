"""Score of a trained candidate, its noise, and the score of guessing.

A score means nothing without its baseline: of 190 images of one class and 10 of another, a model that never predicts
the second gets 95 % right. So mnas prints the share of the most frequent class (`majority_share`) beside every
accuracy. A search can also maximise the mean of the classes' recalls (`balanced_accuracy`), which is 1 / classes for
such a model.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from mnas.counts import majority_share

Metric = Literal["accuracy", "balanced-accuracy"]
"""Score that a search maximises, the first value of its trials."""

METRICS: tuple[Metric, ...] = get_args(Metric)


class EvaluationError(Exception):
    """A candidate's own failure (diverged, out of memory), with a one-line reason; the search continues without it."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Score of one candidate; raises ValueError where a field is out of its range."""

    accuracy: float
    """Mean accuracy over the repeats, in [0, 1]."""
    accuracies: tuple[float, ...]
    """Accuracy of each repeat."""
    val_images: int
    """Number of images that each accuracy is a share of."""
    train_s: float
    """Wall-clock seconds of all repeats, scoring included."""
    images_per_s: float
    """Training images a second, without scoring."""
    epochs: int
    balanced_accuracy: float | None = None
    """Mean over classes of the share of each class's images that are right, then over the repeats; None in earlier
    records, which lack it."""
    right: tuple[int, ...] = ()
    """Number of right answers for each class, over all repeats; empty in earlier records, which lack it."""

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
        """Return the value of the metric. Raises ValueError where the record lacks it."""
        if metric == "accuracy":
            return self.accuracy
        if self.balanced_accuracy is None:
            raise ValueError("the record must hold a balanced accuracy, but it was made by an earlier version")
        return self.balanced_accuracy

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, JSON-able; `from_dict` reads them back equal."""
        return asdict(self) | {"accuracies": list(self.accuracies), "right": list(self.right)}

    @staticmethod
    def from_dict(values: object) -> "Evaluation":
        """Return the inverse of `to_dict`; fields with a default may be missing. Raises ValueError."""
        names = {field.name for field in fields(Evaluation)}
        if not isinstance(values, dict) or not names - {"balanced_accuracy", "right"} <= set(values) <= names:
            raise ValueError(f"an evaluation must have the fields {', '.join(sorted(names))}, but got {values!r}")
        lists = {name: values.get(name, []) for name in ("accuracies", "right")}
        if not all(isinstance(value, list | tuple) for value in lists.values()):
            raise ValueError(f"accuracies and right must be lists, but got {lists}")
        return Evaluation(**{**values, **{name: tuple(value) for name, value in lists.items()}})


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


# Score of guessing


def baseline(metric: Metric, counts: Sequence[int]) -> float:
    """Return the score of always predicting one class: the majority share, or 1 / classes for balanced accuracy."""
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
    """Return the standard error of an accuracy on `val_images` images (binomial).

    Two hits and two misses are added (Agresti and Coull, 1998), so that an accuracy of 0 or 1 has an error too.
    """
    count = val_images + 4
    share = (accuracy * val_images + 2) / count
    return math.sqrt(share * (1 - share) / count)


def accuracy_noise(accuracy: float, val_images: int) -> float:
    """Return the smallest difference between two models near `accuracy` that is real with 95 % confidence.

    Both models count as scored on their own images. On the same ones, as in a search, their errors partly cancel, so
    this is conservative. It does not include the noise of training (`repeats` does).
    """
    return 1.96 * math.sqrt(2) * accuracy_error(accuracy, val_images)
