"""The stored settings of what a command resumes, from which it takes whether images are mirrored."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mnas.readers import read_json


def stored_settings(path: Path, *keys: str) -> Mapping[str, Any] | None:
    """Return the object under `keys` in a JSON file of settings; None where it is missing or damaged.

    A damaged file is reported by the command that resumes what it belongs to.
    """
    try:
        found = read_json(path)
        for key in keys:
            found = found[key]
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return found if isinstance(found, dict) else None
