"""What the report's charts have in common: figures as plain dicts for Plotly, colours, axes, the line at T.

Colours of text and grid are the page's business (page.js), so that a chart follows the reader's light or dark theme.
Text that comes from users is escaped: Plotly reads hover text and labels as a small HTML.
"""

import html
from typing import Any

from mnas.latency.latency import Source
from mnas.text import clean

Figure = dict[str, Any]
"""{"data": [...], "layout": {...}}, ready for JSON."""

BLUE, RED, GREEN, GREY, VIOLET, AMBER = "#3b7dd8", "#d9482b", "#2f9e64", "#8793a3", "#8663c7", "#d98c1f"
LEGEND_BELOW = {"orientation": "h", "y": -0.3, "yanchor": "top"}

SYMBOLS: dict[Source, str] = {"measured": "circle", "cached": "square", "predicted": "circle-open"}
"""A point's shape says where its latency comes from."""


def escape(text: object) -> str:
    """`text` as Plotly shows it and reads nothing into it."""
    return html.escape(clean(text), quote=False)


def axis(title: str, **more: Any) -> dict[str, Any]:
    """An axis with a title."""
    return {"title": {"text": title}, "automargin": True, "zeroline": False, **more}


def layout_of(x: dict[str, Any], y: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A layout with two axes."""
    return {"xaxis": x, "yaxis": y, "margin": {"l": 48, "r": 12, "t": 34, "b": 44}, **more}


def target_lines(*targets_ms: float) -> dict[str, Any]:
    """A vertical line at each T with its label, as a part of a layout."""
    line = {"color": GREY, "width": 1.5, "dash": "dash"}
    upright = {"type": "line", "y0": 0, "y1": 1, "yref": "paper", "line": line}
    label = {"y": 1, "yref": "paper", "yanchor": "bottom", "showarrow": False}
    if not targets_ms:
        return {}
    return {
        "shapes": [{**upright, "x0": target_ms, "x1": target_ms} for target_ms in targets_ms],
        "annotations": [{**label, "x": target_ms, "text": f"T = {target_ms:#.3g} ms"} for target_ms in targets_ms],
    }
