"""Score of guessing, printed beside every accuracy, and a warning where an accuracy is not above it."""

from collections.abc import Sequence

from mnas.counts import largest_class, majority_share
from mnas.evaluate.evaluation import Metric, accuracy_noise, baseline

NAMES: dict[Metric, str] = {"accuracy": "accuracy", "balanced-accuracy": "balanced accuracy"}
"""Name of each metric in front of a number."""


def baseline_line(metric: Metric, counts: Sequence[int], classes: Sequence[str]) -> str:
    """Return the line about the score of guessing, from the number of images of each class."""
    present = sum(count > 0 for count in counts)
    if not present:
        return "baseline: there are no images"
    if present == 1:
        return f"baseline: all images are of one class ({_most_frequent(counts, classes)!r}): no score says anything"
    if metric == "balanced-accuracy":
        return f"baseline: always saying one class has the balanced accuracy {1 / present:.4f} (1 of {present} classes)"
    always = f"always saying {most_frequent(counts, classes)} has the accuracy {majority_share(counts):.4f}"
    return f"baseline: {always}; guessing among {present} classes {1 / present:.4f}"


def most_frequent(counts: Sequence[int], classes: Sequence[str]) -> str:
    """Return `'cat', the most frequent class`; the first of equally frequent ones."""
    return f"{_most_frequent(counts, classes)!r}, the most frequent class"


SEARCH_BALANCED = "; --metric balanced-accuracy counts all classes alike"
"""Advice for a search, to follow the warning."""


def not_above_baseline(
    metric: Metric, counts: Sequence[int], images: int, score: float, advice: str = SEARCH_BALANCED
) -> str:
    """Return a warning where a score on `images` images is no better than always predicting one class; else empty."""
    floor = baseline(metric, counts)
    if not images or sum(count > 0 for count in counts) < 2 or score - floor >= accuracy_noise(score, images) / 2**0.5:
        return ""
    return (
        f"warning: {NAMES[metric]} {score:.4f} is not above what always saying one class scores ({floor:.4f}), beyond "
        f"what chance may do on {images} images: the model may have learnt nothing"
        + (advice if metric == "accuracy" else "")
    )


def _most_frequent(counts: Sequence[int], classes: Sequence[str]) -> str:
    return classes[largest_class(counts)]
