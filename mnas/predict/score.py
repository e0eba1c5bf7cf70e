"""Score a model on labelled images: top-1, top-5, accuracy by class, and confusions."""

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from mnas.counts import majority_share
from mnas.data.image import Pixels
from mnas.pages.gallery import Gallery
from mnas.predict.annotate import shortened
from mnas.predict.model import Model
from mnas.text import clean


@dataclass(frozen=True, kw_only=True, eq=False)
class Score:
    """Scores of a model on labelled images."""

    top1: float
    """Share of the images whose class has the highest output; among equal outputs the lower index ranks first."""
    top5: float
    """Share of the images whose class is among the five highest outputs."""
    per_class: tuple[float | None, ...]
    """Top-1 accuracy for each of the model's classes; None for a class without images."""
    confusion: NDArray[np.int64]
    """Number of images (outputs, outputs) by true class (rows) and predicted class (columns)."""
    images: int

    @property
    def counts(self) -> list[int]:
        """Number of images of each of the model's classes."""
        return [int(count) for count in self.confusion.sum(1)]

    @property
    def balanced_accuracy(self) -> float:
        """Mean of `per_class` over the classes with images; equals top-1 where all have the same number."""
        shares = [share for share in self.per_class if share is not None]
        return sum(shares) / len(shares)

    @property
    def majority_share(self) -> float:
        """Top-1 of always predicting the class with the most images."""
        return majority_share(self.counts)

    def confused(self, count: int) -> list[tuple[int, int, int]]:
        """Return the most frequent errors: (true class, predicted class, images), most frequent first."""
        errors = self.confusion.copy()
        np.fill_diagonal(errors, 0)
        order = np.argsort(-errors, axis=None, kind="stable")[:count]
        truth, first = np.unravel_index(order, errors.shape)
        rows = zip(truth.tolist(), first.tolist(), errors[truth, first].tolist(), strict=True)
        return [row for row in rows if row[2]]


def score_model(
    model: Model, batches: Iterable[tuple[Pixels, NDArray[np.int64]]], gallery: Gallery | None = None
) -> Score:
    """Score `model` on batches of uint8 images (B, S, S, 3), S its input size, and labels (B,), indices of its outputs.

    Args:
        gallery: gets all images with their predictions.

    Raises:
        ValueError: there are no images, a label is no index of an output, or outputs are not finite.
    """
    outputs = model.info.outputs
    confusion = np.zeros((outputs, outputs), np.int64)
    in_five = 0
    for images, labels in batches:
        if len(labels) and not 0 <= labels.min() <= labels.max() < outputs:
            raise ValueError(f"labels must be from 0 to {outputs - 1}, but got {labels.min()} to {labels.max()}")
        rows = model.run(images)
        predictions = rows.argmax(1)
        np.add.at(confusion, (labels, predictions), 1)
        if gallery is not None:
            confidences = model.as_probabilities(rows)[np.arange(len(labels)), predictions]
            gallery.add(images, labels, predictions, confidences)
        in_five += int((ranks(rows, labels) < 5).sum())
    counts = confusion.sum(1)
    total = int(counts.sum())
    if total == 0:
        raise ValueError("scoring needs images, but got none")
    right = np.diagonal(confusion)
    return Score(
        top1=float(right.sum() / total),
        top5=in_five / total,
        per_class=tuple(float(r / n) if n else None for r, n in zip(right, counts, strict=True)),
        confusion=confusion,
        images=total,
    )


