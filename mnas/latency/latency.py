"""What is kept of a measurement: `Latency` of a candidate, `Calibration` of a device. Plain values, also as JSON."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

StoppedBy = Literal["interval", "budget"]
Against = Literal["reference", "light"]


class MeasurementError(Exception):
    """The device could not load or run a model, or gave a time that no clock gives; its message is one line."""


class _Record:
    """A dataclass of plain values that goes to a dict and back."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, JSON-able; `from_dict` reads them back equal."""
        return dataclasses.asdict(self)  # type: ignore[call-overload, no-any-return]

    @classmethod
    def from_dict(cls, values: object) -> Self:
        """The inverse of `to_dict`. Raises ValueError on an unknown, missing or wrong field."""
        names = [f.name for f in dataclasses.fields(cls)]  # type: ignore[arg-type]
        if not isinstance(values, dict) or sorted(map(str, values)) != sorted(names):
            raise ValueError(f"{cls.__name__} must have exactly the fields {', '.join(names)}, but got {values!r}")
        return cls(**values)

    def _require_order(self, low: str, value: str, high: str) -> None:
        numbers = [getattr(self, name) for name in (low, value, high)]
        if not all(isinstance(n, int | float) and math.isfinite(n) for n in numbers) or not (
            0 < numbers[0] <= numbers[1] <= numbers[2]
        ):
            raise ValueError(f"{low}, {value}, {high} must be positive and in this order, but got {numbers}")


@dataclass(frozen=True, kw_only=True)
class Latency(_Record):
    """How long one inference takes, batch 1; raises ValueError unless numbers are positive and intervals in order."""

    latency_ms: float
    """ratio x the calibrated latency of the reference, in milliseconds."""
    low_ms: float
    """Lower end of the 95 % interval; it holds the calibration's error too."""
    high_ms: float
    """Upper end of it."""
    ratio: float
    """Time of the candidate as a multiple of the reference's: what is measured, and what ranks candidates."""
    ratio_low: float
    """Lower end of the ratio's own 95 % interval."""
    ratio_high: float
    """Upper end of it."""
    against: Against
    """What it took turns with: the reference, or the same at a fraction of its width, whose size is nearer."""
    raw_median_ms: float
    """Plain median of the candidate's wall-clock times, as any other tool would report; nothing is computed from it."""
    runs: int
    """Inferences of the candidate that were timed."""
    rounds: int
    """Rounds, each with models loaded afresh."""
    stopped_by: StoppedBy
    """`interval`: narrow enough; `budget`: no time left."""
    seconds: float
    """What measuring took, loading and warming up included."""

    def __post_init__(self) -> None:
        self._require_order("low_ms", "latency_ms", "high_ms")
        self._require_order("ratio_low", "ratio", "ratio_high")
        self._require_order("raw_median_ms", "raw_median_ms", "raw_median_ms")
        if self.stopped_by not in get_args(StoppedBy):
            raise ValueError(f"stopped_by must be one of {', '.join(get_args(StoppedBy))}, but got {self.stopped_by!r}")
        if self.against not in get_args(Against):
            raise ValueError(f"against must be one of {', '.join(get_args(Against))}, but got {self.against!r}")


@dataclass(frozen=True, kw_only=True)
class Calibration(_Record):
    """The reference's latency on one device, measured once a run, then frozen; raises ValueError as `Latency` does."""

    reference: str
    """Name of the reference model."""
    reference_ms: float
    """Its latency in milliseconds."""
    low_ms: float
    """Lower end of the 95 % interval of it."""
    high_ms: float
    """Upper end of it."""
    light_ratio: float
    """Time of the light reference as a multiple of the reference's."""
    light_ratio_low: float
    """Lower end of the 95 % interval of it."""
    light_ratio_high: float
    """Upper end of it."""
    input_size: int
    """Side of the images, in pixels."""
    threads: int
    """Threads of the runtime."""
    device: dict[str, str | int]
    """The device's fingerprint: processor, cores, operating system, runtime and its version."""
    pinned_core: int | None
    """The core that measures; None where the system does not pin, or with several threads."""
    realtime: bool
    """Whether measuring ran at real-time priority (Linux, with the right to it), so that nothing preempted it."""

    def __post_init__(self) -> None:
        self._require_order("low_ms", "reference_ms", "high_ms")
        self._require_order("light_ratio_low", "light_ratio", "light_ratio_high")
