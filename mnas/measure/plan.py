"""Plan of a measurement: each model in each runtime, at which size, all checked before the first measurement."""

import dataclasses
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from mnas.architecture import Architecture
from mnas.detector import COCO_CLASSES, INPUT_SIZE, DefaultBoxes, Detector, HeadOrNone, detector_on, paper_boxes
from mnas.export.render import require_detector_runtime
from mnas.formats import FORMATS, RUNTIME_EXTRAS, SUFFIXES, WEIGHTS_SUFFIX, format_of
from mnas.latency.devices.registry import DeviceEntry
from mnas.measure.settings import LatencySettings
from mnas.names import searched_as
from mnas.nn.cost import Cost, cost
from mnas.nn.detection.cost import detector_cost
from mnas.readers import MODEL_BYTES, read_regular
from mnas.require import require_input_size
from mnas.scaling import at_width, input_sizes, width_multipliers


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """A model to measure in one runtime."""

    name: str
    runtime: str
    arch: Architecture | None
    """Architecture of the model; None: the file of that name."""
    input_size: int = 0
    """The only size to measure it at; 0: all sizes."""
    head: HeadOrNone = "none"
    """Head of the detector of which the architecture is the backbone; none: it is a classifier."""
    boxes: DefaultBoxes = field(default_factory=paper_boxes)
    """Default boxes of the detector."""

    def detector(self, input_size: int) -> Detector | None:
        """Return the detector at an input size; None for a classifier or a file.

        Raises ValueError where the architecture cannot be its backbone.
        """
        if self.arch is None or self.head == "none":
            return None
        return detector_on(self.arch, self.head, input_size=input_size, boxes=self.boxes)

    def cost(self, input_size: int, classes: int) -> Cost | None:
        """Return the cost of an architecture; None for a file. Raises ValueError where it cannot be built."""
        if self.arch is None:
            return None
        detector = self.detector(input_size)
        return cost(self.arch, input_size, classes) if detector is None else detector_cost(detector, classes)


@dataclass(frozen=True, kw_only=True)
class MeasurePlan:
    """All measurements of one call."""

    entry: DeviceEntry
    """The device, with the runtime of the reference."""
    measurements: tuple[Measurement, ...]
    sizes: tuple[int, ...]
    """Sides of the images in pixels."""
    classes: int

    def at(self, input_size: int) -> list[Measurement]:
        """Return the measurements at one input size."""
        return [each for each in self.measurements if each.input_size in (0, input_size)]


def measure_plan(settings: LatencySettings) -> MeasurePlan:
    """Return the plan of these settings.

    Raises:
        ValueError: a name is unknown, a file cannot be read, or options do not go together.
        ImportError: the package of a runtime is missing on this machine, which is to run models.
    """
    if not settings.archs:
        raise ValueError("name at least one architecture or model file, as in mnas latency mnasnet-a1")
    entry, runtimes = settings.entry(), settings.runtimes()
    sizes, widths = input_sizes(settings.input_size), width_multipliers(settings.width_multiplier)
    entry = dataclasses.replace(entry, runtime=runtimes[0]) if runtimes else entry
    files = {name: _runtimes_of_file(name, runtimes) for name in settings.archs if _is_file(name, runtimes)}
    if files and (len(sizes) > 1 or widths != (1,)):
        file = next(iter(files))
        if len(sizes) > 1:
            raise ValueError(f"--input-size must be one size for the file {file!r}, but got {settings.input_size}")
        raise ValueError(f"--width-multiplier must be 1 for the file {file!r}, but got {settings.width_multiplier}")
    sides = {name: side for name in files if (side := _side(name))}
    for name, side in sides.items():
        if sizes and sizes != (side,):
            raise ValueError(f"{name!r} takes images of {side} px, but got --input-size {sizes[0]}; omit --input-size")
    ours = [name for name in settings.archs if name not in files or name.endswith(WEIGHTS_SUFFIX)]
    searched = [searched_as(name) for name in ours] or [(224, 1000)]
    if settings.head != "none":
        searched = [(INPUT_SIZE, COCO_CLASSES)]
    if not sizes:  # a file is measured at its own size, all other models at one
        others = ours or len(sides) < len(files)
        first = (_the_one("--input-size", "auto", [size for size, _ in searched]),) if others else ()
        sizes = tuple(dict.fromkeys((*first, *sides.values())))
    measurements = _measurements(settings, files, widths, runtimes or (entry.runtime,))
    if len(sizes) > 1 and sides:
        measurements = [dataclasses.replace(m, input_size=sides.get(m.name, sizes[0])) for m in measurements]
    plan = MeasurePlan(
        entry=entry,
        measurements=tuple(measurements),
        sizes=sizes,
        classes=_the_one("--classes", settings.classes, [count for _, count in searched]),
    )
    _require_possible(plan, settings)
    return plan


