"""The metadata of a detector's LiteRT file, twice as in mnas.tflite.metadata: as JSON, and in LiteRT's own format."""

import json

from mnas import digests
from mnas.detector import DetectorMetadata, Suppression, exported_json
from mnas.tflite.metadata import ENTRY, GRAPH
from mnas.tflite.official import OFFICIAL_ENTRY, OutputTensor, official_metadata

_GROUP = "detection result"


def detector_entries(
    metadata: DetectorMetadata, suppression: Suppression | None, *, seal: bool = False
) -> dict[str, bytes]:
    """Return the file's metadata entries: name -> content.

    Args:
        suppression: rules by which the file selects boxes; None: it returns all boxes.
        seal: whether to include placeholders for the digests that `mnas.tflite.metadata.sealed` writes.
    """
    values = exported_json(metadata, suppression)
    if seal:
        values |= {GRAPH: digests.blank(values)}
        values |= {digests.KEY: digests.blank(values)}
    text = json.dumps(values, separators=(",", ":"), ensure_ascii=False)
    return {ENTRY: text.encode(), OFFICIAL_ENTRY: _official(metadata, raw=suppression is None)}


def _official(metadata: DetectorMetadata, *, raw: bool) -> bytes:
    """Return LiteRT's own metadata; MediaPipe finds the outputs of an object detector by these names."""
    name, moments = f"mnas {metadata.detector.fingerprint}", (metadata.mean, metadata.std)
    if raw:
        boxes = OutputTensor(name="boxes", corners=(0, 1, 2, 3), each=True)
        return official_metadata(name, moments, [boxes, OutputTensor(name="scores", labels="axis")])
    outputs = (
        OutputTensor(name="location", corners=(1, 0, 3, 2), each=True),
        OutputTensor(name="category", labels="value", each=True),
        OutputTensor(name="score", each=True),
        OutputTensor(name="number of detections"),
    )
    return official_metadata(name, moments, outputs, group=(_GROUP, [output.name for output in outputs[:3]]))
