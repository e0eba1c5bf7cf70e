"""Read the metadata of a model file written by mnas, and check the file against the digest in it."""

from pathlib import Path
from typing import Any

from mnas.digests import State, notice_changed, require_intact
from mnas.formats import format_of, imported
from mnas.metadata import ModelMetadata, metadata_from_json, require_classifier

REMEDY = "export it again, or use --allow-changed"


def own_values(path: Path, content: bytes, *, allow_changed: bool) -> dict[str, Any] | None:
    """Return the unchecked metadata of a file of any format; None for files of other programs.

    Raises:
        ChangedFileError: the file was changed after mnas wrote it, unless `allow_changed`.
        ValueError: its metadata are not those of mnas.
    """
    row = format_of(path)
    assert row is not None
    try:
        read: tuple[dict[str, Any], State] | None = imported(row.reader)(path, content)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{_rule(path)}, but got {error!r}") from None
    if read is None:
        return None
    values, state = read
    if state == "changed" and allow_changed:
        notice_changed(str(path))
    else:
        require_intact(state, str(path), REMEDY)
    return values


def own_metadata(path: Path, content: bytes, *, allow_changed: bool) -> ModelMetadata | None:
    """Return the metadata of a classifier in a .tflite, .onnx or .pte file; None for files of other programs.

    Raises:
        ChangedFileError: the file was changed after mnas wrote it, unless `allow_changed`.
        ValueError: its metadata are not those of mnas, or the file is a detector.
    """
    values = own_values(path, content, allow_changed=allow_changed)
    if values is None:
        return None
    try:
        require_classifier(values)
    except ValueError as error:
        raise ValueError(f"{str(path)!r}: {error}") from None
    try:
        return metadata_from_json(values)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{_rule(path)}, but got {error!r}") from None


def _rule(path: Path) -> str:
    return f"the metadata of {str(path)!r} must be those that mnas writes"
