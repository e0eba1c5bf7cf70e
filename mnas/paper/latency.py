"""Latencies of a table's models, each in one or several runtimes, on one device and against one reference."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from mnas.export.render import render
from mnas.latency.fleet.pool import Device, open_device
from mnas.latency.latency import Latency, MeasurementError
from mnas.latency.protocol import make_reference
from mnas.latency.statistics import Estimate
from mnas.measure.result import ModelLatency
from mnas.measure.run import PATIENCE_S
from mnas.paper.settings import PAPER_RUNTIMES, PaperRuntime, PaperSettings
from mnas.zoo.architectures import named_arch

Say = Callable[[str], None]
Outcome = ModelLatency | str
"""A latency, or the reason for its absence."""
_REFERENCE, _REFERENCE_CLASSES = "mobilenetv2", 1000


@dataclass(frozen=True, kw_only=True)
class PaperModel:
    """A model of a table."""

    name: str
    files: Mapping[PaperRuntime, Callable[[], bytes] | str]
    """For each runtime, a function that makes the model's file, or the reason for its absence."""


@dataclass(frozen=True, kw_only=True)
class PaperLatencies:
    """The latencies of all models of a table."""

    outcomes: Mapping[tuple[str, PaperRuntime], Outcome]
    """Latency, or reason for its absence, by model and runtime."""
    notes: tuple[str, ...]
    """How the models were run, and what disturbed them."""


def measure_paper_models(
    settings: PaperSettings, models: Sequence[PaperModel], input_size: int, *, progress: Say, say: Say
) -> PaperLatencies:
    """Measure each model in each runtime of the settings; a failure of one does not stop the others.

    Args:
        input_size: side of the images of the reference network, in pixels.
        progress: called with a few words at the start of each step.
        say: called with a line for every event on the device.

    Raises:
        ValueError: the device is unknown, or lacks the first runtime.
        MeasurementError, UnitError: the reference cannot be measured; the device cannot be used.
    """
    outcomes: dict[tuple[str, PaperRuntime], Outcome] = {}
    current = [""]  # name of the model that the device calls candidate 0
    with open_device(
        settings.entry(), say=lambda text: say(text.replace("candidate 0", current[0])), patience_s=PATIENCE_S
    ) as device:
        progress(f"calibrating with {_REFERENCE} at {input_size} px in {PAPER_RUNTIMES[settings.runtimes()[0]]}")
        arch = named_arch(_REFERENCE)
        device.calibrate(make_reference(arch, _REFERENCE, input_size, _REFERENCE_CLASSES, render(device.setup)))
        versions, absent = _versions(device, settings.runtimes())
        for runtime in settings.runtimes():
            for model in models:
                current[0] = model.name
                make_file = absent.get(runtime) or model.files[runtime]
                if isinstance(make_file, str):
                    outcomes[model.name, runtime] = make_file
                    continue
                progress(f"measuring {model.name} in {PAPER_RUNTIMES[runtime]}")
                outcomes[model.name, runtime] = _measure(settings, device, model.name, runtime, make_file)
        notes = [*_disturbances(outcomes), _setup(device, versions.values())]
    return PaperLatencies(outcomes=outcomes, notes=tuple(notes))


def ratio_between(latency: ModelLatency, base: ModelLatency) -> Estimate:
    """Return a latency as a multiple of another one on the same device, from their ratios to the same reference.

    The errors of both are independent, and add up squared in the interval.
    """
    this, other = latency.latency, base.latency
    if this == other:
        return Estimate(1.0, 1.0, 1.0)
    value = this.ratio / other.ratio
    below = math.hypot(math.log(this.ratio / this.ratio_low), math.log(other.ratio_high / other.ratio))
    above = math.hypot(math.log(this.ratio_high / this.ratio), math.log(other.ratio / other.ratio_low))
    return Estimate(value, value * math.exp(-below), value * math.exp(above))


def _versions(
    device: Device, runtimes: Sequence[PaperRuntime]
) -> tuple[dict[PaperRuntime, str], dict[PaperRuntime, str]]:
    """Return the version of each runtime that the device has, and the reason for each that it lacks."""
    versions: dict[PaperRuntime, str] = {}
    absent: dict[PaperRuntime, str] = {}
    for runtime in runtimes:
        try:
            versions[runtime] = device.runtime(runtime)
        except ValueError as error:
            absent[runtime] = " ".join(str(error).split())
    return versions, absent


def _measure(
    settings: PaperSettings, device: Device, name: str, runtime: PaperRuntime, make_file: Callable[[], bytes]
) -> Outcome:
    try:
        file = make_file()
    except (ImportError, ValueError) as error:
        return " ".join(str(error).split())
    outcomes = device.measure(
        {0: file}, runtime=runtime, budget_s=settings.budget_s, interval=settings.interval, fresh=settings.fresh
    )
    [(_, outcome)] = outcomes
    if isinstance(outcome, MeasurementError):
        return " ".join(str(outcome).split())
    assert isinstance(outcome, Latency)
    return ModelLatency(
        name=name,
        runtime=runtime,
        int8=False,
        params=None,
        macs=None,
        size_bytes=len(file),
        latency=outcome,
        calibration=device.calibration_of(outcome),
    )


def _disturbances(outcomes: Mapping[tuple[str, PaperRuntime], Outcome]) -> list[str]:
    return [
        f"{name} in {PAPER_RUNTIMES[runtime]}: {'; '.join(outcome.notes)}"
        for (name, runtime), outcome in outcomes.items()
        if isinstance(outcome, ModelLatency) and outcome.notes
    ]


def _setup(device: Device, versions: Iterable[str]) -> str:
    calibration = device.calibrations[0]
    about = calibration.device
    machine = about["processor"] if "processor" in about else f"{about['model']} ({about['soc']})"
    return (
        f"{', '.join(versions)}; threads: {calibration.threads}; {calibration.unit}: {machine}; "
        f"{calibration.reference} at {calibration.input_size} px: {calibration.reference_ms:.4g} ms "
        f"({calibration.low_ms:.4g}-{calibration.high_ms:.4g})"
    )
