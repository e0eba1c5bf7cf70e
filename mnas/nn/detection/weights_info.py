"""Read the metadata of a detector's weights file without torch, which takes seconds to import."""

from pathlib import Path
from typing import Any

from mnas import digests
from mnas.detector import DetectorMetadata, detector_from_json, detector_json
from mnas.metadata import DETECTOR_KEY
from mnas.nn.weights_info import is_weights_file, read_own, read_values
from mnas.readers import MODEL_BYTES, read_regular


def sealed_detector_json(metadata: DetectorMetadata) -> dict[str, Any]:
    """Return `detector_json` with the fingerprint of the detector and a placeholder for the digest."""
    values = detector_json(metadata) | {"fingerprint": metadata.detector.fingerprint}
    return values | {digests.KEY: digests.blank(values)}


def read_detector(path: Path) -> tuple[bytes, DetectorMetadata]:
    """Return content and metadata of a file by `save_detector`, checked against the digest in it.

    Raises:
        ChangedFileError: the file was changed.
        ValueError: the file does not exist, or is not by `save_detector`.
    """
    return read_own(path, "weights of a detector", _detectors_record)


def is_detector_file(path: Path) -> bool:
    """Return whether mnas wrote a file for a detector, by its metadata; the file may be damaged or of any kind."""
    if not is_weights_file(path):
        return False
    try:
        read = read_values(path, read_regular(path, MODEL_BYTES))
    except (OSError, ValueError):
        return False
    return read is not None and DETECTOR_KEY in read[0]


def _detectors_record(values: dict[str, Any]) -> DetectorMetadata:
    if DETECTOR_KEY not in values:
        raise ValueError("it is a classifier, and a detector is required; train one with mnas detect train")
    return detector_from_json(values)