def _require_possible(plan: MeasurePlan, settings: LatencySettings) -> None:
    """Raise ValueError for a network that cannot be built at its size, ImportError for a missing package."""
    for measurement in plan.measurements:
        if measurement.head != "none":
            require_detector_runtime(measurement.runtime, int8=settings.int8)
    for size in plan.sizes:
        for measurement in plan.at(size):
            if measurement.arch is not None:
                require_input_size("--input-size", size, measurement.arch.output_stride)
                measurement.cost(size, plan.classes)
    for runtime in [plan.entry.runtime, *(m.runtime for m in plan.measurements)] if plan.entry.of_kind.local else ():
        if runtime in RUNTIME_EXTRAS and importlib.util.find_spec(runtime) is None:
            raise ImportError(f"runtime {runtime} needs {runtime}: pip install 'mnas[{RUNTIME_EXTRAS[runtime]}]'")


def _measurements(
    settings: LatencySettings,
    files: Mapping[str, tuple[str, ...]],
    widths: Sequence[float],
    runtimes: Sequence[str],
) -> list[Measurement]:
    measurements = []
    for name in dict.fromkeys(settings.archs):
        if name in files:
            measurements += [Measurement(name=name, runtime=runtime, arch=None) for runtime in files[name]]
            continue
        for scaled, arch in dict(at_width(name, width) for width in widths).items():
            head, boxes = settings.head, settings.default_boxes()
            name = scaled if head == "none" else f"{scaled}+{head}"
            measurements += [
                Measurement(name=name, runtime=runtime, arch=arch, head=head, boxes=boxes) for runtime in runtimes
            ]
    return measurements


def _side(name: str) -> int | None:
    """Return the input size of a .tflite file; None for others, which the runtime will judge."""
    path = Path(name)
    if path.suffix != FORMATS["litert"].suffix or not path.is_file():
        return None
    from mnas.tflite.metadata import image_side

    return image_side(read_regular(path, MODEL_BYTES))


def _is_file(name: str, runtimes: tuple[str, ...]) -> bool:
    row = format_of(name)
    return row is not None and (row.writer != "" or runtimes in ((), row.runtimes))


def _runtimes_of_file(name: str, runtimes: tuple[str, ...]) -> tuple[str, ...]:
    """Return the runtimes that take the file; its own if none was requested.

    Raises:
        ValueError: the file is for other runtimes.
    """
    takes = SUFFIXES[Path(name).suffix].runtimes
    if not runtimes:
        return takes[:1]
    common = tuple(runtime for runtime in runtimes if runtime in takes)
    if not common:
        raise ValueError(f"--runtime must be {' or '.join(takes)} for {name!r}, but got {','.join(runtimes)}")
    return common


def _the_one(option: str, value: int | Literal["auto"], values: list[int]) -> int:
    """Return the option's value; for auto the one that all architectures share. Raises ValueError where they differ."""
    if value != "auto":
        return value
    if len(set(values)) > 1:
        raise ValueError(f"{option} must be set, because the trials have different ones: {', '.join(map(str, values))}")
    return values[0]
