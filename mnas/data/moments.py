"""Mean and deviation of a data set that is never decoded in full: estimated from a sample, and cached."""

import contextlib
import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from mnas.atomic import write_atomic
from mnas.data.cache import OnProgress, check_unreadable, moments
from mnas.data.entry import are_moments
from mnas.data.image import Pixels, UnreadableImage, reason
from mnas.data.source import Triple
from mnas.data.view import Content, ImageView
from mnas.readers import read_json

SAMPLE_IMAGES = 1024
"""Size of the sample; at 32 px its mean is within a fifth of a grey level of that of all images of CIFAR-10."""
_TASK = 32  # images in memory at once


def sample_moments(
    cache_dir: Path,
    key: object,
    view: ImageView,
    images: Callable[[], Iterable[tuple[str, Content]]],
    count: int,
    on_progress: OnProgress | None = None,
) -> tuple[Triple, Triple]:
    """Return mean and deviation, by channel, of pixels in [0, 1] of the first `SAMPLE_IMAGES` in evaluation.

    Args:
        key: JSON-able; equal keys mean equal images. Images are decoded only for a new key.
        images: returns (name, content) pairs.
        count: number of these pairs.

    Raises:
        ValueError: more than 1 % of the sample are unreadable.
        ContentChangedError: raised by `images`.
    """
    text = json.dumps([2, key, view.size, view.crop], sort_keys=True)  # 1 was keyed by names and sizes
    digest = hashlib.sha256(text.encode()).hexdigest()
    path = cache_dir / f"moments-{digest[:32]}.json"
    stored = _cached(path, digest)
    if stored is not None:
        return stored
    mean, std = _estimated(view, itertools.islice(images(), SAMPLE_IMAGES), min(count, SAMPLE_IMAGES), on_progress)
    with contextlib.suppress(OSError):  # without the cache it is only slower
        cache_dir.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps({"mean": mean, "std": std, "check": _check(digest, mean, std)}))
    return _triple(mean), _triple(std)


def _cached(path: Path, digest: str) -> tuple[Triple, Triple] | None:
    """Return the cached mean and deviation; None if the file is missing or damaged."""
    try:
        stored = read_json(path)
        mean, std = tuple(stored["mean"]), tuple(stored["std"])
        if stored["check"] == _check(digest, mean, std) and are_moments(mean) and are_moments(std) and min(std) > 0:
            return _triple(mean), _triple(std)
    except (OSError, ValueError, TypeError, KeyError):
        pass
    return None


def _check(digest: str, mean: Sequence[float], std: Sequence[float]) -> str:
    """Return a digest of the values and of the images that they belong to."""
    return hashlib.sha256(json.dumps([digest, list(mean), list(std)]).encode()).hexdigest()


def _estimated(
    view: ImageView, sample: Iterator[tuple[str, Content]], total: int, on_progress: OnProgress | None
) -> tuple[list[float], list[float]]:
    histogram = np.zeros((3, 256), np.int64)
    bad: list[str] = []
    done = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        while task := list(itertools.islice(sample, _TASK)):
            for name, pixels in zip((name for name, _ in task), pool.map(_seen_by(view), task), strict=True):
                if isinstance(pixels, str):
                    bad.append(f"{name}: {pixels}")
                else:
                    histogram += [np.bincount(pixels[..., c].ravel(), minlength=256) for c in range(3)]
            done += len(task)
            if on_progress:
                on_progress(done, total)
    check_unreadable(bad, total)
    return moments(histogram)


def _seen_by(view: ImageView) -> Callable[[tuple[str, Content]], Pixels | str]:
    """Return a function that maps (name, content) to its pixels in evaluation, or to the reason why it has none."""

    def see(named: tuple[str, Content]) -> Pixels | str:
        try:
            return view.scored(named[1])
        except UnreadableImage as error:
            return reason(error)

    return see


def _triple(values: Sequence[float]) -> Triple:
    first, second, third = map(float, values)
    return first, second, third
