"""The confusion matrix as HTML: a shaded table of classes, a picture of all of them, and the most frequent errors."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from mnas.pages.gallery import FEW_CLASSES, data_uri
from mnas.pages.page import escape
from mnas.text import NAME_CHARS, clean

MOST_CONFUSED = 24
"""Number of classes in the table, if the data has more than `FEW_CLASSES`."""
ERRORS = 15
"""Number of the most frequent errors listed."""
_OVERVIEW_SIDE = 250
"""Largest side of the picture of all classes, in pixels; with more classes, a pixel shows several."""

Pairs = Mapping[tuple[int, int], int]
"""(true class, predicted class) -> number of images; omits pairs without images."""


def used_classes(pairs: Pairs) -> list[int]:
    """Return the classes that have images or are predicted."""
    return sorted({label for pair in pairs for label in pair})


def most_confused(pairs: Pairs, count: int) -> list[int]:
    """Return at most `count` classes, those of the pairs that are confused most often, in order of their index."""
    errors: Counter[tuple[int, int]] = Counter()
    for (truth, prediction), images in pairs.items():
        if truth != prediction:
            errors[min(truth, prediction), max(truth, prediction)] += images
    chosen: set[int] = set()
    for pair in sorted(errors, key=lambda pair: (-errors[pair], pair)):
        if len(chosen | {*pair}) <= count:
            chosen |= {*pair}
    return sorted(chosen)


def frequent_errors(pairs: Pairs, count: int) -> list[tuple[int, int, int]]:
    """Return the most frequent errors: (true class, predicted class, images), most frequent first."""
    wrong = [(*pair, images) for pair, images in pairs.items() if pair[0] != pair[1]]
    return sorted(wrong, key=lambda error: (-error[2], error[0], error[1]))[:count]


def confusions(pairs: Pairs, classes: Sequence[str]) -> str:
    """Return the matrix and the most frequent errors; of many classes a picture, and those confused most as a table."""
    used, errors = used_classes(pairs), _errors(pairs, classes)
    if len(used) <= FEW_CLASSES:
        matrix = _table(pairs, classes, used, rest=False)
        return _beside(matrix + _caption("Rows are true classes, columns are predictions."), errors)
    chosen = most_confused(pairs, MOST_CONFUSED)
    picture = _overview(pairs, used) + _caption(f"All {len(used):,} classes: rows are true classes.")
    if not chosen:
        return picture
    title = f"<h3>The {len(chosen)} classes of the most frequent confusions</h3>"
    words = "Rows are true classes, columns are predictions; the last but one counts predictions of all other classes."
    return _beside(picture, errors) + title + _table(pairs, classes, chosen, rest=True) + _caption(words)


def _errors(pairs: Pairs, classes: Sequence[str]) -> str:
    """Return the most frequent errors as a table; empty without errors."""
    totals = _totals(pairs)
    rows = "".join(
        f"<tr><td>{_name(classes[truth])}</td><td>{_name(classes[prediction])}</td><td>{images:,}</td>"
        f"<td>{images / totals[truth]:.1%}</td></tr>"
        for truth, prediction, images in frequent_errors(pairs, ERRORS)
    )
    head = "<th>true class</th><th>prediction</th><th>images</th><th>of class</th>"
    table = f'<table class="errors"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'
    return f'<h3>Most frequent errors</h3><div class="scroll">{table}</div>' if rows else ""


def _beside(*parts: str) -> str:
    """Return parts side by side where the window is wide enough."""
    return f'<div class="beside">{"".join(f"<div>{part}</div>" for part in parts if part)}</div>'


def _totals(pairs: Pairs) -> dict[int, int]:
    """Return the number of images of each true class that has any."""
    totals: dict[int, int] = {}
    for (truth, _), images in pairs.items():
        totals[truth] = totals.get(truth, 0) + images
    return totals


def _table(pairs: Pairs, classes: Sequence[str], chosen: Sequence[int], *, rest: bool) -> str:
    totals = _totals(pairs)
    heads = "".join(
        f'<th scope="col"><span title="{escape(classes[label])}">{_name(classes[label])}</span></th>'
        for label in chosen
    )
    if rest:
        heads += '<th scope="col"><span>all others</span></th>'
    rows = []
    for truth in chosen:
        total = totals.get(truth, 0)
        counts = [pairs.get((truth, prediction), 0) for prediction in chosen]
        cells = [_cell(count, total, prediction == truth) for prediction, count in zip(chosen, counts, strict=True)]
        if rest:
            cells.append(_cell(total - sum(counts), total, False))
        name = f'<th scope="row" title="{escape(classes[truth])}">{_name(classes[truth])}</th>'
        rows.append(f'<tr>{name}{"".join(cells)}<td class="total">{total:,}</td></tr>')
    corner = '<td class="corner">true class ↓ &nbsp; prediction →</td>'
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="Confusion matrix"><table class="matrix">'
        f'<thead><tr>{corner}{heads}<th scope="col"><span>images</span></th></tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _cell(count: int, total: int, right: bool) -> str:
    """Return a cell, shaded by its share of the row; empty without images."""
    if not count:
        return "<td></td>"
    share = count / total
    kind = ("right" if right else "wrong") + (" deep" if share > 0.45 else "")
    return f'<td class="{kind}" style="--share:{0.12 + 0.88 * share:.2f}" title="{share:.1%}">{count:,}</td>'


def _overview(pairs: Pairs, used: Sequence[int]) -> str:
    """Return a picture of all used classes, which is transparent where there are no images."""
    place = {label: index for index, label in enumerate(used)}
    totals = _totals(pairs)
    shrink = -(-len(used) // _OVERVIEW_SIDE)
    side = -(-len(used) // shrink)
    strength = np.zeros((side, side), np.float32)
    right = np.zeros((side, side), bool)
    for (truth, prediction), images in pairs.items():
        at = place[truth] // shrink, place[prediction] // shrink
        strength[at] = max(strength[at], 0.25 + 0.75 * images / totals[truth])
        right[at] |= truth == prediction
    pixels = np.empty((side, side, 4), np.uint8)
    pixels[..., :3] = np.where(right[..., None], (47, 111, 208), (217, 72, 43))
    pixels[..., 3] = (255 * strength).astype(np.uint8)
    label = f"Confusion matrix of all {len(used)} classes; the table of the most confused ones follows."
    return f'<img class="overview" alt="{label}" src="{data_uri(Image.fromarray(pixels, "RGBA"))}">'


def _caption(text: str) -> str:
    return f'<p class="quiet">{text} The shade is the share of the row.</p>'


def _name(name: str) -> str:
    return escape(clean(name, NAME_CHARS))
