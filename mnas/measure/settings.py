"""Settings of `mnas latency`: the models to measure, the device, the runtimes and the precision."""

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from mnas.latency.devices.registry import DeviceEntry, find_device
from mnas.latency.onboard.script import RUNTIMES

Auto = Literal["auto"]


@dataclass(frozen=True, kw_only=True)
class LatencySettings:
    """Settings of a measurement of latencies."""

    archs: tuple[str, ...] = field(kw_only=False)
    """Names (mnasnet-a1, mnasnet-a1@0.5, mnasnet-small/s8), trials (runs/NAME#17), .json files, block strings, or any
    model files (.tflite, .onnx, .pte), each in its own runtime; .safetensors of ours: torch."""
    runtime: str = "auto"
    """litert, litert-builtin (without XNNPACK), onnxruntime, executorch, torch, or several joined by commas; the
    reference runs in the first. auto: the device's own, and a file's."""
    device: str = "host"
    """Device to measure on: host is this machine; devices.toml describes others (`mnas devices list`)."""
    devices: Path | Auto = "auto"
    """File that describes the devices; auto: your own in the configuration folder."""
    input_size: str = "auto"
    """Side of the square image in pixels, or several: 96,128,160; auto: a trial's own, 224 for others; a .tflite file
    has its own, at which its reference runs too."""
    width_multiplier: str = "1"
    """Width multiplier of each architecture, or several: 0.35,0.5,1."""
    classes: int | Auto = "auto"
    """Outputs of the classifier; auto: a trial's own, 1000 for others; a file has its own."""
    threads: int | Auto = "auto"
    """Threads of the runtime; auto: the device's own, 1 unless devices.toml says otherwise."""
    batch: int | Auto = "auto"
    """Images of one inference; auto: the device's own, 1 unless devices.toml says otherwise."""
    int8: bool = False
    """Measure architectures in int8; files are measured as they are, and the reference stays fp32."""
    budget_s: float = 3.0
    """Latency budget per model and runtime, in seconds."""
    interval: float = 0.01
    """Stop earlier when the ratio is known to plus or minus this share, with 95 % confidence."""
    allow_changed: bool = False
    """Measure a .tflite, .onnx or .pte file of mnas although it was changed after mnas wrote it."""
    fresh: bool = False
    """Re-measure cached latencies and report the change."""

    def __post_init__(self) -> None:
        if not 0 < self.budget_s < math.inf:
            raise ValueError(f"--budget-s must be more than 0, but got {self.budget_s}")
        if not 0 < self.interval < 1:
            raise ValueError(f"interval must be a share between 0 and 1, but got {self.interval}")

    def entry(self) -> DeviceEntry:
        """Return the device with the threads and images of these settings. Raises ValueError for an unknown one."""
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
                raise ValueError(f"--runtime must be of {', '.join(RUNTIMES)}, joined by commas, but got {name!r}")
            if runtimes.count(name) > 1:
                raise ValueError(f"--runtime must name each only once, but got {self.runtime!r}")
        return runtimes
