"""Shared parts of the report's charts: figures as plain dicts for Plotly, colours, axes, the line at T.

The page (page.js) sets the colours of text and grid, so that a chart follows the reader's light or dark theme.
Text from users is escaped, because Plotly interprets some HTML in hover text and labels.
"""

import html
from typing import Any

from mnas.latency.latency import Source
from mnas.text import clean

Figure = dict[str, Any]
"""A JSON-able Plotly figure: {"data": [...], "layout": {...}}."""

BLUE, RED, GREEN, GREY, VIOLET, AMBER = "#3b7dd8", "#d9482b", "#2f9e64", "#8793a3", "#8663c7", "#d98c1f"
LEGEND_BELOW = {"orientation": "h", "y": -0.3, "yanchor": "top"}

SYMBOLS: dict[Source, str] = {"measured": "circle", "cached": "square", "predicted": "circle-open"}
"""Source of a latency -> marker of its point."""


def escape(text: object) -> str:
    """Return `text` escaped, so that Plotly shows it literally."""
    return html.escape(clean(text), quote=False)


def axis(title: str, **more: Any) -> dict[str, Any]:
    """Return an axis with a title."""
    return {"title": {"text": title}, "automargin": True, "zeroline": False, **more}


def layout_of(x: dict[str, Any], y: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return a layout with two axes."""
    return {"xaxis": x, "yaxis": y, "margin": {"l": 48, "r": 12, "t": 34, "b": 44}, **more}


def target_lines(*targets_ms: float) -> dict[str, Any]:
    """Return the part of a layout that draws a labelled vertical line at each T."""
    line = {"color": GREY, "width": 1.5, "dash": "dash"}
    upright = {"type": "line", "y0": 0, "y1": 1, "yref": "paper", "line": line}
    label = {"y": 1, "yref": "paper", "yanchor": "bottom", "showarrow": False}
    if not targets_ms:
        return {}
    return {
        "shapes": [{**upright, "x0": target_ms, "x1": target_ms} for target_ms in targets_ms],
        "annotations": [{**label, "x": target_ms, "text": f"T = {target_ms:#.3g} ms"} for target_ms in targets_ms],
    }
