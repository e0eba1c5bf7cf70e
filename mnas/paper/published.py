"""Published numbers of MnasNet's paper (Tan et al., CVPR 2019, arXiv:1807.11626v3), as plain data."""

from dataclasses import dataclass
from typing import Literal

Origin = Literal["paper", "code", "copy", "memory"]
"""Where a number was read."""

ORIGINS: dict[Origin, str] = {
    "paper": "read in the paper's text",
    "code": "read in the README of the published code",
    "copy": "read in a transcription of the paper, or in a paper that cites it",
    "memory": "unverified: not compared with any text",
}
"""Origin -> how well a number is established."""


@dataclass(frozen=True, kw_only=True)
class PublishedDetector:
    """A row of Table 3; None where it has no number."""

    model: str
    params_m: float
    """Parameters in millions."""
    macs_m: float
    """Multiply-accumulates of one image, in millions."""
    mean_ap: float
    """COCO's mAP, in percent."""
    mean_ap_small: float | None = None
    """COCO's mAP of small objects, in percent; `mean_ap_medium` and `mean_ap_large` likewise."""
    mean_ap_medium: float | None = None
    mean_ap_large: float | None = None
    latency_ms: float | None = None
    """Latency on one big core of a Pixel 1, one thread, batch 1, in milliseconds."""
    origin: Origin


TABLE3 = (
    PublishedDetector(
        model="YOLOv2",
        params_m=50.7,
        macs_m=17500,
        mean_ap=21.6,
        mean_ap_small=5.0,
        mean_ap_medium=22.4,
        mean_ap_large=35.5,
        origin="copy",
    ),
    PublishedDetector(
        model="SSD300",
        params_m=36.1,
        macs_m=35200,
        mean_ap=23.2,
        mean_ap_small=5.3,
        mean_ap_medium=23.2,
        mean_ap_large=39.6,
        origin="copy",
    ),
    PublishedDetector(
        model="SSD512",
        params_m=36.1,
        macs_m=99500,
        mean_ap=26.8,
        mean_ap_small=9.0,
        mean_ap_medium=28.9,
        mean_ap_large=41.9,
        origin="copy",
    ),
    PublishedDetector(
        model="MobileNetV1 + SSDLite", params_m=5.1, macs_m=1300, mean_ap=22.2, latency_ms=270, origin="copy"
    ),
    PublishedDetector(
        model="MobileNetV2 + SSDLite", params_m=4.3, macs_m=800, mean_ap=22.1, latency_ms=200, origin="copy"
    ),
    PublishedDetector(
        model="MnasNet-A1 + SSDLite",
        params_m=4.9,
        macs_m=800,
        mean_ap=23.0,
        mean_ap_small=3.8,
        mean_ap_medium=21.7,
        mean_ap_large=42.0,
        latency_ms=203,
        origin="copy",
    ),
)
"""Rows in the order of the table."""
