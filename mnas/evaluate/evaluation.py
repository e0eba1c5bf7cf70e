"""What training a candidate tells about it, and how much of that is noise."""

import math
from dataclasses import asdict, dataclass
from typing import Any


class EvaluationError(Exception):
    """The candidate's own failure (diverged, out of memory), with a one-line reason; the search goes on without it."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The score of one candidate."""

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

    def to_dict(self) -> dict[str, Any]:
        """Plain values, JSON-able; `from_dict` reads them back equal."""
        return asdict(self) | {"accuracies": list(self.accuracies)}

    @staticmethod
    def from_dict(values: dict[str, Any]) -> "Evaluation":
        """The inverse of `to_dict`."""
        return Evaluation(**{**values, "accuracies": tuple(values["accuracies"])})


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
