"""Measure exported files on this machine against the fp32 LiteRT file of the same network, in any runtime.

Uses the protocol of mnas.latency: batch 1, one thread, rounds of turns in a separate process.
"""

import contextlib
import time
from dataclasses import dataclass
from pathlib import Path

from mnas.formats import SUFFIXES
from mnas.latency.devices.host import host_unit
from mnas.latency.latency import Setup
from mnas.latency.statistics import MIN_ROUNDS, Estimate, Round, ratio_of, time_of


@dataclass(frozen=True)
class TimedFile:
    """A file, and the runtime that runs it."""

    content: bytes
    runtime: str = "litert"


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Latency of one file in milliseconds and its ratio to the reference, each with a 95 % interval."""

    latency_ms: float
    low_ms: float
    high_ms: float
    ratio: float
    """Ratio to the fp32 LiteRT file; 1 for that file itself."""
    ratio_low: float
    ratio_high: float
    reference_ms: float
    """Latency of the fp32 LiteRT file in the same rounds, in milliseconds."""


def timed_file(path: Path) -> TimedFile:
    """Return a .tflite, .onnx or .pte file with its runtime. Raises OSError."""
    return TimedFile(path.read_bytes(), SUFFIXES[path.suffix].runtimes[0])


def speed(candidate: TimedFile, reference: TimedFile, *, budget_s: float) -> Speed:
    """Measure both files for `budget_s` seconds and at least 8 rounds.

    Raises:
        MeasurementError: a runtime cannot load or run its file.
        UnitError: the measuring process failed.
    """
    rounds: list[Round] = []
    setups = Setup(runtime=candidate.runtime), Setup(runtime=reference.runtime)
    with (
        contextlib.closing(host_unit()) as unit,
        unit.session((candidate.content, reference.content), *setups) as session,
    ):
        started = time.perf_counter()
        while len(rounds) < MIN_ROUNDS or time.perf_counter() - started < budget_s:
            own, base = session.round(len(rounds) % 2 == 1)
            rounds.append(Round(own.kept_ms, base.kept_ms))
    latency, level = time_of([r.candidate_ms for r in rounds]), time_of([r.reference_ms for r in rounds])
    ratio = Estimate(1.0, 1.0, 1.0) if candidate == reference else ratio_of(rounds)
    return Speed(
        latency_ms=latency.value,
        low_ms=latency.low,
        high_ms=latency.high,
        ratio=ratio.value,
        ratio_low=ratio.low,
        ratio_high=ratio.high,
        reference_ms=level.value,
    )
