"""The gate for exports of detectors: run each file by its own runtime, and compare its objects with torch's.

With labelled images, the file may lose a little of the network's mAP. On any images, file and network must find the
same objects.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mnas.data.image import Pixels
from mnas.detection.exported import ExportedDetector, Shares
from mnas.detection.score import SCORE_THRESHOLD, Detect
from mnas.detector import DetectorMetadata, Suppression
from mnas.export.detector.tolerance import DetectorTolerance
from mnas.export.record import GateRecord
from mnas.nn.detection.network import DetectorNetwork

Scoring = Callable[[Detect], float]
"""Function from a detector to its mAP on labelled images."""
FEWEST_OBJECTS = 20
"""Smallest number of objects that gives a useful comparison."""
_COMPARED_SCORE = 0.01
"""Lowest score of an object that is compared: below it, the order of almost equal boxes is arbitrary."""
_EVERY_CANDIDATE = 10**9


@dataclass(frozen=True, kw_only=True)
class DetectorComparison:
    """The objects that a file finds, compared with those of its network."""

    images: int
    source: str
    """Source of the images, in words."""
    objects: int
    """Number of objects that the network finds, with scores of at least 0.01."""
    agreement: float
    """Share of the objects of file and network that both find: same class, and box and score as the tolerance says."""
    mean_precision: float | None
    """mAP of the file; None without labelled images."""
    torch_mean_precision: float | None
    """mAP of the network on the same images, with the file's rules for selecting boxes."""
    recorded_mean_precision: float | None
    """mAP that the training recorded, with all boxes of all its validation images; None if it recorded none."""


@dataclass(frozen=True, kw_only=True)
class DetectorGateResult(GateRecord):
    """The gate's result for one file of a detector."""

    suppression: Suppression | None
    """Rules by which the file selects boxes; None: it gives all boxes."""
    comparison: DetectorComparison | None
    """Comparison with the network; None where the runtime did not run the file."""
    tolerance: DetectorTolerance


def torch_detect(network: DetectorNetwork, metadata: DetectorMetadata, rules: Suppression | None) -> Detect:
    """Return the network as a function that selects boxes as a file with these rules does.

    A file with rules has no limit on the candidates of a class.
    """
    from mnas.detection.network import NetworkDetector

    if rules is None:
        return NetworkDetector(network, metadata)
    every = NetworkDetector(
        network, metadata, score_threshold=rules.score_threshold, nms_iou=rules.nms_iou, most=_EVERY_CANDIDATE
    )
    return lambda pixels: [
        (boxes[: rules.most], scores[: rules.most], labels[: rules.most]) for boxes, scores, labels in every(pixels)
    ]


def file_detect(detector: ExportedDetector) -> Detect:
    """Return a file as a function, as `torch_detect` does the network."""
    if detector.suppression is None:
        return lambda pixels: detector.detect(pixels, SCORE_THRESHOLD)
    return lambda pixels: detector.detect(pixels, 0.0)


@dataclass(frozen=True, kw_only=True, eq=False)
class DetectorGate:
    """The images and objects that the files of one network are compared with."""

    source: str
    pixels: Pixels
    """Images (N, S, S, 3) on which objects are compared."""
    expected: Sequence[Shares]
    """Objects of the network in each of them."""
    scoring: Scoring | None
    """Function that scores a detector; None without labelled images."""
    torch_mean_precision: float | None

    def compare(self, detector: ExportedDetector, tolerance: DetectorTolerance) -> DetectorComparison:
        """Compare a file with the network. Raises ValueError where its runtime cannot run it."""
        detect = file_detect(detector)
        results = detect(self.pixels)
        pairs = [
            _common(here, there, tolerance)
            for here, there in zip(map(_compared, results), map(_compared, self.expected), strict=True)
        ]
        common, most = np.sum([(0, 0), *pairs], axis=0).tolist()
        return DetectorComparison(
            images=len(self.pixels),
            source=self.source,
            objects=sum(len(_compared(each)[1]) for each in self.expected),
            agreement=common / most if most else 1.0,
            mean_precision=None if self.scoring is None else self.scoring(detect),
            torch_mean_precision=self.torch_mean_precision,
            recorded_mean_precision=detector.metadata.mean_precision,
        )


def detector_gate(detect: Detect, pixels: Pixels, source: str, scoring: Scoring | None) -> DetectorGate:
    """Return the gate of a network.

    Args:
        detect: the network, from `torch_detect`.
        pixels: images (N, S, S, 3) on which objects are compared.
        source: source of the images, in words.
        scoring: function that scores a detector on labelled images; None: no image has labels.
    """
    return DetectorGate(
        source=source,
        pixels=pixels,
        expected=detect(pixels),
        scoring=scoring,
        torch_mean_precision=None if scoring is None else scoring(detect),
    )


def judge_detector(comparison: DetectorComparison, tolerance: DetectorTolerance) -> tuple[str, ...]:
    """Return the violations of the tolerance, in words; empty if the file passes."""
    failures = []
    if comparison.objects < FEWEST_OBJECTS and tolerance.min_agreement > 0:
        failures.append(
            f"a comparison needs at least {FEWEST_OBJECTS} objects, but the network finds {comparison.objects} in "
            f"{comparison.source}; use --data with images like those of its training"
        )
    if comparison.agreement < tolerance.min_agreement - 1e-9:
        failures.append(
            f"file and network find the same object in {comparison.agreement:.2%} of the cases, "
            f"but at least {tolerance.min_agreement:.2%} are required"
        )
    if comparison.mean_precision is not None and comparison.torch_mean_precision is not None:
        loss = comparison.torch_mean_precision - comparison.mean_precision
        if not loss <= tolerance.max_precision_loss + 1e-9:
            failures.append(
                f"mAP falls by {100 * loss:.2f} points, but at most {100 * tolerance.max_precision_loss:g} are allowed"
            )
    return tuple(failures)


def _compared(shares: Shares) -> Shares:
    boxes, scores, labels = shares
    chosen = scores >= _COMPARED_SCORE
    return boxes[chosen], scores[chosen], labels[chosen]


def _common(here: Shares, there: Shares, tolerance: DetectorTolerance) -> tuple[int, int]:
    """Return the number of objects in one image that both have, and the larger number of objects."""
    (boxes, scores, labels), (other_boxes, other_scores, other_labels) = here, there
    same: npt.NDArray[np.bool_] = labels[:, None] == other_labels
    same &= np.abs(scores[:, None] - other_scores) <= tolerance.max_score_difference
    same &= np.abs(boxes[:, None] - other_boxes).max(axis=2) <= tolerance.max_edge_difference
    return min(int(same.any(0).sum()), int(same.any(1).sum())), max(len(scores), len(other_scores))
