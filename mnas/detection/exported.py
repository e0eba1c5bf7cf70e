"""Open exported detectors: .tflite and .onnx files of mnas, which give all boxes or the selected ones."""

import importlib.util
import math
from collections.abc import Sequence
from pathlib import Path
from typing import final

import numpy as np
import numpy.typing as npt

from mnas.data.image import Pixels
from mnas.detector import DetectorMetadata, Suppression, detector_from_json, suppression_from_json
from mnas.foreign.session import ForeignSession, Runtime
from mnas.formats import FORMATS, FormatName, format_of
from mnas.metadata import DETECTOR_KEY
from mnas.predict.own import own_values
from mnas.predict.tensors import encoder, image_entry
from mnas.readers import MODEL_BYTES, read_regular

Shares = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.int64]]
"""Boxes (N, 4) of left, top, right and bottom as shares of the image, scores (N,) and classes (N,) from 0."""
_RUNTIMES: dict[FormatName, Runtime] = {"litert": "litert", "onnx": "onnx"}
_Output = npt.NDArray[np.float32]


@final
class ExportedDetector:
    """A detector in a .tflite or .onnx file, which runs in a process of its own until `close` or the last reference."""

    def __init__(
        self, session: ForeignSession, metadata: DetectorMetadata, suppression: Suppression | None, size_bytes: int
    ) -> None:
        self.metadata, self.suppression, self.size_bytes = metadata, suppression, size_bytes
        self._session = session
        size = metadata.detector.input_size
        entry = image_entry(session, session.name)
        session.resize((1, 3, size, size) if entry.channels_first else (1, size, size, 3))
        self._encode = encoder(entry, (metadata.mean, metadata.std))
        self._shapes = _output_shapes(metadata, suppression)
        self._edges = [1, 0, 3, 2] if session.runtime == "litert" else [0, 1, 2, 3]

    def close(self) -> None:
        """End the file's process; it cannot run afterwards."""
        self._session.close()

    def detect(
        self, pixels: Pixels, score_threshold: float = 0.001, *, nms_iou: float = 0.55, most: int = 300
    ) -> list[Shares]:
        """Return the objects in each image, the best score first.

        Args:
            pixels: uint8 (N, S, S, 3), RGB, with S the detector's input size.
            score_threshold: probability above which a box is an object; a file that selects boxes has its own, too.
            nms_iou: intersection over union with a better box above which a file's box is dropped, if it gives all.
            most: largest number of objects in an image, and of candidates of a class.

        Raises:
            ValueError: pixels have another shape or type, outputs are not finite, or the file's process has ended.
        """
        require_pixels(pixels, self.metadata.detector.input_size)
        return [self._objects(self._run(image), score_threshold, nms_iou, most) for image in pixels]

    def _objects(self, outputs: Sequence[_Output], score_threshold: float, nms_iou: float, most: int) -> Shares:
        if self.suppression is None:
            boxes, scores = outputs
            return _selected(boxes, scores, score_threshold, nms_iou, most)
        location, category, score, count = outputs
        chosen = (np.arange(len(score)) < min(int(count), most)) & (score > score_threshold)
        boxes = location[chosen][:, self._edges].clip(0, 1)
        return boxes, score[chosen], category[chosen].astype(np.int64)

    def _run(self, image: Pixels) -> list[_Output]:
        """Return the file's outputs for one image, without the batch."""
        sizes = [math.prod(shape) for shape in self._shapes]
        values = self._encode(image[None])
        (row,) = self._session.run(values, 1, sum(sizes), every=True).astype(np.float32, copy=False)
        if not np.isfinite(row).all():
            raise ValueError(f"a detector must give finite numbers, but {self._session.name!r} gave others")
        parts = np.split(row, np.cumsum(sizes)[:-1])
        return [part.reshape(shape) for part, shape in zip(parts, self._shapes, strict=True)]


def load_exported(path: Path, *, threads: int = 1, allow_changed: bool = False) -> ExportedDetector:
    """Open a .tflite or .onnx file that `mnas detect export` wrote.

    Args:
        threads: number of the runtime's threads.
        allow_changed: whether to open a file that was changed after mnas wrote it.

    Raises:
        ChangedFileError: a ValueError: the file was changed after mnas wrote it.
        ImportError: the runtime is not installed.
        OSError: the file cannot be read.
        ValueError: the file is damaged, or is not a detector of mnas.
    """
    row = format_of(path)
    if row is None or row.name not in _RUNTIMES:
        suffixes = " or ".join(FORMATS[name].suffix for name in _RUNTIMES)
        raise ValueError(f"an exported detector must be a {suffixes} file, but got {str(path)!r}")
    content = read_regular(path, MODEL_BYTES)
    if row.name == "onnx" and importlib.util.find_spec("onnxruntime") is None:
        raise ImportError("running .onnx files needs onnxruntime: pip install 'mnas[onnx]'")
    values = own_values(path, content, allow_changed=allow_changed)
    if values is None or DETECTOR_KEY not in values:
        other = "another program's file" if values is None else "a classifier"
        raise ValueError(f"{str(path)!r} must be a detector that mnas exported, but is {other}")
    try:
        metadata, suppression = detector_from_json(values), suppression_from_json(values)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"the metadata of {str(path)!r} must be those that mnas writes, but got {error!r}") from None
    return ExportedDetector(ForeignSession(_RUNTIMES[row.name], path, threads), metadata, suppression, len(content))


def require_pixels(pixels: Pixels, size: int) -> None:
    """Raise ValueError unless `pixels` are images (N, size, size, 3) as uint8."""
    if pixels.dtype != np.uint8 or pixels.shape[1:] != (size, size, 3):
        raise ValueError(f"pixels must be uint8 (N, {size}, {size}, 3), but got {pixels.dtype} {pixels.shape}")


def _output_shapes(metadata: DetectorMetadata, suppression: Suppression | None) -> list[tuple[int, ...]]:
    """Return the shapes of a file's outputs, without the batch."""
    if suppression is None:
        count = len(metadata.detector.default_boxes)
        return [(count, 4), (count, len(metadata.classes))]
    return [(suppression.most, 4), (suppression.most,), (suppression.most,), ()]


def _selected(boxes: _Output, scores: _Output, score_threshold: float, nms_iou: float, most: int) -> Shares:
    import torch

    from mnas.nn.detection.decoding import best_boxes

    tensors = torch.from_numpy(boxes), torch.from_numpy(scores)
    best = best_boxes(*tensors, score_threshold=score_threshold, nms_iou=nms_iou, most=most)
    return best.boxes.numpy(), best.scores.numpy(), best.labels.numpy() - 1
