"""The tolerance for each kind of number in an exported detector."""

from dataclasses import dataclass

from mnas.export.target import Kind


@dataclass(frozen=True, kw_only=True)
class DetectorTolerance:
    """Largest differences between a file and its network that pass."""

    max_edge_difference: float
    """Largest distance between the edges of the same object's boxes, as a share of the image's side."""
    max_score_difference: float
    """Largest difference of the scores of the same object."""
    min_agreement: float
    """Smallest share of objects that both find."""
    max_precision_loss: float
    """Largest loss of mAP against the network, from 0 to 1."""


DETECTOR_TOLERANCES: dict[Kind, DetectorTolerance] = {
    # the same arithmetic in another order: the share is below 1 only where a score is at the threshold
    "fp32": DetectorTolerance(
        max_edge_difference=0.002, max_score_difference=0.002, min_agreement=0.99, max_precision_loss=0.001
    ),
    # rounding changes which of two almost equal boxes is dropped
    "fp16": DetectorTolerance(
        max_edge_difference=0.02, max_score_difference=0.05, min_agreement=0.9, max_precision_loss=0.001
    ),
    # boxes of low scores come and go, so mAP counts
    "int8": DetectorTolerance(
        max_edge_difference=0.1, max_score_difference=0.3, min_agreement=0.0, max_precision_loss=0.01
    ),
}
"""Tolerance for each kind of number, with reasons; `mnas detect export` has options to change it."""
