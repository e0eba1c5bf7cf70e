"""Published numbers, as plain data: MnasNet-A1 at other widths and input sizes (paper, Figure 5)."""

from dataclasses import dataclass

SOURCE = "tensorflow/tpu, models/official/mnasnet/README.md, commit 009812f"


@dataclass(frozen=True)
class ScaledPoint:
    """One row of the table of MnasNet-A1 models in `SOURCE`."""

    input_size: int
    width_multiplier: float
    """Width multiplier, which the table calls depth multiplier."""
    top1: float
    """Top-1 accuracy on ImageNet, in percent."""
    top5: float
    params_m: float
    macs_m: float
    """Millions of multiply-accumulates, as counted there (see `mnas.nn.toco`)."""
    latency_ms: float
    """Latency on one big core of a Pixel 1 with batch size 1, in milliseconds."""

    @property
    def name(self) -> str:
        """Zoo name of the architecture."""
        return "mnasnet-a1" if self.width_multiplier == 1 else f"mnasnet-a1@{self.width_multiplier:g}"


A1_SCALED = (
    ScaledPoint(224, 1.4, 77.2, 93.5, 6.1, 591.5, 135),
    ScaledPoint(224, 1.0, 75.2, 92.5, 3.9, 315.2, 78),
    ScaledPoint(224, 0.75, 73.3, 91.3, 2.9, 226.7, 61),
    ScaledPoint(224, 0.5, 68.9, 88.4, 2.1, 105.2, 32),
    ScaledPoint(224, 0.35, 64.1, 85.1, 1.7, 63.2, 22),
    ScaledPoint(192, 1.4, 76.1, 93.0, 6.1, 435.1, 99),
    ScaledPoint(192, 1.0, 74.0, 91.6, 3.9, 232.0, 57),
    ScaledPoint(192, 0.75, 72.1, 90.5, 2.9, 166.9, 45),
    ScaledPoint(192, 0.5, 67.2, 87.4, 2.1, 77.6, 24),
    ScaledPoint(192, 0.35, 62.4, 83.8, 1.7, 46.8, 17),
    ScaledPoint(160, 1.4, 74.8, 92.1, 6.1, 302.8, 72),
    ScaledPoint(160, 1.0, 72.0, 90.5, 3.9, 161.6, 41),
    ScaledPoint(160, 0.75, 70.1, 89.3, 2.9, 116.4, 33),
    ScaledPoint(160, 0.5, 64.9, 85.8, 2.1, 54.4, 18),
    ScaledPoint(160, 0.35, 59.3, 81.5, 1.7, 32.9, 13),  # the table prints 52.3, its repetition 59.3
    ScaledPoint(128, 1.4, 72.5, 90.6, 6.1, 194.5, 49),
    ScaledPoint(128, 1.0, 69.3, 88.9, 3.9, 104.1, 29),
    ScaledPoint(128, 0.75, 67.0, 87.3, 2.9, 75.0, 23),
    ScaledPoint(128, 0.5, 60.8, 83.0, 2.1, 35.3, 12),
    ScaledPoint(128, 0.35, 54.8, 78.1, 1.7, 21.6, 8.5),
    ScaledPoint(96, 1.4, 68.6, 88.1, 6.1, 110.3, 32),
    ScaledPoint(96, 1.0, 64.4, 85.8, 3.9, 59.3, 18),
    ScaledPoint(96, 0.75, 62.1, 84.0, 2.9, 42.9, 17),
    ScaledPoint(96, 0.5, 54.7, 78.1, 2.1, 20.5, 7.4),
    ScaledPoint(96, 0.35, 49.3, 73.4, 1.7, 12.7, 5.4),
)
"""Rows in the order of the table."""
