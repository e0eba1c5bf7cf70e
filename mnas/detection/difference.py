"""Say in words how two trainings of detectors differ where their identities have digests."""

from collections.abc import Mapping
from typing import Any

from mnas.detector import Detector, paper_boxes
from mnas.train.checkpoint import differences


def difference_in_words(name: str, then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Return how two trainings differ in a field of their identities, such as `boxes: fitted before, paper now`.

    Args:
        name: name of the field.
        then: content of the `config.json` of the training in the folder.
        now: the same, of the training that would resume it.

    Returns:
        Differences, separated by commas; empty for a field whose values are no digests.

    Raises:
        ValueError, KeyError, TypeError: the content is damaged.
    """
    if name == "detector":
        return _of_detectors(Detector.from_dict(then[name]), Detector.from_dict(now[name]))
    if name == "data":
        return _of_data(then[name], now[name])
    if name == "initial weights":
        return _of_weights(then["identity"][name], now["identity"][name])
    return ""


def _of_detectors(then: Detector, now: Detector) -> str:
    parts = [differences(_described(then), _described(now))]
    if then.boxes != now.boxes and _described(then)["boxes"] == _described(now)["boxes"]:
        parts.append("other fitted boxes")
    if then.arch.canonical() != now.arch.canonical():
        parts.append("another backbone")
    return ", ".join(filter(None, parts)) or "another detector"


def _described(detector: Detector) -> dict[str, Any]:
    return {
        "boxes": "paper" if detector.boxes == paper_boxes() else "fitted",
        "input size": detector.input_size,
        "head": detector.head,
        "extra filters": detector.extra_filters,
    }


def _of_data(then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    pairs = [{"data": one["name"], "images": _counts(one["images"])} for one in (then, now)]
    parts = [differences(*pairs)]
    if list(then["classes"]) != list(now["classes"]):
        parts.append("other classes")
    return ", ".join(filter(None, parts)) or "other images or boxes"


def _of_weights(then: str, now: str) -> str:
    """Return the difference of two digests, of which one may be `fresh`."""
    if then == "fresh":
        return "backbone with random weights before, with --weights now"
    return "backbone with --weights before, with random weights now" if now == "fresh" else "other --weights"


def _counts(images: Mapping[str, int]) -> str:
    return " + ".join(f"{count:,} {part}" for part, count in images.items())
