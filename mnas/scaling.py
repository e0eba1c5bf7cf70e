"""Parse width multipliers and input sizes of the command line: one, or several joined by commas."""

import os
import re
from collections.abc import Sequence

from mnas.architecture import Architecture
from mnas.names import resolve_arch
from mnas.require import require_input_size, require_number
from mnas.zoo.architectures import ZOO


def input_sizes(text: str) -> tuple[int, ...]:
    """Return (96, 128, 160) for `96,128,160` and () for `auto`. Raises ValueError for other text."""
    if text.strip() == "auto":
        return ()
    try:
        sizes = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ValueError(
            f"--input-size must be a number of pixels, several joined by commas (96,128,160), or auto, but got {text!r}"
        ) from None
    for size in sizes:
        require_input_size("--input-size", size)
    _require_unique("--input-size", sizes)
    return sizes


def width_multipliers(text: str) -> tuple[float, ...]:
    """Return (0.35, 0.5) for `0.35,0.5`. Raises ValueError unless all are numbers from 0.01 to 100."""
    try:
        widths = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(
            f"--width-multiplier must be a number, or several joined by commas (0.35,0.5), but got {text!r}"
        ) from None
    for width in widths:
        require_number("--width-multiplier", width, 0.01, 100)
    _require_unique("--width-multiplier", widths)
    return widths


def at_width(name: str, width_multiplier: float) -> tuple[str, Architecture]:
    """Return the name of the scaled architecture, such as `mnasnet-a1@0.5/s8`, and the architecture itself.

    Raises:
        ValueError: the architecture does not exist, or its name already has a width.
    """
    arch = resolve_arch(name)
    if width_multiplier == 1:
        return name, arch
    width = f"{width_multiplier:.9f}".rstrip("0").rstrip(".")
    if re.split("[@/]", name)[0] not in ZOO or os.path.exists(name):
        return f"{name} x{width}", arch.scale_width(width_multiplier)
    if "@" in name:
        raise ValueError(
            f"--width-multiplier cannot scale {name!r}, whose name already has a width; use only one of the two"
        )
    base, slash, stride = name.partition("/")
    scaled = f"{base}@{width}{slash}{stride}"
    return scaled, resolve_arch(scaled)


def _require_unique(option: str, numbers: Sequence[float]) -> None:
    if len(set(numbers)) < len(numbers):
        raise ValueError(f"{option} must not repeat a value, but got {', '.join(map(str, numbers))}")
