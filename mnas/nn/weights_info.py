"""Read the metadata of a weights file without torch, which takes seconds to import."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError, safe_open

from mnas import digests
from mnas.digests import ChangedFileError
from mnas.metadata import ModelMetadata, metadata_from_json, metadata_json
from mnas.readers import MODEL_BYTES, open_regular, parse_json, read_regular

KEY = "mnas"
"""Only key of the metadata: safetensors orders several at random, but equal weights must give equal bytes."""
REMEDY = "restore it from an intact copy, or train it again"
_Record = TypeVar("_Record")
_BEFORE = {"arch", "classes", "mean", "std", "input_size", "accuracy", "crop", "trained_on"}


def sealed_json(info: ModelMetadata) -> dict[str, Any]:
    """Return `metadata_json` with the fingerprint of the architecture and a placeholder for the digest."""
    values = metadata_json(info) | {"fingerprint": info.arch.fingerprint}
    return values | {digests.KEY: digests.blank(values)}


def state_of_file(content: bytes, values: dict[str, Any]) -> digests.State:
    """Return the state of a file with the metadata `values` from `sealed_json`."""
    state = digests.state_of(content, values.get(digests.KEY))
    return "changed" if state == "unsealed" and set(values) - _BEFORE else state


def read_values(path: Path, content: bytes) -> tuple[dict[str, Any], digests.State] | None:
    """Return the unchecked metadata of the file at `path`, and its state; None for other authors' files.

    Raises SafetensorError, and ValueError if the metadata are not a JSON object.
    """
    with safe_open(path, "numpy") as file:
        text = (file.metadata() or {}).get(KEY)
    if text is None:
        return None
    values = parse_json(text)
    if not isinstance(values, dict):
        raise ValueError(f"{KEY!r} is not a JSON object")
    return values, state_of_file(content, values)


def is_weights_file(path: Path) -> bool:
    """Return whether mnas wrote a file, by its metadata; the file may be damaged or of any other kind."""
    try:
        open_regular(path).close()  # rejects a pipe, for which safetensors would wait
        with safe_open(path, "numpy") as file:
            return KEY in (file.metadata() or {})
    except (OSError, SafetensorError):
        return False


def read_weights_info(path: Path, fingerprint: str | None = None) -> ModelMetadata:
    """Return the metadata of a file, checked as in `read_weights`."""
    return read_weights(path, fingerprint)[1]


def require_unchanged(path: Path, fingerprint: str) -> None:
    """Raise ChangedFileError if a file written by mnas was changed, or has weights of another architecture."""
    try:
        read_weights(path, fingerprint)
    except ChangedFileError:
        raise
    except ValueError:
        return  # not a weights file of mnas, which loading it will report


def read_weights(path: Path, fingerprint: str | None = None) -> tuple[bytes, ModelMetadata]:
    """Return content and metadata of a file by `save_weights`, checked against the digest in it.

    Args:
        fingerprint: fingerprint of the expected architecture; None: any.

    Raises:
        ChangedFileError: the file was changed, or belongs to another architecture.
        ValueError: the file does not exist, or is not by `save_weights`.
    """
    content, info = read_own(path, "weights", metadata_from_json)
    if fingerprint is not None and info.arch.fingerprint != fingerprint:
        raise ChangedFileError(
            f"{str(path)!r} must contain weights of architecture {fingerprint}, but contains those of "
            f"{info.arch.fingerprint}: another network's file replaced it; {REMEDY}"
        )
    return content, info


def read_own(path: Path, what: str, record: Callable[[dict[str, Any]], _Record]) -> tuple[bytes, _Record]:
    """Return content and record of a file with sealed metadata, checked against the digest in it.

    Args:
        what: what the file should contain, for messages.
        record: function from the metadata to their record, which raises KeyError, TypeError or ValueError.

    Raises:
        ChangedFileError: the file was changed.
        ValueError: the file does not exist, or is not by mnas, or `record` raises.
    """
    try:
        content = read_regular(path, MODEL_BYTES)
        read = read_values(path, content)
        if read is None:
            raise KeyError(KEY)
        values, state = read
        digests.require_intact(state, str(path), REMEDY)
        return content, record(values)
    except ChangedFileError:
        raise
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else error
        raise ValueError(
            f"{what} must be a .safetensors file written by mnas, but got {str(path)!r} ({reason})"
        ) from None
