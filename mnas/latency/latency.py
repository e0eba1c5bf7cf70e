"""Records of a measurement: `Latency` of a candidate, `Calibration` of a device. Plain values, also as JSON."""

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

from mnas.foreign.limits import MOST_THREADS
from mnas.latency.onboard.script import RUNTIMES
from mnas.readers import require_types
from mnas.require import require_choice, require_int

StoppedBy = Literal["interval", "budget"]
Source = Literal["measured", "cached", "predicted"]
Against = Literal["reference", "light"]

SOURCES: tuple[Source, ...] = get_args(Source)
"""Sources from the most certain to the least."""


class MeasurementError(Exception):
    """A model's own failure: the runtime cannot load or run it; one line. Measuring it again would fail again."""


class UnitError(Exception):
    """A device's failure: gone, hung, full, or reporting an impossible time; one line. A retry may succeed."""


def joint_source(sources: Iterable[Source]) -> Source:
    """Return the source of a value derived from several latencies: the least certain of their sources."""
    return max(sources, key=SOURCES.index)


class _Record:
    """A dataclass of plain values that converts to a dict and back."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, JSON-able; `from_dict` reads them back equal."""
        return dataclasses.asdict(self)  # type: ignore[call-overload, no-any-return]

    @classmethod
    def from_dict(cls, values: object) -> Self:
        """Return the inverse of `to_dict`. Raises ValueError on an unknown, missing or wrong field."""
        names = [f.name for f in dataclasses.fields(cls)]  # type: ignore[arg-type]
        if not isinstance(values, dict) or sorted(map(str, values)) != sorted(names):
            raise ValueError(f"{cls.__name__} must have exactly the fields {', '.join(names)}, but got {values!r}")
        require_types(cls, values)
        return cls(**values)

    def _require_order(self, low: str, value: str, high: str) -> None:
        numbers = [getattr(self, name) for name in (low, value, high)]
        if not all(isinstance(n, int | float) and math.isfinite(n) for n in numbers) or not (
            0 < numbers[0] <= numbers[1] <= numbers[2]
        ):
            raise ValueError(f"{low}, {value}, {high} must be positive and in this order, but got {numbers}")


@dataclass(frozen=True, kw_only=True)
class Setup(_Record):
    """How to run a model; raises ValueError where a field is out of its range."""

    runtime: str = "litert"
    """Name of the runtime in `mnas.latency.onboard.script.RUNTIMES`."""
    threads: int = 1
    """Threads of the runtime."""
    batch: int = 1
    """Images of one inference."""

    def __post_init__(self) -> None:
        require_choice("runtime", self.runtime, tuple(RUNTIMES))
        require_int("threads", self.threads, 1, MOST_THREADS)
        require_int("batch", self.batch, 1, MOST_THREADS)


@dataclass(frozen=True, kw_only=True)
class Latency(_Record):
    """Time of one inference; raises ValueError unless numbers are positive and intervals in order."""

    latency_ms: float
    """Latency in milliseconds: ratio x the calibrated latency of the reference."""
    low_ms: float
    """Lower end of the 95 % interval, which includes the calibration's error."""
    high_ms: float
    """Upper end of that interval."""
    ratio: float
    """Time of the candidate as a multiple of the reference's: the measured quantity, which ranks candidates."""
    ratio_low: float
    """Lower end of the ratio's own 95 % interval."""
    ratio_high: float
    """Upper end of that interval."""
    against: Against
    """Model that the candidate took turns with: the reference or its narrow companion, whichever is nearer in size."""
    raw_median_ms: float
    """Plain median of the candidate's wall-clock times, as other tools report it; nothing is computed from it."""
    runs: int
    """Number of timed inferences of the candidate."""
    rounds: int
    """Number of rounds, each with models loaded afresh."""
    stopped_by: StoppedBy
    """Reason to stop: `interval` is narrow enough, or `budget` is spent."""
    seconds: float
    """Duration of the measurement in seconds, loading and warming up included."""
    drift: float
    """Relative change of the reference's time since the calibration; 0 if unchanged."""
    disturbed: float
    """Share of the rounds in which candidate or reference took over 1.2 times its floor."""
    peak_memory_bytes: int | None
    """Peak memory of loading the model and running it once; None where the device does not report it."""
    energy_mj: float | None
    """Energy of one inference in millijoules; None where the device does not report it."""
    unit: str
    """Name of the device that measured."""
    source: Source
    """`measured` in this run, `cached` from an earlier one, or `predicted`, with 0 runs and rounds."""

    def __post_init__(self) -> None:
        self._require_order("low_ms", "latency_ms", "high_ms")
        self._require_order("ratio_low", "ratio", "ratio_high")
        self._require_order("raw_median_ms", "raw_median_ms", "raw_median_ms")
        require_choice("stopped_by", self.stopped_by, get_args(StoppedBy))
        require_choice("source", self.source, SOURCES)
        require_choice("against", self.against, get_args(Against))


@dataclass(frozen=True, kw_only=True)
class Calibration(_Record):
    """The reference's latency on one device, measured once a run, then frozen; raises ValueError as `Latency` does."""

    reference: str
    """Name of the reference model."""
    reference_ms: float
    """Latency of the reference in milliseconds."""
    low_ms: float
    """Lower end of its 95 % interval."""
    high_ms: float
    """Upper end of its 95 % interval."""
    light_ratio: float
    """Time of the light reference as a multiple of the reference's."""
    light_ratio_low: float
    """Lower end of the light ratio's 95 % interval."""
    light_ratio_high: float
    """Upper end of the light ratio's 95 % interval."""
    input_size: int
    """Side of the images, in pixels."""
    runtime: str
    """Runtime of the reference, as in `Setup`."""
    threads: int
    """Threads of the runtime, as in `Setup`."""
    batch: int
    """Images of one inference, as in `Setup`."""
    unit: str
    """Name of the device."""
    device: dict[str, str | int]
    """Fingerprint of the device: processor, cores, operating system, runtime and its version."""
    session_error: float
    """Relative standard deviation between the device's sessions, which the rounds of one session cannot show."""
    pinned_core: int | None
    """Core that measures; None where the system does not pin, or with several threads."""
    realtime: bool
    """Whether measuring ran at real-time priority (Linux, with the right to it), so that no program preempted it."""
    unit_scale: float = 1.0
    """Reference time of this unit over `reference_ms`, which is the same for all units of a device."""

    def __post_init__(self) -> None:
        self._require_order("low_ms", "reference_ms", "high_ms")
        self._require_order("light_ratio_low", "light_ratio", "light_ratio_high")
        self._require_order("unit_scale", "unit_scale", "unit_scale")

    @property
    def setup(self) -> Setup:
        """Return how candidates are run against the reference."""
        return Setup(runtime=self.runtime, threads=self.threads, batch=self.batch)
