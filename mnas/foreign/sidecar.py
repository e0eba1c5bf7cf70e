"""The sidecar of an ExecuTorch program, which contains the metadata that the program format has no place for."""

import hashlib
import json
from pathlib import Path
from typing import Any

from mnas import digests
from mnas.formats import SIDECAR_SUFFIX
from mnas.metadata import ModelMetadata, metadata_json
from mnas.readers import JSON_BYTES, parse_json, read_regular

PROGRAM = "sha256"
"""Key of the program's digest in the sidecar."""


def sidecar(info: ModelMetadata, program: bytes) -> str:
    """Return the text of `model.pte.json`: metadata, the program's SHA-256, and a digest of the text itself."""
    values = metadata_json(info) | {PROGRAM: hashlib.sha256(program).hexdigest(), "fingerprint": info.arch.fingerprint}
    values |= {digests.KEY: digests.blank(values)}
    text = json.dumps(values, ensure_ascii=False, indent=1) + "\n"
    return digests.sealed(text.encode(), values[digests.KEY]).decode()


def read_values(path: Path, content: bytes) -> tuple[dict[str, Any], digests.State] | None:
    """Return the unchecked sidecar of the program at `path`, and the state of both files; None without a sidecar.

    Raises OSError, and ValueError if the sidecar is not a JSON object.
    """
    beside = path.with_name(path.name + SIDECAR_SUFFIX)
    if not beside.exists():
        return None
    text = read_regular(beside, JSON_BYTES)
    values = parse_json(text)
    if not isinstance(values, dict):
        raise ValueError(f"{beside.name} must be a JSON object")
    state = digests.state_of(text, values.get(digests.KEY))
    if state == "unsealed" and "fingerprint" in values:
        state = "changed"
    if values.get(PROGRAM, "") not in ("", hashlib.sha256(content).hexdigest()):
        state = "changed"
    return values, state
