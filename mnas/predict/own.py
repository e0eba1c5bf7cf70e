"""Read the metadata of a model file written by mnas, and check the file against the digest in it."""

from pathlib import Path

from mnas.digests import ChangedFileError, notice_changed, require_intact
from mnas.formats import format_of, imported
from mnas.metadata import ModelMetadata, metadata_from_json

REMEDY = "export it again, or use --allow-changed"


def own_metadata(path: Path, content: bytes, *, allow_changed: bool) -> ModelMetadata | None:
    """Return the metadata of a .tflite, .onnx or .pte file; None for files of other programs.

    Raises:
        ChangedFileError: the file was changed after mnas wrote it, unless `allow_changed`.
        ValueError: its metadata are not those of mnas.
    """
    row = format_of(path)
    assert row is not None
    try:
        read = imported(row.reader)(path, content)
        if read is None:
            return None
        values, state = read
        if state == "changed" and allow_changed:
            notice_changed(str(path))
        else:
            require_intact(state, str(path), REMEDY)
        return metadata_from_json(values)
    except ChangedFileError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"the metadata of {str(path)!r} must be those that mnas writes, but got {error!r}") from None
