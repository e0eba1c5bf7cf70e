"""Measurement of a latency, the same on every device: rounds against a reference until the ratio is certain enough.

A run has two references: the model that it compares candidates with, and the same model at a fraction of its width.
What the neighbours of a shared cache do to a model depends on the model's size, so a candidate takes turns with the
reference that is nearer to its own size.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mnas.architecture import Architecture
from mnas.latency.latency import Against, Calibration, Latency, Setup, UnitError
from mnas.latency.statistics import MIN_ROUNDS, SESSION_ERROR, Round, latency_of, ratio_of, stop_reason, time_of
from mnas.latency.unit import Unit
from mnas.tflite.writer import graph_bytes

LIGHT_WIDTH = 0.35
"""Width multiplier of the light reference."""
IMPLAUSIBLE_DRIFT = 3.0
"""Factor by which a reference may be faster or slower than at the calibration; no device drifts further."""

Render = Callable[[Architecture, int, int], bytes]
"""Function of (architecture, input size, classes) that returns the file a runtime takes, with random weights."""


@dataclass(frozen=True, kw_only=True)
class Reference:
    """The models that candidates are timed against."""

    name: str
    input_size: int
    file: bytes
    """File of the reference model, in the runtime's format."""
    light_file: bytes
    """File of the same model at a width of `LIGHT_WIDTH`."""

    def nearest(self, model: bytes) -> Against:
        """Return which of the two files is nearer to `model` in size."""
        return "light" if len(model) ** 2 < len(self.file) * len(self.light_file) else "reference"


def make_reference(
    arch: Architecture, name: str, input_size: int, num_classes: int, render: Render = graph_bytes
) -> Reference:
    """Return the reference `arch` with its light companion, as files with random weights.

    Raises:
        ValueError: the input is too small for the strides.
    """
    file = render(arch, input_size, num_classes)
    light_file = render(arch.scale_width(LIGHT_WIDTH), input_size, num_classes)
    # widths are rounded up to 8, so a narrow reference has no lighter companion, and needs none
    return Reference(name=name, input_size=input_size, file=file, light_file=min(light_file, file, key=len))


def calibrate(
    unit: Unit,
    reference: Reference,
    setup: Setup | None = None,
    *,
    budget_s: float = 8.0,
    session_error: float = SESSION_ERROR,
) -> Calibration:
    """Measure both references on `unit`, in rounds against each other, for `budget_s` seconds.

    `session_error` is the device's own repeatability, if `mnas devices calibrate` has measured it.

    Raises:
        ValueError: a number is out of its range, or the runtime is not on the device.
        MeasurementError: the runtime cannot load or run a reference.
        UnitError: the device failed.
    """
    _require_seconds(budget_s)
    setup = setup or Setup()
    device = unit.fingerprint(setup)
    started = time.perf_counter()
    rounds: list[Round] = []
    with unit.session((reference.light_file, reference.file), setup) as session:
        started += session.waited_s
        while len(rounds) < MIN_ROUNDS or time.perf_counter() - started < budget_s:
            light, base = session.round(len(rounds) % 2 == 1)
            rounds.append(Round(light.kept_ms, base.kept_ms))
    level, share = time_of([r.reference_ms for r in rounds], session_error), ratio_of(rounds, session_error)
    return Calibration(
        reference=reference.name,
        reference_ms=level.value,
        low_ms=level.low,
        high_ms=level.high,
        light_ratio=share.value,
        light_ratio_low=share.low,
        light_ratio_high=share.high,
        input_size=reference.input_size,
        runtime=setup.runtime,
        threads=setup.threads,
        batch=setup.batch,
        unit=unit.name,
        device=device,
        session_error=session_error,
        pinned_core=session.pinned_core,
        realtime=session.realtime,
    )


def measure(
    unit: Unit,
    model: bytes,
    reference: Reference,
    calibration: Calibration,
    *,
    setup: Setup | None = None,
    budget_s: float = 3.0,
    interval: float = 0.01,
) -> Latency:
    """Return the latency of `model` on `unit`, the device of `calibration`.

    `setup` is how the model runs, if not as in the calibration; the reference keeps the calibration's setup. Measuring
    stops once the ratio's 95 % interval is at most +-`interval` (0.01: 1 %), or after `budget_s` seconds; then the
    model's peak memory is measured.

    Raises:
        ValueError: the calibration is another device's, or a number is out of its range.
        MeasurementError: the runtime cannot load or run a model.
        UnitError: the device failed, or its times cannot be true.
    """
    _require_seconds(budget_s)
    if not 0 < interval < 1:
        raise ValueError(f"interval must be between 0 and 1, but got {interval}")
    setup = setup or calibration.setup
    if (setup.threads, setup.batch) != (calibration.threads, calibration.batch):
        raise ValueError(f"threads and batch must equal the calibration's {calibration.setup}, but got {setup}")
    check_device(unit, calibration)
    started = time.perf_counter()
    against = reference.nearest(model)
    other = reference.file if against == "reference" else reference.light_file
    rounds: list[Round] = []
    wall_ms: list[float] = []
    stopped_by = None
    with unit.session((model, other), setup, calibration.setup) as session:
        started += session.waited_s
        last = time.perf_counter()
        while stopped_by is None:
            candidate, base = session.round(len(rounds) % 2 == 1)
            rounds.append(Round(candidate.kept_ms, base.kept_ms))
            wall_ms += candidate.wall_ms
            now = time.perf_counter()
            spent_s, round_s, last = now - started, now - last, now
            stopped_by = stop_reason(
                rounds,
                session_error=calibration.session_error,
                interval=interval,
                seconds=spent_s,
                next_round_s=round_s,
                budget_s=budget_s,
            )
    peak_memory_bytes = unit.peak_memory_bytes(model, setup)
    latency = latency_of(
        rounds,
        calibration,
        against=against,
        raw_median_ms=float(np.median(wall_ms)),
        runs=len(wall_ms),
        stopped_by=stopped_by,
        seconds=time.perf_counter() - started,
        peak_memory_bytes=peak_memory_bytes,
    )
    if not 1 / IMPLAUSIBLE_DRIFT < 1 + latency.drift < IMPLAUSIBLE_DRIFT:
        raise UnitError(
            f"{unit.name}: the reference took {1 + latency.drift:.3g} times as long as at the calibration, which is "
            "implausible"
        )
    return latency


def check_device(unit: Unit, calibration: Calibration) -> None:
    """Raise ValueError, naming the difference, unless `calibration` was made on the device and runtime of `unit`."""
    here = unit.fingerprint(calibration.setup)
    if differing := [name for name in {**calibration.device, **here} if calibration.device.get(name) != here.get(name)]:
        changes = ", ".join(f"{n} {here.get(n)!r} instead of {calibration.device.get(n)!r}" for n in differing)
        raise ValueError(
            f"this is not the device of the calibration ({changes}); resume on that device, or start another run"
        )


def _require_seconds(budget_s: float) -> None:
    if not 0 < budget_s < float("inf"):
        raise ValueError(f"budget_s must be greater than 0, but got {budget_s}")
