"""Draw curves over epochs as SVG, whose colours follow the page's theme."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mnas.pages.page import escape

Points = Sequence[tuple[float, float]]
"""(x, y) pairs, by rising x."""

_WIDTH, _HEIGHT, _LEFT, _TOP, _RIGHT, _BELOW = 460, 220, 52, 10, 14, 40
_MOST_POINTS = 500
_KINDS = ("first", "second")  # classes in detected.css


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One curve of a chart."""

    name: str
    points: Points


def chart(curves: Sequence[Curve], *, percent: bool = False) -> str:
    """Return one or two curves over epochs, with a legend below, as HTML; y begins at 0.

    Args:
        curves: with one or more finite points each, x from 1 on and y of 0 or more.
        percent: label y as percentages.
    """
    x_high = max(2.0, *(x for curve in curves for x, _ in curve.points))
    y_high = 1.05 * max(y for curve in curves for _, y in curve.points) or 1.0

    def place(x: float, y: float) -> str:
        return f"{_LEFT + _WIDTH * (x - 1) / (x_high - 1):.1f} {_TOP + _HEIGHT * (1 - y / y_high):.1f}"

    width, height = _LEFT + _WIDTH + _RIGHT, _TOP + _HEIGHT + _BELOW
    words = "; ".join(f"{curve.name} {_label(curve.points[-1][1], percent)} at the end" for curve in curves)
    parts = [f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(words)}">']
    for value in round_ticks(0, y_high):
        at = place(1, value).split()[1]
        parts.append(f'<path class="grid" d="M{_LEFT} {at}h{_WIDTH}"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{float(at) + 4:.1f}" text-anchor="end">{_label(value, percent)}</text>')
    for value in (value for value in round_ticks(1, x_high) if float(value).is_integer()):
        at = place(value, 0).split()[0]
        parts.append(f'<text x="{at}" y="{_TOP + _HEIGHT + 18}" text-anchor="middle">{value:g}</text>')
    parts.append(f'<text x="{_LEFT + _WIDTH / 2}" y="{height - 4}" text-anchor="middle">epoch</text>')
    for kind, curve in zip(_KINDS, curves, strict=False):
        points = thinned(curve.points)
        parts.append(f'<path class="curve {kind}" d="M{"L".join(place(x, y) for x, y in points)}"/>')
        x, y = place(*points[-1]).split()
        parts.append(f'<circle class="{kind}" cx="{x}" cy="{y}" r="3.5"/>')
    keys = "".join(
        f'<span class="key {kind}">{escape(curve.name)}</span>' for kind, curve in zip(_KINDS, curves, strict=False)
    )
    return "".join([*parts, f'</svg><p class="quiet">{keys}</p>'])


def thinned(points: Points) -> Points:
    """Return at most 500 points, spread evenly, with the first and the last."""
    if len(points) <= _MOST_POINTS:
        return points
    step = (len(points) - 1) / (_MOST_POINTS - 1)
    return [points[round(place * step)] for place in range(_MOST_POINTS)]


def round_ticks(low: float, high: float) -> list[float]:
    """Return four to ten round numbers from `low` to `high`, which is larger."""
    step = 10.0 ** math.floor(math.log10(high - low))
    step = next(s * step for s in (2, 1, 0.5, 0.2) if (high - low) / (s * step) >= 4.5)
    return [round(i * step, 10) for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _label(value: float, percent: bool) -> str:
    return f"{100 * value:.4g} %" if percent else f"{value:.4g}"
