"""Convert options that Python callers give as numbers or lists to the comma-separated text that settings take."""

from collections.abc import Mapping
from typing import Any


def joined(options: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Return the options, those of `names` as text: 96 becomes "96", and [96, 128] or (96, 128) becomes "96,128".

    Text does not change, and a name that is not among the options has no effect.
    """
    return {name: _text(value) if name in names else value for name, value in options.items()}


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
