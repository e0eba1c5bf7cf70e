"""Mirroring in commands that train: as what they go on with was begun, and the warning about names of classes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mnas.readers import read_json


def stored_settings(path: Path, *keys: str) -> Mapping[str, Any] | None:
    """Return what lies under `keys` in a JSON file of settings; None where there is none, whatever is wrong with it.

    The command that goes on with what the file belongs to says so, if it is damaged.
    """
    try:
        found = read_json(path)
        for key in keys:
            found = found[key]
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return found if isinstance(found, dict) else None
