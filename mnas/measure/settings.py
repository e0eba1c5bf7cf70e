"""Settings of `mnas latency`: the models to measure, the device, the runtimes and the precision."""

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from mnas.detector import DefaultBoxes, HeadOrNone, counted_boxes, paper_boxes
from mnas.foreign.limits import MOST_THREADS
from mnas.latency.devices.registry import DeviceEntry, find_device
from mnas.latency.onboard.script import RUNTIMES
from mnas.require import require_int

Auto = Literal["auto"]


@dataclass(frozen=True, kw_only=True)
class LatencySettings:
    """Settings of a measurement of latencies."""

    archs: tuple[str, ...] = field(kw_only=False)
    """Models to measure: names (mnasnet-a1, mnasnet-a1@0.5, mnasnet-small/s8), trials (runs/NAME#17), .json files,
    block strings (see mnas show), or model files (any .tflite, .onnx or .pte file, or a .safetensors file of mnas)."""
    runtime: str = "auto"
    """Runtimes, separated by commas: litert, litert-builtin (without XNNPACK), onnxruntime, executorch, torch, or auto
    (the device's runtime, or the one that a model file needs). The reference network, MobileNetV2, runs in the first
    runtime."""
    device: str = "host"
    """Device to measure on: host (this machine) or a device from devices.toml (`mnas devices list`)."""
    devices: Path | Auto = "auto"
    """File that describes the devices; auto: devices.toml in your configuration folder (~/.config/mnas on Linux)."""
    head: HeadOrNone = "none"
    """Head of a detector on each architecture as its backbone. none: the classifier. ssdlite: SSDLite with decoding and
    selection of boxes inside, as mnas detect export --postprocess writes it, in litert, litert-builtin or onnxruntime;
    random weights give few boxes to select. Model files keep theirs."""
    boxes: str = "paper"
    """Default boxes of a detector: paper (those of SSDLite), or their numbers at each pixel of each map, from the
    finest (3,6,6,6,6,6; with one number more, the first is that of a map of output stride 8)."""
    input_size: str = "auto"
    """Input size in pixels, or several (96,128,160); auto: the size of a trial's search, 320 for a detector, else 224.
    A .tflite file and its reference network run at the file's own size."""
    width_multiplier: str = "1"
    """Width multiplier of each architecture, or several (0.35,0.5,1)."""
    classes: int | Auto = "auto"
    """Number of classes; auto: that of a trial's search, COCO's 80 for a detector, 1000 for other architectures. Model
    files keep theirs."""
    threads: int | Auto = "auto"
    """Number of threads of the runtime; auto: as in devices.toml, otherwise 1."""
    batch: int | Auto = "auto"
    """Number of images per inference; auto: as in devices.toml, otherwise 1."""
    int8: bool = False
    """Measure architectures in int8. Model files run unchanged, and the reference network stays fp32."""
    budget_s: float = 3.0
    """Time limit for measuring each model in each runtime, in seconds."""
    interval: float = 0.01
    """Stop measuring early once the ratio to the reference network is this precise (0.01: its 95 % confidence interval
    is within plus or minus 1 %)."""
    allow_changed: bool = False
    """Accept a model file of mnas that was changed after mnas wrote it."""
    fresh: bool = False
    """Re-measure cached latencies and report the change."""

    def __post_init__(self) -> None:
        if not 0 < self.budget_s < math.inf:
            raise ValueError(f"--budget-s must be finite and greater than 0, but got {self.budget_s}")
        if not 0 < self.interval < 1:
            raise ValueError(f"--interval must be between 0 and 1, but got {self.interval}")
        if self.classes != "auto":
            require_int("--classes", self.classes, 1)
        for flag, value in (("--threads", self.threads), ("--batch", self.batch)):
            if value != "auto":
                require_int(flag, value, 1, MOST_THREADS)
        self.default_boxes()
        if self.head == "none" and self.boxes != "paper":
            raise ValueError(
                f"--boxes must be used with --head, but got --boxes {self.boxes} alone; add --head ssdlite"
            )
        if self.head != "none" and self.batch not in ("auto", 1):
            raise ValueError(f"--batch must be 1 for a detector, but got {self.batch}")

    def default_boxes(self) -> DefaultBoxes:
        """Return the default boxes of a detector. Raises ValueError where the option is neither paper nor numbers."""
        if self.boxes == "paper":
            return paper_boxes()
        counts = self.boxes.split(",")
        if not all(count.strip().isdecimal() for count in counts):
            raise ValueError(
                "--boxes must be paper, or the numbers of boxes at each pixel of each map (3,6,6,6,6,6), "
                f"but got {self.boxes!r}"
            )
        return counted_boxes([int(count) for count in counts])

    def entry(self) -> DeviceEntry:
        """Return the device with the threads and batch of these settings. Raises ValueError for an unknown one."""
        entry = find_device(self.device, self.devices)
        threads = entry.threads if self.threads == "auto" else self.threads
        return dataclasses.replace(entry, threads=threads, batch=entry.batch if self.batch == "auto" else self.batch)

    def runtimes(self) -> tuple[str, ...]:
        """Return the requested runtimes; empty for auto. Raises ValueError for an unknown one."""
        if self.runtime == "auto":
            return ()
        runtimes = tuple(name.strip() for name in self.runtime.split(","))
        for name in runtimes:
            if name not in RUNTIMES:
                raise ValueError(
                    f"--runtime must be one or more of {', '.join(RUNTIMES)}, joined by commas, but got {name!r}"
                )
            if runtimes.count(name) > 1:
                raise ValueError(f"--runtime must name each runtime once, but got {self.runtime!r}")
        return runtimes
