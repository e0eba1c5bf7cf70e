"""Make one HTML file with everything in it, including charts and Plotly; it needs no server and no network."""

import json
import math
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from mnas.pages.page import page as whole_page
from mnas.plot import Figure


def page(title: str, body: Sequence[str], charts: Mapping[str, Figure]) -> str:
    """Return a page of HTML parts, with the charts whose ids they have places for (`mnas.report.sections.chart`)."""
    from plotly.offline import get_plotlyjs

    folder = resources.files("mnas.report")
    return whole_page(
        title,
        body,
        style=(folder / "style.css").read_text("utf-8"),
        data=f'\n<script type="application/json" id="figures">{_embedded_json(charts)}</script>',
        scripts=[get_plotlyjs(), (folder / "page.js").read_text("utf-8")],
    )


def _embedded_json(values: Any) -> str:
    """Return JSON for a script element, without any `<`, which could end the element, and without NaN."""
    text = json.dumps(_finite(values), separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _finite(values: Any) -> Any:
    if isinstance(values, Mapping):
        return {k: _finite(v) for k, v in values.items()}
    if isinstance(values, list):
        return [_finite(v) for v in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values
