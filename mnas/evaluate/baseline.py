"""The score of guessing, printed beside every accuracy, and a warning if an accuracy is not above it."""

from collections.abc import Sequence

from mnas.counts import largest_class, majority_share
from mnas.evaluate.evaluation import Metric, accuracy_noise, baseline

NAMES: dict[Metric, str] = {"accuracy": "accuracy", "balanced-accuracy": "balanced accuracy"}
"""Name of each metric in printed lines."""


def baseline_line(metric: Metric, counts: Sequence[int], classes: Sequence[str]) -> str:
    """Return the line about the score of guessing, from the number of images of each class."""
    present = sum(count > 0 for count in counts)
    if not present:
        return "baseline: there are no images"
    if present == 1:
        return f"baseline: all images are of one class ({_most_frequent(counts, classes)!r}), so no score is meaningful"
    if metric == "balanced-accuracy":
        return f"baseline: always predicting one of the {present} classes has a balanced accuracy of {1 / present:.4f}"
    always = f"always predicting {most_frequent(counts, classes)}, has an accuracy of {majority_share(counts):.4f}"
    return f"baseline: {always}; guessing among {present} classes has {1 / present:.4f}"


def most_frequent(counts: Sequence[int], classes: Sequence[str]) -> str:
    """Return `'cat', the most frequent class`; the first of equally frequent ones."""
    return f"{_most_frequent(counts, classes)!r}, the most frequent class"


SEARCH_BALANCED = " --metric balanced-accuracy weights all classes equally."
"""Advice for a search, to follow the warning."""


def not_above_baseline(
    metric: Metric, counts: Sequence[int], images: int, score: float, advice: str = SEARCH_BALANCED
) -> str:
    """Return a warning if a score on `images` images is no better than always predicting one class; else empty."""
    floor = baseline(metric, counts)
    if not images or sum(count > 0 for count in counts) < 2 or score - floor >= accuracy_noise(score, images) / 2**0.5:
        return ""
    return (
        f"warning: the {NAMES[metric]} {score:.4f} on {images} images is not significantly above that of always "
        f"predicting one class ({floor:.4f}), so the model may have learnt nothing."
        + (advice if metric == "accuracy" else "")
    )


def _most_frequent(counts: Sequence[int], classes: Sequence[str]) -> str:
    return classes[largest_class(counts)]
