"""Make one HTML file with everything in it. `escape` handles every text that may come from a user."""

import base64
import hashlib
import html
from collections.abc import Iterable, Sequence
from importlib import resources

from mnas.text import clean


def escape(value: object) -> str:
    """Return `value` with all characters escaped that HTML would interpret, also in attributes."""
    return html.escape(clean(value), quote=True)


def page(title: str, body: Sequence[str], *, style: str = "", data: str = "", scripts: Sequence[str] = ()) -> str:
    """Return a page of HTML parts; it needs no server and no network.

    Its content security policy allows only these scripts and no requests, whatever names or errors contain.

    Args:
        title: plain text.
        style: CSS after the style that all pages share.
        data: HTML of elements that the scripts read, after the body.
        scripts: JavaScript; empty: the page has none.
    """
    allowed = f"; script-src {' '.join(map(_script_hash, scripts))}" if scripts else ""
    policy = f"default-src 'none'; style-src 'unsafe-inline'; img-src data: blob:{allowed}"
    shared = (resources.files("mnas.pages") / "style.css").read_text("utf-8")
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>mnas: {escape(title)}</title>",
            f"<style>{shared}{style}</style></head><body><main>",
            *body,
            f"</main>{data}",
            *(f"<script>{script}</script>" for script in scripts),
            "</body></html>\n",
        ]
    )


def section(title: str, *parts: str, kind: str = "") -> str:
    """Return a card with a heading (plain text) over parts (HTML); empty if all parts are empty."""
    body = "\n".join(part for part in parts if part)
    return f'<section class="{kind}"><h2>{escape(title)}</h2>\n{body}\n</section>' if body else ""


def header(title: str, state: str, kind: str = "") -> str:
    """Return the heading of a page (plain text), with a label beside it."""
    return f'<header><h1>{escape(title)}</h1><span class="state {escape(kind)}">{escape(state)}</span></header>'


def subtitle(parts: Iterable[object]) -> str:
    """Return the line below a page's heading as HTML, without empty parts."""
    return " · ".join(escape(part) for part in parts if part)


def tiles(figures: Iterable[tuple[str, str]]) -> str:
    """Return (number, meaning) pairs of plain text as a row of tiles."""
    inner = "".join(f'<div class="tile"><b>{escape(n)}</b><span>{escape(text)}</span></div>' for n, text in figures)
    return f'<div class="tiles">{inner}</div>'


def _script_hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
