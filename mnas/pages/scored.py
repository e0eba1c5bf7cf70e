"""The page of a scored model: its confusion matrix, its most confident mistakes, and sample images of each class."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources

from mnas.counts import balanced_accuracy, majority_share, wilson
from mnas.pages.confusion import confusions, used_classes
from mnas.pages.gallery import FEW_CLASSES, Gallery, Seen
from mnas.pages.page import escape, header, page, section, subtitle, tiles
from mnas.text import NAME_CHARS, clean

CLASSES = 40
"""Number of classes with sample images, if the data has more than `FEW_CLASSES`."""
_PIXELATED_SIDE = 64
"""Side, in pixels, up to which an enlarged image keeps its pixels visible."""


@dataclass(frozen=True, kw_only=True)
class ScoredModel:
    """A model and the images that it was scored on, in words."""

    title: str
    """Name of the model."""
    part: str
    """Name of the scored images, such as `test part of photos`."""
    facts: Sequence[str]
    """Further facts, such as `96 px`."""
    notes: Sequence[str] = ()
    """Warnings about the images, such as overlap with the training images."""
    classes: Sequence[str]
    """Names of the model's outputs."""
    name_of: Callable[[int], str]
    """Function from an image's position to its name."""


def scored_page(model: ScoredModel, gallery: Gallery) -> str:
    """Return the page as HTML; `gallery` has at least one image."""
    pairs, classes = gallery.pairs, model.classes
    style = (resources.files("mnas.pages") / "scored.css").read_text("utf-8")
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in model.notes)
    body = [
        header(model.title, model.part, "part"),
        f'<p class="quiet">{subtitle(model.facts)}</p>{notes}',
        _numbers(gallery),
        section("Confusion matrix", confusions(pairs, classes)),
        section("Most confident mistakes", *_mistakes(model, gallery.mistakes())),
        section("Classes and sample images", _classes(model, gallery)),
    ]
    return page(f"{model.title}, {model.part}", body, style=style)


def _counts(gallery: Gallery) -> tuple[dict[int, int], dict[int, int]]:
    """Return the number of images of each class, and of the predictions of each class, where it is not 0."""
    images: dict[int, int] = {}
    predictions: dict[int, int] = {}
    for (truth, prediction), count in gallery.pairs.items():
        images[truth] = images.get(truth, 0) + count
        predictions[prediction] = predictions.get(prediction, 0) + count
    return images, predictions


def _numbers(gallery: Gallery) -> str:
    images, _ = _counts(gallery)
    labels = sorted(images)
    right = [gallery.pairs.get((label, label), 0) for label in labels]
    counts = [images[label] for label in labels]
    top1 = sum(right) / gallery.images
    low, high = wilson(top1, gallery.images)
    return tiles(
        [
            (f"{top1:.2%}", f"accuracy (95 % interval {100 * low:.1f} to {100 * high:.1f})"),
            (f"{balanced_accuracy(right, counts):.2%}", "balanced accuracy: mean recall of the classes"),
            (f"{majority_share(counts):.2%}", "accuracy of always predicting the most frequent class"),
            (f"{gallery.images - sum(right):,}", "wrong predictions"),
            (f"{gallery.images:,}", "images"),
            (f"{len(labels):,}", "classes with images"),
        ]
    )


def _mistakes(model: ScoredModel, mistakes: Sequence[Seen]) -> list[str]:
    if not mistakes:
        return ["<p>Every prediction is right.</p>"]
    words = (
        "Wrong predictions with the highest confidence. Look for wrong labels, several objects in one image, and "
        "classes that even people confuse. The images are as the model saw them, before normalisation."
    )
    return [
        f'<p class="quiet">{words}</p>',
        f'<div class="mistakes">{"".join(_mistake(model, m) for m in mistakes)}</div>',
    ]


def _mistake(model: ScoredModel, seen: Seen) -> str:
    truth, prediction = (_short(model.classes[label]) for label in (seen.truth, seen.prediction))
    name = model.name_of(seen.position)
    alt = f"{name}: true class {truth}, predicted {prediction} with {seen.confidence:.1%} confidence"
    return (
        f"<figure>{_picture(seen, alt)}<figcaption><dl><dt>true</dt><dd>{escape(truth)}</dd>"
        f'<dt>predicted</dt><dd class="bad">{escape(prediction)}</dd><dt>confidence</dt>'
        f'<dd>{seen.confidence:.1%}</dd></dl><span class="file">{escape(name)}</span></figcaption></figure>'
    )


def _picture(seen: Seen, alt: str, kind: str = "") -> str:
    pixelated = " pixelated" if seen.side <= _PIXELATED_SIDE else ""
    return f'<img class="{kind}{pixelated}" alt="{escape(alt)}" title="{escape(alt)}" src="{seen.picture}">'


def _classes(model: ScoredModel, gallery: Gallery) -> str:
    images, predictions = _counts(gallery)
    right = {label: gallery.pairs.get((label, label), 0) for label in range(gallery.classes)}
    used = used_classes(gallery.pairs)
    if gallery.classes <= FEW_CLASSES:
        chosen, words = list(range(gallery.classes)), "Images spread over each class."
    else:
        lowest = sorted((label for label in used if label in images), key=lambda i: (right[i] / images[i], i))
        chosen = lowest[:CLASSES]
        words = (
            f"The {len(chosen)} of {len(images):,} classes with the lowest recall, with images spread over each class."
        )
    rows = "".join(
        f'<tr><th scope="row" title="{escape(model.classes[label])}">{escape(_short(model.classes[label]))}</th>'
        f"<td>{images.get(label, 0):,}</td><td>{_share(right[label], images.get(label, 0))}</td>"
        f"<td>{_share(right[label], predictions.get(label, 0))}</td>"
        f'<td class="samples">{"".join(_sample(model, seen) for seen in gallery.samples(label))}</td></tr>'
        for label in chosen
    )
    head = "".join(f'<th scope="col">{name}</th>' for name in ("class", "images", "recall", "precision", "samples"))
    legend = (
        f'<p class="quiet">{words} A <span class="bad">red frame</span> and the predicted class below it mark a wrong '
        "prediction. Recall: share of the class's images that are predicted as this class. Precision: share of the "
        "predictions of this class that are right.</p>"
    )
    table = f'<table class="classes"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'
    return f'{legend}<div class="scroll" tabindex="0" role="region" aria-label="Classes">{table}</div>'


def _sample(model: ScoredModel, seen: Seen) -> str:
    name, prediction = model.name_of(seen.position), _short(model.classes[seen.prediction])
    right = seen.truth == seen.prediction
    verdict = "predicted right" if right else f"predicted {prediction}"
    picture = _picture(seen, f"{name}: {verdict} with {seen.confidence:.1%} confidence", "" if right else "wrong")
    below = "" if right else f'<span class="bad">{escape(prediction)}</span>'
    return f'<span class="sample">{picture}{below}</span>'


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "–"


def _short(name: str) -> str:
    return clean(name, NAME_CHARS)