def ranks(outputs: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the rank of the true output in each row, from 0; ties go to the lower index."""
    own = outputs[np.arange(len(labels)), labels][:, None]
    before = np.arange(outputs.shape[1]) < labels[:, None]
    first = (outputs > own) | ((outputs == own) & before)
    return np.asarray(first.sum(1), np.int64)


# The picture

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

_LARGE = 40
"""Number of classes above which cells have no numbers and no names beside them."""
_LIST = 24
"""Number of the most frequent errors listed beside the matrix."""
_INK, _FAINT = (20, 20, 20), (120, 120, 120)
_MATRIX_SIDE = 900


def confusion_picture(score: Score, classes: Sequence[str], title: str) -> bytes:
    """Return the confusion matrix as a PNG: rows are true classes, columns predictions, in shares of the row.

    The picture leaves out the rows of classes without images, and their columns where the model never predicts them.

    Args:
        classes: names of the outputs.
        title: the first line.
    """
    present = np.flatnonzero(score.confusion.sum(0) + score.confusion.sum(1))
    matrix = score.confusion[np.ix_(present, present)]
    names = [classes[int(i)] for i in present]
    font, small = ImageFont.load_default(22), ImageFont.load_default(14)
    large = len(names) > _LARGE
    cell = max(2, _MATRIX_SIDE // len(names)) if large else max(24, min(80, _MATRIX_SIDE // len(names)))
    margin = 60 if large else round(min(220, max(small.getlength(name) for name in names))) + 24
    x, y, side = margin, 84 + margin, cell * len(names)
    errors = score.confused(_LIST)
    canvas = Image.new("RGB", (x + side + 440, max(y + side, y + 40 + 20 * _LIST) + 24), "white")
    draw = ImageDraw.Draw(canvas)
    draw.text((16, 14), clean(title, 200), fill=_INK, font=font)
    summary = f"top-1 {100 * score.top1:.2f} %, top-5 {100 * score.top5:.2f} %, {score.images:,} images"
    draw.text((16, 46), f"{summary}; rows: true classes, columns: predictions", fill=_FAINT, font=small)
    canvas.paste(_cells(matrix, cell), (x, y))
    draw.rectangle((x - 1, y - 1, x + side, y + side), outline=_FAINT)
    if large:
        _ticks(draw, present, cell, x, y, small)
    else:
        _labels(canvas, draw, names, cell, x, y, small)
        _numbers(draw, matrix, cell, x, y)
    draw.text((x + side + 24, y), "most frequent errors" if errors else "no errors", fill=_INK, font=small)
    for row, (truth, first, count) in enumerate(errors):
        at, line = x + side + 64, y + 26 + 20 * row
        draw.text((at - 8, line), str(count), fill=_INK, font=small, anchor="ra")
        pair = [shortened(classes[i], small, 170) for i in (truth, first)]
        draw.text((at, line), " -> ".join(pair), fill=_INK, font=small)
    file = io.BytesIO()
    canvas.save(file, "PNG")
    return file.getvalue()


def _cells(matrix: NDArray[np.int64], cell: int) -> Image.Image:
    """Draw the cells: white for none, from light (one image) to dark blue (all of the row)."""
    share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    strength = np.where(matrix > 0, 0.15 + 0.85 * np.sqrt(share), 0)[..., None]
    colours = 255 - strength * (255 - np.array([18, 60, 130]))
    return Image.fromarray(colours.round().astype(np.uint8).repeat(cell, 0).repeat(cell, 1))


def _ticks(draw: ImageDraw.ImageDraw, present: NDArray[np.int64], cell: int, x: int, y: int,
           font: Font) -> None:  # fmt: skip
    """Draw the numbers of some classes along both sides."""
    step = 10 if len(present) <= 200 else 100
    for i in range(0, len(present), step):
        at = i * cell + cell // 2
        draw.line((x - 6, y + at, x - 2, y + at), fill=_FAINT)
        draw.text((x - 10, y + at), str(present[i]), fill=_INK, font=font, anchor="rm")
        draw.line((x + at, y - 6, x + at, y - 2), fill=_FAINT)
        draw.text((x + at, y - 10), str(present[i]), fill=_INK, font=font, anchor="mb")


def _labels(canvas: Image.Image, draw: ImageDraw.ImageDraw, names: Sequence[str], cell: int, x: int, y: int,
            font: Font) -> None:  # fmt: skip
    """Draw names along both sides, upright on top."""
    for i, name in enumerate(names):
        text = shortened(name, font, x - 24)
        at = i * cell + cell // 2
        draw.text((x - 8, y + at), text, fill=_INK, font=font, anchor="rm")
        upright = Image.new("RGB", (x, 20), "white")
        ImageDraw.Draw(upright).text((0, 10), text, fill=_INK, font=font, anchor="lm")
        turned = upright.rotate(90, expand=True)
        canvas.paste(turned, (x + at - 10, y - 8 - turned.height))


def _numbers(draw: ImageDraw.ImageDraw, matrix: NDArray[np.int64], cell: int, x: int, y: int) -> None:
    share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    longest = len(str(matrix.max()))
    font = ImageFont.load_default(max(8, min(16, int(cell * 1.5 / max(longest, 2)))))
    for (row, column), count in np.ndenumerate(matrix):
        if count:
            colour = "white" if share[row, column] > 0.3 else _INK
            at = (x + column * cell + cell // 2, y + row * cell + cell // 2)
            draw.text(at, str(count), fill=colour, font=font, anchor="mm")
