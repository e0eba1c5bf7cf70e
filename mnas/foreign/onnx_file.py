"""Read and seal ONNX files without the package onnx: fields, our metadata, and the digest of the rest."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mnas import digests
from mnas.readers import parse_json

METADATA_KEY = "mnas"
"""Key in `metadata_props`; its value is JSON by `mnas.metadata.metadata_json`."""
_METADATA_PROPS = 14
_ABOUT = {2, 3, 4, 5, 6, _METADATA_PROPS}
"""Numbers of the fields for producer, domain, version, documentation and `metadata_props`, outside the digest."""
_BEFORE = {"arch", "classes", "mean", "std", "input_size", "accuracy", "crop", "trained_on"}


def fields(message: memoryview) -> Iterator[tuple[int, int, int]]:
    """Yield (number, start, end) of each field of a protobuf message; a damaged one raises IndexError, KeyError, ..."""
    place = 0
    while place < len(message):
        tag, place = _number(message, place)
        kind = tag & 7
        if kind == 2:
            length, start = _number(message, place)
            end = start + length
        elif kind == 0:
            start, (_, end) = place, _number(message, place)
        else:
            start, end = place, place + {1: 8, 5: 4}[kind]
        yield tag >> 3, start, end
        place = end


def _number(message: memoryview, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
        shift += 7
        if shift > 63:
            raise ValueError("a number must have at most 64 bits")


def sealed(model: bytes, values: Mapping[str, Any]) -> bytes:
    """Return `model` with its digest in place of the placeholder in `values`, its metadata."""
    digest = _digest(memoryview(model), values)
    return model.replace(values[digests.KEY].encode(), digest.encode())


def read_values(path: Path, content: bytes) -> tuple[dict[str, Any], digests.State] | None:
    """Return the unchecked metadata of a file written by mnas, and its state; None for other authors' or damaged files.

    Tools that add metadata or documentation leave it intact. Raises ValueError if the metadata are not a JSON object.
    """
    view = memoryview(content)
    try:
        text = _metadata(view)
    except (IndexError, KeyError, ValueError, OverflowError):
        return None  # the runtime reports a damaged file
    if text is None:
        return None
    values = parse_json(text)
    if not isinstance(values, dict):
        raise ValueError(f"{METADATA_KEY!r} must be a JSON object")
    digest = values.get(digests.KEY)
    if digest is None:
        return values, "changed" if set(values) - _BEFORE else "unsealed"
    return values, "intact" if _digest(view, values) == digest else "changed"


def _metadata(model: memoryview) -> bytes | None:
    for number, start, end in fields(model):
        if number == _METADATA_PROPS:
            entry = model[start:end]
            pair = {inner: bytes(entry[a:b]) for inner, a, b in fields(entry)}
            if pair.get(1) == METADATA_KEY.encode():
                return pair.get(2, b"")
    return None


def _digest(model: memoryview, values: Mapping[str, Any]) -> str:
    digest = hashlib.sha256()
    about = {name: value for name, value in values.items() if name != digests.KEY}
    digest.update(json.dumps(about, sort_keys=True).encode())
    for number, start, end in sorted(fields(model), key=lambda field: field[0]):
        if number not in _ABOUT:
            digest.update(b"%d %d:" % (number, end - start))
            digest.update(model[start:end])
    return digest.hexdigest()
