"""Make one HTML file with everything in it, including style, charts and Plotly; it needs no server and no network."""

import base64
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from mnas.plot import Figure
from mnas.report.sections import escape


def page(title: str, body: Sequence[str], charts: Mapping[str, Figure]) -> str:
    """Return a page of HTML parts, with the charts whose ids they have places for (`mnas.report.sections.chart`).

    Its content security policy allows only our own two scripts and no requests, whatever names or errors contain.
    """
    from plotly.offline import get_plotlyjs

    folder = resources.files("mnas.report")
    scripts = [get_plotlyjs(), (folder / "page.js").read_text("utf-8")]
    policy = (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data: blob:; "
        f"script-src {' '.join(_script_hash(s) for s in scripts)}"
    )
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>mnas: {escape(title)}</title>",
            f"<style>{(folder / 'style.css').read_text('utf-8')}</style></head><body><main>",
            *body,
            f'</main>\n<script type="application/json" id="figures">{_embedded_json(charts)}</script>',
            *(f"<script>{script}</script>" for script in scripts),
            "</body></html>\n",
        ]
    )


def _script_hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


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
