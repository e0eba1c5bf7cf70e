"""The score of a trained candidate, its noise, and the score of guessing.

A score means nothing without its baseline: of 190 images of one class and 10 of another, a model that never predicts
the second has an accuracy of 95 %. So mnas prints the share of the most frequent class (`majority_share`) beside every
accuracy. A search can also maximise the mean of the classes' recalls (`balanced_accuracy`), which is 1 / classes for
such a model.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from mnas.counts import balanced_accuracy, majority_share
from mnas.require import require_choice

Metric = Literal["accuracy", "balanced-accuracy"]
"""Score that a search maximises, the first value of its trials."""

METRICS: tuple[Metric, ...] = get_args(Metric)

Step = Literal["features", "training"]
"""Steps in which a candidate is evaluated, cheapest first: features (the features of known weights as they are, with a
new linear classifier or that of the parent it is cut from), then training (the weights fine-tuned, or random weights
trained, for some epochs)."""

Fidelity = Literal["frozen features", "inherited", "fine-tuned", "distilled", "from scratch"]
"""How the network behind an accuracy was made: pretrained with a new linear classifier, cut from a fine-tuned parent
without training, pretrained and trained on for some epochs, cut and trained for some epochs with the parent as teacher,
or trained from random weights for some epochs."""


class EvaluationError(Exception):
    """A candidate's own failure (diverged, out of memory), with a one-line reason; the search continues without it."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Score of one candidate. Raises ValueError if a field is out of range."""

    accuracy: float
    """Mean accuracy over the repeats, in [0, 1]."""
    accuracies: tuple[float, ...]
    """Accuracy of each repeat."""
    val_images: int
    """Number of validation images behind each accuracy."""
    train_s: float
    """Wall-clock time of all repeats, including scoring, in seconds."""
    images_per_s: float
    """Training speed in images per second, without scoring."""
    epochs: int
    balanced_accuracy: float | None = None
    """Mean of the classes' recalls, averaged over the repeats; None in records of earlier versions."""
    right: tuple[int, ...] = ()
    """Number of correct predictions for each class, over all repeats; empty in records of earlier versions."""
    fidelity: Fidelity = "from scratch"

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
        require_choice("fidelity", self.fidelity, get_args(Fidelity))
        if any(type(count) is not int or count < 0 for count in self.right):
            raise ValueError(f"right must be counts, but got {self.right}")

    def score(self, metric: Metric) -> float:
        """Return the value of the metric. Raises ValueError if the record lacks it."""
        if metric == "accuracy":
            return self.accuracy
        if self.balanced_accuracy is None:
            raise ValueError("the record has no balanced accuracy, because an earlier version of mnas wrote it")
        return self.balanced_accuracy

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, JSON-able; `from_dict` reads them back equal."""
        values = asdict(self) | {"accuracies": list(self.accuracies), "right": list(self.right)}
        if self.fidelity == "from scratch":  # as records of earlier versions
            del values["fidelity"]
        return values

    @staticmethod
    def from_dict(values: object) -> "Evaluation":
        """Return the inverse of `to_dict`; fields with a default may be missing. Raises ValueError."""
        names = {field.name for field in fields(Evaluation)}
        if (
            not isinstance(values, dict)
            or not names - {"balanced_accuracy", "right", "fidelity"} <= set(values) <= names
        ):
            raise ValueError(f"an evaluation must have the fields {', '.join(sorted(names))}, but got {values!r}")
        lists = {name: values.get(name, []) for name in ("accuracies", "right")}
        if not all(isinstance(value, list | tuple) for value in lists.values()):
            raise ValueError(f"accuracies and right must be lists, but got {lists}")
        return Evaluation(**{**values, **{name: tuple(value) for name, value in lists.items()}})


def evaluation_of_untrained(
    right: tuple[int, ...], val_counts: Sequence[int], *, seconds: float, images: int, fidelity: Fidelity
) -> Evaluation:
    """Return the evaluation of a network that is scored once, without training.

    Args:
        right: number of correct predictions for each class.
        val_counts: number of validation images of each class.
        images: number of images behind the time in seconds.
    """
    accuracy = sum(right) / sum(val_counts)
    return Evaluation(
        accuracy=accuracy,
        accuracies=(accuracy,),
        balanced_accuracy=balanced_accuracy(right, val_counts),
        right=right,
        val_images=sum(val_counts),
        train_s=seconds,
        images_per_s=images / seconds,
        epochs=0,
        fidelity=fidelity,
    )


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

    The mean of K recalls that all equal p has the variance p (1 - p) sum(1 / n_k) / K^2. A plain accuracy has the same
    variance on K^2 / sum(1 / n_k) images, which is all images if the classes are equally frequent.
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
