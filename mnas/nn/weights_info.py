"""What a file of weights says besides its tensors; read without torch, which takes seconds to import."""

from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from mnas import digests
from mnas.digests import ChangedFileError
from mnas.metadata import ModelMetadata, metadata_from_json, metadata_json
from mnas.readers import MODEL_BYTES, open_regular, parse_json, read_regular

KEY = "mnas"
"""The only entry of the metadata: safetensors orders several at random, and equal weights are to be equal bytes."""
REMEDY = "take it from a copy that is whole, or train it again"
_BEFORE = {"arch", "classes", "mean", "std", "input_size", "accuracy", "crop", "trained_on"}


def sealed_json(info: ModelMetadata) -> dict[str, Any]:
    """Return `metadata_json` with the fingerprint of the architecture and the blank of a digest."""
    values = metadata_json(info) | {"fingerprint": info.arch.fingerprint}
    return values | {digests.KEY: digests.blank(values)}


def state_of_file(content: bytes, values: dict[str, Any]) -> digests.State:
    """Return the state of a file that holds `values`, by `sealed_json`, in its text."""
    state = digests.state_of(content, values.get(digests.KEY))
    return "changed" if state == "unsealed" and set(values) - _BEFORE else state


def read_values(path: Path, content: bytes) -> tuple[dict[str, Any], digests.State] | None:
    """Return what a file at `path` says of itself, unchecked, and its state; None for files of others.

    Raises SafetensorError, and ValueError where it says no JSON object.
    """
    with safe_open(path, "numpy") as file:
        text = (file.metadata() or {}).get(KEY)
    if text is None:
        return None
    values = parse_json(text)
    if not isinstance(values, dict):
        raise ValueError(f"{KEY!r} is no object")
    return values, state_of_file(content, values)


def is_weights_file(path: Path) -> bool:
    """Return whether a file says that mnas wrote it, whole or not; it may be no file of tensors at all."""
    try:
        open_regular(path).close()  # safetensors would wait for a pipe
        with safe_open(path, "numpy") as file:
            return KEY in (file.metadata() or {})
    except (OSError, SafetensorError):
        return False


def read_weights_info(path: Path, fingerprint: str | None = None) -> ModelMetadata:
    """Return the metadata of a file as `read_weights` does."""
    return read_weights(path, fingerprint)[1]


def require_unchanged(path: Path, fingerprint: str) -> None:
    """Raise ChangedFileError where a file of ours was changed, or holds weights of another architecture."""
    try:
        read_weights(path, fingerprint)
    except ChangedFileError:
        raise
    except ValueError:
        return  # no weights file of ours: whoever loads it says so


def read_weights(path: Path, fingerprint: str | None = None) -> tuple[bytes, ModelMetadata]:
    """Return the content and the metadata of a file by `save_weights`, checked against the digest in it.

    Args:
        fingerprint: of the architecture that the file must hold weights of; None for any.

    Raises:
        ChangedFileError: the file was changed, or is of another architecture.
        ValueError: no such file, or one that is not of `save_weights`.
    """
    try:
        content = read_regular(path, MODEL_BYTES)
        read = read_values(path, content)
        if read is None:
            raise KeyError(KEY)
        values, state = read
        digests.require_intact(state, str(path), REMEDY)
        info = metadata_from_json(values)
    except ChangedFileError:
        raise
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else error
        raise ValueError(
            f"weights must be a .safetensors file written by mnas, but got {str(path)!r} ({reason})"
        ) from None
    if fingerprint is not None and info.arch.fingerprint != fingerprint:
        raise ChangedFileError(
            f"{str(path)!r} must hold weights of architecture {fingerprint}, but holds those of "
            f"{info.arch.fingerprint}: it was replaced by another network's file; {REMEDY}"
        )
    return content, info
