"""Collect, while a model is scored, what people want to see: counts of confusions, sample images, and mistakes.

Its memory does not grow with the number of images: it holds small encoded samples, a few mistakes, and one count for
each pair of classes that occurs.
"""

import base64
import io
from collections import Counter
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.int64]

MISTAKES = 24
"""Number of the most confident mistakes that a gallery keeps."""
FEW_CLASSES = 30
"""Number of classes up to which a page shows all of them, with more samples each."""
SAMPLES, SAMPLES_OF_MANY = 8, 4
"""Number of sample images of each class: for at most `FEW_CLASSES` classes, and for more."""
SAMPLE_SIDE, MISTAKE_SIDE = 96, 224
"""Largest side of an image on the page, in pixels; larger images are shrunk."""
_LOSSLESS_SIDE = 32
_STRIDE = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio: multiples, modulo 2^64, spread evenly


@dataclass(frozen=True, kw_only=True)
class Seen:
    """An image as the model saw it, with the model's prediction."""

    position: int
    """Position among the scored images."""
    truth: int
    """True class."""
    prediction: int
    """Class with the highest output."""
    confidence: float
    """Probability of the predicted class."""
    picture: str
    """The image, as a data URI."""
    side: int
    """Side of the picture, in pixels."""


class Gallery:
    """The findings on the images added so far.

    Args:
        classes: number of classes.
    """

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.pairs: Counter[tuple[int, int]] = Counter()
        """Number of images by (true class, predicted class)."""
        self.images = 0
        self._each = SAMPLES if classes <= FEW_CLASSES else SAMPLES_OF_MANY
        self._samples: dict[int, list[tuple[int, Seen]]] = {}
        self._limits = np.full(classes, np.iinfo(np.uint64).max, np.uint64)
        self._mistakes: list[tuple[float, int, int, int, Pixels]] = []

    def add(self, images: Pixels, labels: Numbers, predictions: Numbers, confidences: npt.NDArray[np.float32]) -> None:
        """Add the next images, in the order of scoring.

        Args:
            images: uint8 (B, S, S, 3), as the model sees them before it normalises them.
            labels: true classes (B,).
            predictions: classes with the highest output (B,).
            confidences: probabilities of the predicted classes (B,).
        """
        keys, counts = np.unique(labels * self.classes + predictions, return_counts=True)
        for key, count in zip(keys.tolist(), counts.tolist(), strict=True):
            self.pairs[divmod(key, self.classes)] += count
        self._add_mistakes(images, labels, predictions, confidences)
        self._add_samples(images, labels, predictions, confidences)
        self.images += len(labels)

    def mistakes(self) -> list[Seen]:
        """Return the wrong predictions with the highest confidence, highest first; among equals the earlier image."""
        return [
            _seen(position, truth, prediction, -negative, pixels, MISTAKE_SIDE)
            for negative, position, truth, prediction, pixels in self._mistakes
        ]

    def samples(self, label: int) -> list[Seen]:
        """Return images of a class, spread evenly over all of them, in the order of scoring."""
        return sorted((seen for _, seen in self._samples.get(label, [])), key=lambda seen: seen.position)

    def _add_mistakes(
        self, images: Pixels, labels: Numbers, predictions: Numbers, confidences: npt.NDArray[np.float32]
    ) -> None:
        wrong = np.flatnonzero(labels != predictions)
        wrong = wrong[np.argsort(-confidences[wrong], kind="stable")][:MISTAKES]
        self._mistakes += [
            (-float(confidences[i]), self.images + i, int(labels[i]), int(predictions[i]), images[i].copy())
            for i in wrong.tolist()
        ]
        self._mistakes = sorted(self._mistakes, key=lambda mistake: mistake[:2])[:MISTAKES]

    def _add_samples(
        self, images: Pixels, labels: Numbers, predictions: Numbers, confidences: npt.NDArray[np.float32]
    ) -> None:
        places = np.arange(self.images, self.images + len(labels), dtype=np.uint64)
        ranks = places * _STRIDE  # modulo 2^64
        for i in np.flatnonzero(ranks <= self._limits[labels]).tolist():
            label, rank = int(labels[i]), int(ranks[i])
            if rank > self._limits[label]:  # an earlier image of this batch has lowered it
                continue
            seen = _seen(self.images + i, label, int(predictions[i]), float(confidences[i]), images[i], SAMPLE_SIDE)
            chosen = sorted([*self._samples.get(label, []), (rank, seen)], key=lambda pair: pair[0])[: self._each]
            self._samples[label] = chosen
            if len(chosen) == self._each:
                self._limits[label] = chosen[-1][0]


def _seen(position: int, truth: int, prediction: int, confidence: float, pixels: Pixels, side: int) -> Seen:
    picture = Image.fromarray(pixels)
    if picture.width > side:
        picture = picture.resize((side, side), Image.Resampling.LANCZOS)
    return Seen(
        position=position,
        truth=truth,
        prediction=prediction,
        confidence=confidence,
        picture=data_uri(picture),
        side=picture.width,
    )


def data_uri(picture: Image.Image) -> str:
    """Return an image as a data URI: PNG if it is small or transparent, else JPEG."""
    lossless = picture.width <= _LOSSLESS_SIDE or picture.mode != "RGB"
    file = io.BytesIO()
    if lossless:
        picture.save(file, "PNG", optimize=True)
    else:
        picture.save(file, "JPEG", quality=88, optimize=True)
    kind = "png" if lossless else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
