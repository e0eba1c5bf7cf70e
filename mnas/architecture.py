"""The common type of block and cell architectures.

Both have `output_stride`, `check_input_size`, `canonical`, `fingerprint`, `scale_width`, `with_output_stride`, `lines`,
`to_dict` and `to_json`. Their JSON names the kind: `"kind": "cell"`, or no kind for blocks.
"""

import reprlib

from mnas.arch import Arch
from mnas.cell_arch import CellArch
from mnas.readers import parse_json

Architecture = Arch | CellArch


def architecture_from_dict(values: object) -> Architecture:
    """Return the architecture of `to_dict`'s values. Raises ValueError on an unknown, missing or invalid field."""
    if isinstance(values, dict) and "kind" in values:
        if values["kind"] != "cell":
            raise ValueError(f"kind must be cell, or absent for blocks, but got {reprlib.repr(values['kind'])}")
        return CellArch.from_dict(values)
    return Arch.from_dict(values)


def architecture_from_json(text: str | bytes) -> Architecture:
    """Return the architecture of `to_json`'s text. Raises ValueError if it is not JSON or not an architecture."""
    try:
        values = parse_json(text)
    except ValueError as error:
        raise ValueError(f"an architecture file must be JSON: {error}") from None
    return architecture_from_dict(values)
