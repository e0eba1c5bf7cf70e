"""Detect with a torch network."""

from functools import partial

import numpy as np
import numpy.typing as npt
import torch

from mnas.data.augment import normalised
from mnas.detection.exported import Shares, require_pixels
from mnas.detection.score import SCORE_THRESHOLD
from mnas.detector import DetectorMetadata
from mnas.nn.detection.decoding import detections
from mnas.nn.detection.network import DetectorNetwork
from mnas.train.scoring import DivergedError, moments


class NetworkDetector:
    """A network as a function from images (B, S, S, 3) of its size to the detections of each."""

    def __init__(
        self,
        network: DetectorNetwork,
        metadata: DetectorMetadata,
        *,
        score_threshold: float = SCORE_THRESHOLD,
        nms_iou: float = 0.55,
        most: int = 300,
    ) -> None:
        """The rules are those of `mnas.nn.detection.decoding.detections`."""
        self._network = network
        self._select = partial(detections, score_threshold=score_threshold, nms_iou=nms_iou, most=most)
        self._size = metadata.detector.input_size
        self._device = next(network.parameters()).device
        self._mean, self._std = moments(metadata.mean, metadata.std, self._device)

    @torch.inference_mode()
    def __call__(self, pixels: npt.NDArray[np.uint8]) -> list[Shares]:
        require_pixels(pixels, self._size)
        if not len(pixels):
            return []
        x = normalised(torch.from_numpy(pixels).to(self._device), self._mean, self._std)
        logits, offsets = self._network(x)
        if not (torch.isfinite(logits).all() and torch.isfinite(offsets).all()):
            raise DivergedError("the training diverged: the outputs of the detector are not finite")
        results = self._select(logits, offsets, self._network.default_boxes)
        return [(one.boxes.cpu().numpy(), one.scores.cpu().numpy(), one.labels.cpu().numpy() - 1) for one in results]
