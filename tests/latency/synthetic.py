"""A simulated device whose true times are known, so that predictions can be compared with them."""

import math
from collections.abc import Sequence

import numpy as np

from mnas.arch import Arch
from mnas.latency.latency import Calibration
from mnas.latency.prediction.parts import parts_of_arch
from mnas.latency.prediction.predictor import Sample
from mnas.space.named import SPACES
from mnas.space.space import Space
from mnas.zoo.architectures import reference_arch

SPACE = SPACES["mnasnet"]
SIZE, CLASSES = 64, 10
ERROR = 0.005
"""Relative error of a measurement."""
RATES = {"macs": 0.02, "values": 0.1, "inputs": 0.1, "outputs": 0.05, "weights": 0.3, "calls": 0.002}

CALIBRATION = Calibration(
    reference="mobilenetv2",
    reference_ms=4.0,
    low_ms=3.96,
    high_ms=4.04,
    light_ratio=0.3,
    light_ratio_low=0.29,
    light_ratio_high=0.31,
    input_size=SIZE,
    runtime="litert",
    threads=1,
    batch=1,
    unit="synthetic",
    device={"processor": "none", "runtime": "none 1"},
    session_error=0.004,
    pinned_core=None,
    realtime=False,
)


def time_of(arch: Arch) -> float:
    """Return the time from each operator's rate, up to a half slower with few pixels, which no rate can express."""
    total = 0.0
    for part in parts_of_arch(arch, SIZE, CLASSES):
        rated = sum(RATES.get(name, 0.0) * amount for name, amount in part.amounts.items())
        if part.kind in ("pointwise", "depthwise3", "depthwise5", "conv3", "conv5"):
            pixels = part.place[-2]
            rated *= (1 if part.kind == "pointwise" else 2) * (1 + 0.5 * math.exp(-float(pixels) / 4))
        total += rated
    return total


def ratio_of(arch: Arch, space: Space = SPACE) -> float:
    """Return the ratio to the time of the space's reference."""
    return time_of(arch) / time_of(reference_arch(space.reference_skeleton))


def samples_of(members: Sequence[tuple[int, ...]], seed: int, space: Space = SPACE) -> list[Sample]:
    """Return a sample, measured with an error."""
    draw = np.random.default_rng(seed)
    return [Sample(row, ratio_of(space.decode(row), space) * math.exp(draw.normal(0, ERROR)), ERROR) for row in members]
