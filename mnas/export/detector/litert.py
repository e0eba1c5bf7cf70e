"""Write a detector as a LiteRT file in int8; for float16, `mnas.export.litert.litert_fp16` serves detectors too.

All kinds take the same float32 input and return float32 outputs. The int8 file computes the network in integers, and
boxes and scores in float.
"""

import numpy as np

from mnas.data.image import Pixels
from mnas.detector import detector_from_json
from mnas.export.litert import litert_int8
from mnas.tflite.detection.heads import FLOAT_SCOPE
from mnas.tflite.metadata import read_values_of


def detector_int8(model: bytes, pixels: Pixels) -> bytes:
    """Return a file of `write_detector` in int8.

    Args:
        pixels: uint8 (N, S, S, 3), RGB; typical images, which set the ranges of the activations.

    Raises:
        ValueError: there are no images.
        ImportError: ai-edge-quantizer is missing.
    """
    metadata = detector_from_json(read_values_of(model))
    mean, std = (np.array(values, np.float32) for values in (metadata.mean, metadata.std))
    images = (pixels.astype(np.float32) / np.float32(255) - mean) / std
    return litert_int8(model, images, float_scope=FLOAT_SCOPE)
