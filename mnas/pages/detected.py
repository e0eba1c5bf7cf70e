"""The page of a trained detector: its curves, a table of its classes, its worst misses, and training images."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

from mnas.pages.curves import Curve, Points, chart
from mnas.pages.page import escape, header, page, section, subtitle, tiles
from mnas.text import NAME_CHARS, clean

CLASSES = 100
"""Number of classes in the table; of more classes, it has those with the lowest mAP."""


@dataclass(frozen=True, kw_only=True)
class DetectedClass:
    """A row of the table of classes; counts are without crowds."""

    name: str
    training_objects: int
    objects: int
    """Number of objects in the scored images."""
    mean_precision: float | None
    """COCO's mAP; None without an object in the scored images."""
    ap50: float | None
    missed: int
    """Number of objects that no detection finds."""
    wrong: int
    """Number of detections that find no object."""


@dataclass(frozen=True, kw_only=True)
class BoxedPicture:
    """A picture with boxes drawn in."""

    name: str
    """Name of the image file."""
    note: str
    """Description of the picture."""
    picture: str
    """The picture, as a data URI."""


@dataclass(frozen=True, kw_only=True)
class DetectedModel:
    """A trained detector and the images that it was scored on."""

    title: str
    part: str
    """Name of the scored images, such as `test part of cells`."""
    facts: Sequence[str]
    """Further facts, such as `320 px`."""
    figures: Sequence[tuple[str, str]]
    """Numbers and their meanings."""
    losses: Points
    """(epoch, mean loss) of the training."""
    precisions: Points
    """(epoch, mAP) on the validation images, without epochs that were not scored; one or more."""
    ap50s: Points
    """(epoch, AP50) on the validation images."""
    classes: Sequence[DetectedClass]
    certain: float
    """Score from which a detection counts as found or wrong."""
    misses: Sequence[BoxedPicture]
    """Scored images with the most errors, the worst first."""
    samples: Sequence[BoxedPicture]
    """Training images with their true boxes."""


def detected_page(model: DetectedModel) -> str:
    """Return the page as HTML."""
    style = (resources.files("mnas.pages") / "detected.css").read_text("utf-8")
    precision = [Curve(name="mAP", points=model.precisions), Curve(name="AP50", points=model.ap50s)]
    curves = (
        f"<div><h3>Training loss</h3>{chart([Curve(name='loss', points=model.losses)])}</div>"
        f"<div><h3>Validation images</h3>{chart(precision, percent=True)}</div>"
    )
    body = [
        header(model.title, model.part, "part"),
        f'<p class="quiet">{subtitle(model.facts)}</p>',
        tiles(model.figures),
        section("Training", f'<div class="pair">{curves}</div>'),
        section("Classes", *_classes(model)),
        section("Worst misses", *_misses(model)),
        section("Training images with their true boxes", *_samples(model)),
    ]
    return page(f"{model.title}, {model.part}", body, style=style)


def _classes(model: DetectedModel) -> list[str]:
    rows = list(model.classes)
    words = (
        "mAP: average precision over the IoUs .5 to .95. AP50: at IoU .5. Missed: objects that no detection with a "
        f"score of at least {model.certain:g} finds. Wrong: such detections that find no object."
    )
    if len(rows) > CLASSES:
        scored = [row for row in rows if row.mean_precision is not None]
        rows = sorted(scored, key=lambda row: row.mean_precision or 0.0)[:CLASSES]
        words = f"The {len(rows)} of {len(model.classes):,} classes with the lowest mAP. {words}"
    names = ("class", "training objects", "objects", "mAP", "AP50", "missed", "wrong")
    head = "".join(f'<th scope="col">{name}</th>' for name in names)
    table = f'<table class="numbers detected"><thead><tr>{head}</tr></thead><tbody>{"".join(map(_row, rows))}</tbody>'
    return [
        f'<p class="quiet">{words}</p>',
        f'<div class="scroll" tabindex="0" role="region" aria-label="Classes">{table}</table></div>',
    ]


def _row(row: DetectedClass) -> str:
    cells = (
        *(f"{row.training_objects:,}", f"{row.objects:,}", _percent(row.mean_precision), _percent(row.ap50)),
        *(f"{row.missed:,}", f"{row.wrong:,}"),
    )
    name = f'<th scope="row" title="{escape(row.name)}">{escape(clean(row.name, NAME_CHARS))}</th>'
    return f"<tr>{name}{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _misses(model: DetectedModel) -> list[str]:
    if not model.misses:
        return ["<p>Every object is found, and every detection is right.</p>"]
    words = (
        f"The images with the most errors, counting detections with a score of at least {model.certain:g}. "
        '<span class="bad">Red</span>: missed objects, and wrong detections with their score and a question mark. '
        "Green: objects that were found. Look for objects without a box, and for boxes of the wrong class."
    )
    return [f'<p class="quiet">{words}</p>', _gallery(model.misses)]


def _samples(model: DetectedModel) -> list[str]:
    if not model.samples:
        return []
    words = "Check that every object has a box, that the boxes fit, and that their classes are right."
    return [f'<p class="quiet">{words}</p>', _gallery(model.samples)]


def _gallery(pictures: Sequence[BoxedPicture]) -> str:
    figures = "".join(
        f'<figure><img alt="{escape(f"{one.name}: {one.note}")}" src="{one.picture}"><figcaption>{escape(one.note)}'
        f'<span class="file">{escape(one.name)}</span></figcaption></figure>'
        for one in pictures
    )
    return f'<div class="pictures">{figures}</div>'
