"""Read the standard metadata of LiteRT files by any author: normalisation and labels.

Tables are read by the numbers of their fields in tensorflow/tflite-support's metadata_schema.fbs (identifier M001), as
`mnas.tflite.metadata` writes them.
"""

import io
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from flatbuffers import encode, number_types, packer
from flatbuffers.table import Table

from mnas.metadata import Triple
from mnas.predict.labels import names_of_lines

_NORMALIZATION_OPTIONS = 1  # union ProcessUnitOptions
_AXIS_LABELS, _VALUE_LABELS = 2, 3  # enum AssociatedFileType
_MOST_LABEL_BYTES = 4_000_000
# exceptions from reading a damaged table, or a damaged or encrypted archive
_DAMAGED = (
    struct.error,
    LookupError,
    TypeError,
    UnicodeDecodeError,
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    RuntimeError,
)


@dataclass(frozen=True, kw_only=True)
class OfficialMetadata:
    """Standard metadata; a field is None where the file lacks it."""

    normalisation: tuple[Triple, Triple] | None = None
    """Mean and std of pixels from 0 to 1."""
    labels: tuple[str, ...] | None = None


def read_official(entry: bytes, model: bytes) -> OfficialMetadata:
    """Return the metadata of the first input and output of `model` in its entry TFLITE_METADATA.

    Raises:
        ValueError: the entry is damaged, or names a file that is not zipped to the model's end.
    """
    try:
        root = Table(entry, encode.Get(packer.uoffset, entry, 0))
        subgraph = next(_tables(root, 3), None)
        if subgraph is None:
            return OfficialMetadata()
        image, output = next(_tables(subgraph, 2), None), next(_tables(subgraph, 3), None)
        return OfficialMetadata(
            normalisation=None if image is None else _normalisation(image),
            labels=None if output is None else _labels(output, model),
        )
    except _DAMAGED as error:
        raise ValueError(f"the entry TFLITE_METADATA must be intact, but got a damaged one ({error})") from None


def _normalisation(tensor: Table) -> tuple[Triple, Triple] | None:
    for unit in _tables(tensor, 4):
        if _byte(unit, 0) != _NORMALIZATION_OPTIONS:
            continue
        options = _table(unit, 1)
        if options is None:
            continue
        mean, std = (_triple(_floats(options, field)) for field in (0, 1))
        if mean is not None and std is not None and min(std) > 0:
            return mean, std
    return None


def _labels(tensor: Table, model: bytes) -> tuple[str, ...] | None:
    """Return the lines of the first file of labels; among several, the first one without a language."""
    files = [f for f in _tables(tensor, 6) if _byte(f, 2) in (_AXIS_LABELS, _VALUE_LABELS)]
    files.sort(key=lambda f: bool(_string(f, 3)))
    if not files:
        return None
    with zipfile.ZipFile(io.BytesIO(model)) as archive:
        info = archive.getinfo(_string(files[0], 0))
        if info.file_size > _MOST_LABEL_BYTES:
            raise ValueError(f"a file of labels must have at most {_MOST_LABEL_BYTES} bytes, but got {info.file_size}")
        return names_of_lines(archive.read(info).decode("utf-8-sig").splitlines())


def _triple(values: list[float]) -> Triple | None:
    """Return one number for all channels, or one for each, converted from pixels of 0..255 to 0..1."""
    if len(values) not in (1, 3) or not np.isfinite(values).all():
        return None
    red, green, blue = (value / 255 for value in values * (3 // len(values)))
    return red, green, blue


def _offset(table: Table, field: int) -> int:
    return int(table.Offset(4 + 2 * field))


def _table(table: Table, field: int) -> Table | None:
    offset = _offset(table, field)
    return Table(table.Bytes, table.Indirect(table.Pos + offset)) if offset else None


def _tables(table: Table, field: int) -> Iterator[Table]:
    offset = _offset(table, field)
    if offset:
        start = table.Vector(offset)
        for i in range(table.VectorLen(offset)):
            yield Table(table.Bytes, table.Indirect(start + 4 * i))


def _floats(table: Table, field: int) -> list[float]:
    offset = _offset(table, field)
    if not offset:
        return []
    values: Any = table.GetVectorAsNumpy(number_types.Float32Flags, offset)
    return [float(value) for value in values]


def _byte(table: Table, field: int) -> int:
    offset = _offset(table, field)
    return int(table.Get(number_types.Uint8Flags, table.Pos + offset)) if offset else 0


def _string(table: Table, field: int) -> str:
    offset = _offset(table, field)
    return bytes(table.String(table.Pos + offset)).decode() if offset else ""
