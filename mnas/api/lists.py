"""Options of several values, which Python has as lists and the settings as text joined by commas."""

from collections.abc import Mapping
from typing import Any


def joined(options: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Return the options with numbers and lists of these names as text: 96 -> "96", (96, 128) -> "96,128"."""
    texts = {
        name: ",".join(map(str, options[name])) if isinstance(options[name], list | tuple) else str(options[name])
        for name in names
        if name in options
    }
    return {**options, **texts}
