"""Measurement of architectures and files on a device, in one runtime or several, relative to MobileNetV2's latency."""

import dataclasses
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from mnas.latency.fleet.pool import Device, open_device
from mnas.latency.latency import Latency, MeasurementError, Setup
from mnas.latency.protocol import make_reference
from mnas.measure.plan import Measurement, MeasurePlan, measure_plan
from mnas.measure.result import LatencyResult, ModelLatency
from mnas.measure.settings import LatencySettings
from mnas.predict.own import own_values
from mnas.readers import MODEL_BYTES, read_regular
from mnas.zoo.architectures import named_arch

PATIENCE_S = 60.0
"""Longest wait in seconds for a device that others use."""

_CALIBRATION_S = 8.0
"""Longest calibration in seconds."""

Say = Callable[[str], None]


def measure_models(settings: LatencySettings, *, progress: Say, say: Say) -> LatencyResult:
    """Measure all models of the settings; a failure of one does not stop the others.

    Args:
        progress: called with a few words at the start of each step.
        say: called with a line for every event on the device.

    Raises:
        ValueError: a name is unknown, a file cannot be read, or options do not go together.
        ImportError: a runtime's package is missing.
        MeasurementError, UnitError: the reference cannot be measured; the device cannot be used.
    """
    plan = measure_plan(settings)
    models: list[ModelLatency] = []
    failures: list[str] = []
    current: list[Measurement] = []  # models being measured, by the device's numbers for them

    def say_named(text: str) -> None:
        say(re.sub(r"\bcandidate (\d+)\b", lambda match: current[int(match[1])].name, text))

    with open_device(plan.entry, say=say_named, patience_s=PATIENCE_S) as device:
        runtimes = {
            runtime: device.runtime(runtime)
            for runtime in (plan.entry.runtime, *(m.runtime for m in plan.measurements))
        }
        for size in plan.sizes:
            current[:] = plan.at(size)
            rows, errors = _at_size(settings, plan, device, current, size, progress)
            models += rows
            failures += errors
    return LatencyResult(models=tuple(models), failures=tuple(failures), runtimes=runtimes)


def _at_size(
    settings: LatencySettings,
    plan: MeasurePlan,
    device: Device,
    measurements: Sequence[Measurement],
    input_size: int,
    progress: Say,
) -> tuple[list[ModelLatency], list[str]]:
    """Measure all models at one input size against a reference calibrated at it; return records and failures."""
    files = {}
    for number, measurement in enumerate(measurements):
        progress(f"writing {measurement.name} for {measurement.runtime} at {input_size} px")
        files[number] = _file(measurement, device.setup, input_size, plan.classes, settings)
    _calibrate(settings, device, measurements, input_size, plan.classes, progress)
    outcomes: dict[int, Latency | MeasurementError] = {}
    for runtime in dict.fromkeys(measurement.runtime for measurement in measurements):
        these = {number: files[number] for number, each in enumerate(measurements) if each.runtime == runtime}
        progress(f"measuring {len(these)} model(s) in {runtime} at {input_size} px")
        outcomes |= dict(
            device.measure(
                these, runtime=runtime, budget_s=settings.budget_s, interval=settings.interval, fresh=settings.fresh
            )
        )
    rows, failures = [], []
    for number, measurement in enumerate(measurements):
        outcome = outcomes[number]
        if isinstance(outcome, Latency):
            int8 = settings.int8 and measurement.arch is not None
            rows.append(_row(measurement, outcome, device, len(files[number]), plan.classes, int8=int8))
        else:
            failures.append(f"{measurement.name!r}: {outcome}")
    return rows, failures


def _calibrate(
    settings: LatencySettings,
    device: Device,
    measurements: Sequence[Measurement],
    input_size: int,
    classes: int,
    progress: Say,
) -> None:
    """Calibrate with MobileNetV2 at the output stride of the first architecture, so that both are alike.

    The calibration's error enters every latency, so it takes up to three times as long as a model does.
    """
    from mnas.export.render import render  # torch takes seconds to import, and a rejected request does not need it

    strides = [measurement.arch.output_stride for measurement in measurements if measurement.arch is not None]
    largest = 1 << (min(32, input_size).bit_length() - 1)  # files get the largest stride that the size allows
    stride = strides[0] if strides else largest
    name = f"mobilenetv2/s{stride}" if stride < 32 else "mobilenetv2"
    progress(f"calibrating with {name} at {input_size} px in {device.setup.runtime}")
    reference = make_reference(named_arch(name), name, input_size, classes, render(device.setup))
    device.calibrate(reference, budget_s=min(_CALIBRATION_S, 3 * settings.budget_s))


def _file(measurement: Measurement, setup: Setup, input_size: int, classes: int, settings: LatencySettings) -> bytes:
    if (detector := measurement.detector(input_size)) is not None:
        from mnas.export.detector.random_detector import random_detector_file

        return random_detector_file(detector, classes, measurement.runtime, int8=settings.int8)
    if measurement.arch is not None:
        from mnas.export.render import render

        make_file = render(dataclasses.replace(setup, runtime=measurement.runtime), int8=settings.int8)
        return make_file(measurement.arch, input_size, classes)
    try:
        content = read_regular(measurement.name, MODEL_BYTES)
    except OSError as error:
        raise ValueError(f"model file {measurement.name!r} cannot be read: {error.strerror}") from None
    own_values(Path(measurement.name), content, allow_changed=settings.allow_changed)
    return content


def _row(
    measurement: Measurement, latency: Latency, device: Device, size_bytes: int, classes: int, *, int8: bool
) -> ModelLatency:
    calibration = device.calibration_of(latency)
    whole = measurement.cost(calibration.input_size, classes)
    return ModelLatency(
        name=measurement.name,
        runtime=measurement.runtime,
        int8=int8,
        params=None if whole is None else whole.params,
        macs=None if whole is None else whole.macs,
        size_bytes=size_bytes,
        latency=latency,
        calibration=calibration,
    )
