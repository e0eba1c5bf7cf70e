"""Settings of the commands that print the paper's tables: the device and the precision of latencies."""

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mnas.foreign.limits import MOST_THREADS
from mnas.latency.devices.registry import DeviceEntry, find_device
from mnas.require import require_int

Auto = Literal["auto"]
PaperRuntime = Literal["litert", "onnxruntime"]
PAPER_RUNTIMES: dict[PaperRuntime, str] = {"litert": "LiteRT", "onnxruntime": "ONNX Runtime"}
"""Runtime -> its title."""


@dataclass(frozen=True, kw_only=True)
class PaperSettings:
    """How to measure the latencies of a table. Raises ValueError where a field is out of its range."""

    runtime: str = "litert,onnxruntime"
    """Runtimes to measure in, separated by commas: litert, onnxruntime; none: print published numbers and counts
    only. The reference network, MobileNetV2, runs in the first runtime."""
    device: str = "host"
    """Device to measure on: host (this machine) or a device from devices.toml (`mnas devices list`)."""
    devices: Path | Auto = "auto"
    """File that describes the devices; auto: devices.toml in your configuration folder (~/.config/mnas on Linux)."""
    threads: int | Auto = "auto"
    """Number of threads of the runtime; auto: as in devices.toml, otherwise 1."""
    budget_s: float = 3.0
    """Time limit for measuring each model in each runtime, in seconds. Eight rounds are the minimum, whatever they
    take."""
    interval: float = 0.01
    """Stop measuring early once the ratio to the reference network is this precise (0.01: its 95 % confidence interval
    is within plus or minus 1 %)."""
    fresh: bool = False
    """Re-measure cached latencies and report the change."""

    def __post_init__(self) -> None:
        if not 0 < self.budget_s < math.inf:
            raise ValueError(f"--budget-s must be finite and greater than 0, but got {self.budget_s}")
        if not 0 < self.interval < 1:
            raise ValueError(f"--interval must be between 0 and 1, but got {self.interval}")
        if self.threads != "auto":
            require_int("--threads", self.threads, 1, MOST_THREADS)
        self.runtimes()

    def runtimes(self) -> tuple[PaperRuntime, ...]:
        """Return the requested runtimes; empty for none. Raises ValueError for an unknown or repeated one."""
        names = () if self.runtime == "none" else tuple(name.strip() for name in self.runtime.split(","))
        runtimes = tuple(name for name in PAPER_RUNTIMES if name in names)
        if len(runtimes) != len(names):
            raise ValueError(
                f"--runtime must be none, or one or more of {', '.join(PAPER_RUNTIMES)}, joined by commas, "
                f"but got {self.runtime!r}"
            )
        return tuple(sorted(runtimes, key=names.index))

    def entry(self) -> DeviceEntry:
        """Return the device, for one image at a time, in the first runtime. Raises ValueError for an unknown one."""
        entry = find_device(self.device, self.devices)
        threads = entry.threads if self.threads == "auto" else self.threads
        return dataclasses.replace(entry, threads=threads, batch=1, runtime=self.runtimes()[0])
