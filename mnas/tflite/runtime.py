"""Run a LiteRT file on this machine, with the runtime and the delegate (XNNPACK) of the devices."""

import contextlib
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mnas.foreign.session import ForeignSession


def run_tflite(model: bytes, images: NDArray[np.float32], *, threads: int = 1) -> NDArray[np.float32]:
    """Return outputs (N, classes) for images (N, S, S, 3), normalised by the file's metadata; one image at a time.

    Raises:
        ValueError: the bytes are not a LiteRT file, the images do not have its input's shape or type, or threads < 1.
    """
    with tempfile.TemporaryDirectory(prefix="mnas-") as folder:
        path = Path(folder) / "model.tflite"
        path.write_bytes(model)
        with contextlib.closing(ForeignSession("litert", path, threads)) as session:
            expected = session.inputs[0].shape[1:]
            if images.dtype != np.float32 or images.shape[1:] != expected:
                raise ValueError(
                    f"images must be float32 (N, {', '.join(map(str, expected))}), "
                    f"but got {images.dtype} {images.shape}"
                )
            session.resize((1, *images.shape[1:]))
            outputs = session.outputs[0].shape[1:]
            rows = session.run(images, 1, int(np.prod([size or 1 for size in outputs])))
    return rows.astype(np.float32).reshape(len(images), *(size or 1 for size in outputs))
