"""Charts of a bench as SVG, for documents: the figures of the page, as lines and points only."""

import html
import math
from collections.abc import Callable, Sequence
from typing import Any

from mnas.pages.curves import round_ticks
from mnas.plot import Figure
from mnas.text import clean

_WIDTH, _HEIGHT, _LEFT, _TOP = 460, 300, 58, 14
Scale = Callable[[float], float]


def svg(figures: Sequence[Figure]) -> str:
    """Return figures of lines and points side by side, above the legend of the first."""
    names = [(trace["name"], _colour(trace)) for figure in figures[:1] for trace in figure["data"]]
    rows = -(-len(names) // 6)
    width, height = len(figures) * (_WIDTH + _LEFT + 26), _TOP + _HEIGHT + 52 + 20 * rows
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" '
        'font-size="12" fill="#333">',
        '<rect width="100%" height="100%" fill="#fff"/>',
    ]
    for index, figure in enumerate(figures):
        offset = index * (_WIDTH + _LEFT + 26) + _LEFT
        parts += [f'<g transform="translate({offset} {_TOP})">', *_panel(figure), "</g>"]
    for index, (name, colour) in enumerate(names):
        x, y = _LEFT + 170 * (index % 6), height - 20 * (rows - index // 6) + 6
        parts.append(f'<path d="M{x} {y}h18" stroke="{colour}" stroke-width="3"/>')
        parts.append(f'<text x="{x + 24}" y="{y + 4}">{_text(name)}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _panel(figure: Figure) -> list[str]:
    layout = figure["layout"]
    logarithmic = layout["xaxis"].get("type") == "log"
    x_low, x_high = _bounds([v for t in figure["data"] for v in t["x"]], logarithmic)
    y_low, y_high = _bounds([v for t in figure["data"] for v in _extent(t)], False)

    def x_of(value: float) -> float:
        if logarithmic:
            return _WIDTH * math.log(value / x_low) / math.log(x_high / x_low)
        return _WIDTH * (value - x_low) / (x_high - x_low)

    def y_of(value: float) -> float:
        return _HEIGHT * (y_high - value) / (y_high - y_low)

    parts = [f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#f6f6f6"/>']
    x_ticks = [v for v in layout["xaxis"].get("tickvals", ()) if x_low <= v <= x_high] or round_ticks(x_low, x_high)
    percent = str(layout["yaxis"].get("tickformat", "")).endswith("%")
    for value in x_ticks:
        parts.append(f'<path d="M{x_of(value):.1f} 0V{_HEIGHT}" stroke="#ddd"/>')
        parts.append(f'<text x="{x_of(value):.1f}" y="{_HEIGHT + 16}" text-anchor="middle">{value:g}</text>')
    for value in round_ticks(y_low, y_high):
        parts.append(f'<path d="M0 {y_of(value):.1f}H{_WIDTH}" stroke="#ddd"/>')
        label = f"{100 * value:g} %" if percent else f"{value:g}"
        parts.append(f'<text x="-6" y="{y_of(value) + 4:.1f}" text-anchor="end">{label}</text>')
    for shape in layout.get("shapes", ()):
        x = x_of(shape["x0"])
        parts.append(f'<path d="M{x:.1f} 0V{_HEIGHT}" stroke="{shape["line"]["color"]}" stroke-dasharray="5 4"/>')
    for trace in figure["data"]:
        parts += _trace(trace, x_of, y_of)
    parts.append(_title(layout["xaxis"], f'x="{_WIDTH / 2}" y="{_HEIGHT + 36}"'))
    parts.append(_title(layout["yaxis"], f'transform="translate(-44 {_HEIGHT / 2}) rotate(-90)"'))
    return parts


def _title(axis: dict[str, Any], place: str) -> str:
    return f'<text {place} text-anchor="middle">{_text(axis["title"]["text"])}</text>'


def _trace(trace: dict[str, Any], x_of: Scale, y_of: Scale) -> list[str]:
    places = [(x_of(x), y_of(y)) for x, y in zip(trace["x"], trace["y"], strict=True)]
    colour, parts = _colour(trace), []
    for (x, _), value, half in zip(places, trace["y"], trace.get("error_y", {}).get("array", ()), strict=False):
        if math.isfinite(half):
            parts.append(f'<path d="M{x:.1f} {y_of(value - half):.1f}V{y_of(value + half):.1f}" stroke="{colour}"/>')
    if "lines" in trace["mode"]:
        steps = trace["line"].get("shape") == "hv"
        path = f"M{places[0][0]:.1f} {places[0][1]:.1f}"
        for x, y in places[1:]:
            path += f"H{x:.1f}V{y:.1f}" if steps else f"L{x:.1f} {y:.1f}"
        parts.append(f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.8"/>')
    if "markers" in trace["mode"]:
        radius = trace["marker"]["size"] / 2
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}" fill="{colour}"/>' for x, y in places]
        if "lines" not in trace["mode"]:  # a named network
            parts += [f'<text x="{x + 9:.1f}" y="{y + 4:.1f}">{_text(trace["name"])}</text>' for x, y in places]
    return parts


def _colour(trace: dict[str, Any]) -> str:
    return str(trace.get("line", trace.get("marker", {})).get("color", "#333"))


def _text(text: str) -> str:
    return html.escape(clean(html.unescape(text)), quote=False)  # figures hold text as Plotly reads it


def _extent(trace: dict[str, Any]) -> list[float]:
    halves = trace.get("error_y", {}).get("array", [0.0] * len(trace["y"]))
    bars = [(y, h if math.isfinite(h) else 0.0) for y, h in zip(trace["y"], halves, strict=True)]
    return [y + sign * h for y, h in bars for sign in (-1, 1)]


def _bounds(values: Sequence[float], logarithmic: bool) -> tuple[float, float]:
    low, high = min(values), max(values)
    if logarithmic:
        return low / 1.05, high * 1.05
    margin = 0.04 * (high - low) or 0.5
    return low - margin, high + margin
