"""`mnas latency`: how long architectures and files take on a device, in one runtime or several."""

import dataclasses
import importlib.util
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.status import Status

from mnas.architecture import Architecture
from mnas.cli.console import complain, make_console, say_json
from mnas.cli.latency_table import Row, print_table
from mnas.formats import FORMATS, RUNTIME_EXTRAS, SUFFIXES, WEIGHTS_SUFFIX, format_of
from mnas.latency.devices.registry import DeviceEntry, find_device
from mnas.latency.fleet.pool import Device, open_device
from mnas.latency.latency import Latency, MeasurementError, Setup
from mnas.latency.onboard.script import RUNTIMES
from mnas.latency.protocol import make_reference
from mnas.names import searched_as
from mnas.nn.cost import cost
from mnas.predict.own import own_metadata
from mnas.readers import MODEL_BYTES, read_regular
from mnas.scaling import at_width, input_sizes, width_multipliers
from mnas.zoo.architectures import named_arch


@dataclass(frozen=True, kw_only=True)
class _Task:
    """A model to be measured in one runtime."""

    name: str
    runtime: str
    arch: Architecture | None
    """None: the file of that name."""
    input_size: int = 0
    """The one at which it is measured; 0: all of them."""


@dataclass(frozen=True, kw_only=True)
class LatencyCommand:
    """Measure the latency of architectures and files on a device, as a ratio to MobileNetV2 at the same input."""

    archs: tuple[str, ...] = dataclasses.field(kw_only=False)
    """Names (mnasnet-a1, mnasnet-a1@0.5, mnasnet-small/s8), trials (runs/NAME#17), .json files, block strings, or model
    files of whomever (.tflite, .onnx, .pte), each in its own runtime; .safetensors of ours: torch."""
    runtime: str = "auto"
    """litert, litert-builtin (without XNNPACK), onnxruntime, executorch, torch, or several joined by commas; the
    reference runs in the first. auto: the device's own, and a file's."""
    device: str = "host"
    """Where: host is this machine; others stand in devices.toml (`mnas devices list`)."""
    devices: Path | Literal["auto"] = "auto"
    """The file that describes devices; auto: devices.toml in the user's configuration."""
    input_size: str = "auto"
    """Side of the square image in pixels, or several: 96,128,160; auto: a trial's own, 224 for others; a .tflite file
    has its own, at which its reference runs too."""
    width_multiplier: str = "1"
    """Measure each architecture this many times as wide, or at several widths: 0.35,0.5,1."""
    classes: int | Literal["auto"] = "auto"
    """Outputs of the classifier; auto: a trial's own, 1000 for others; a file has its own."""
    threads: int | Literal["auto"] = "auto"
    """Threads of the runtime; auto: the device's own, 1 unless devices.toml says otherwise."""
    batch: int | Literal["auto"] = "auto"
    """Images of one inference; auto: the device's own, 1 unless devices.toml says otherwise."""
    int8: bool = False
    """Measure architectures in int8; files are measured as they are, and the reference stays fp32."""
    budget_s: float = 3.0
    """At most this many seconds for each model and runtime."""
    interval: float = 0.01
    """Stop earlier when the ratio is known to plus or minus this share, with 95 % confidence."""
    allow_changed: bool = False
    """Measure a .tflite, .onnx or .pte file of mnas although it was changed after mnas wrote it."""
    fresh: bool = False
    """Measure again what was measured earlier, and say how far it moved."""
    json: bool = False
    """Print one JSON object a line instead of a table."""

    def run(self) -> None:
        """Measure all and print them. Raises ValueError for a name that is none or a file that cannot be read."""
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # LiteRT's own words, while int8 files are written
        if not self.archs:
            raise ValueError("name at least one architecture, as in mnas latency mnasnet-a1")
        _require_shares(self.budget_s, self.interval)
        entry = self._entry()
        wanted = self._runtimes()
        sizes, widths = input_sizes(self.input_size), width_multipliers(self.width_multiplier)
        entry = dataclasses.replace(entry, runtime=wanted[0]) if wanted else entry
        files = {name: _runtimes_of_file(name, wanted) for name in self.archs if _is_file(name, wanted)}
        if files and (len(sizes) > 1 or widths != (1,)):
            name = next(iter(files))
            raise ValueError(
                f"a {Path(name).suffix} file has its one size and width, but got {name!r} with a list of them"
            )
        fixed = {name: side for name in files if (side := _side(name))}
        for name, side in fixed.items():
            if sizes and sizes != (side,):
                raise ValueError(f"{name!r} takes images of {side} px, but got --input-size {sizes[0]}; leave that out")
        ours = [name for name in self.archs if name not in files or name.endswith(WEIGHTS_SUFFIX)]
        searched = [searched_as(name) for name in ours] or [(224, 1000)]
        if not sizes:  # a file is measured at its size, all else at one
            both = ours or len(fixed) < len(files)
            first = (_the_one("--input-size", "auto", [size for size, _ in searched]),) if both else ()
            sizes = tuple(dict.fromkeys((*first, *fixed.values())))
        classes = _the_one("--classes", self.classes, [count for _, count in searched])
        tasks = self._tasks(files, widths, wanted or (entry.runtime,))
        if len(sizes) > 1 and fixed:
            tasks = [dataclasses.replace(task, input_size=fixed.get(task.name, sizes[0])) for task in tasks]
        for size in sizes:
            for task in _at(tasks, size):
                if task.arch is not None:
                    cost(task.arch, size, classes)  # what cannot be is said before anything takes its time
        _require_runtimes(entry, [entry.runtime, *(task.runtime for task in tasks)])
        self._print(entry, tasks, sizes, classes)

    def _entry(self) -> DeviceEntry:
        entry = find_device(self.device, self.devices)
        threads = entry.threads if self.threads == "auto" else self.threads
        return dataclasses.replace(entry, threads=threads, batch=entry.batch if self.batch == "auto" else self.batch)

    def _runtimes(self) -> tuple[str, ...]:
        if self.runtime == "auto":
            return ()
        wanted = tuple(name.strip() for name in self.runtime.split(","))
        for name in wanted:
            if name not in RUNTIMES:
                raise ValueError(f"--runtime must be of {', '.join(RUNTIMES)}, joined by commas, but got {name!r}")
            if wanted.count(name) > 1:
                raise ValueError(f"--runtime must name each only once, but got {self.runtime!r}")
        return wanted

    def _tasks(
        self, files: dict[str, tuple[str, ...]], widths: Sequence[float], runtimes: Sequence[str]
    ) -> list[_Task]:
        tasks = []
        for name in dict.fromkeys(self.archs):
            if name in files:
                tasks += [_Task(name=name, runtime=runtime, arch=None) for runtime in files[name]]
                continue
            for scaled, arch in dict(at_width(name, width) for width in widths).items():
                tasks += [_Task(name=scaled, runtime=runtime, arch=arch) for runtime in runtimes]
        return tasks

    def _print(self, entry: DeviceEntry, tasks: Sequence[_Task], sizes: Sequence[int], classes: int) -> None:
        console, errors = make_console(), []
        rows: list[Row] = []
        now: list[_Task] = []  # those being measured, by the numbers that the device knows them by
        with console.status("", spinner="line") as status:

            def say(text: str) -> None:
                named = re.sub(r"\bcandidate (\d+)\b", lambda found: now[int(found[1])].name, text)
                complain(named)

            with open_device(entry, say=say, patience_s=60.0) as device:
                runtimes = {
                    runtime: device.runtime(runtime) for runtime in (entry.runtime, *(t.runtime for t in tasks))
                }
                for size in sizes:
                    now[:] = _at(tasks, size)
                    found, failed = self._measure(device, now, size, classes, status)
                    rows += found
                    errors += failed
        if self.json:
            for row in rows:
                say_json(row.to_dict())
        elif rows:
            print_table(console, rows, runtimes)
        if errors:
            raise ValueError("; ".join(errors))

    def _measure(
        self, device: Device, tasks: Sequence[_Task], input_size: int, classes: int, status: Status
    ) -> tuple[list[Row], list[str]]:
        """All models at one input size, against a reference calibrated at it; and what could not be measured."""
        files = {}
        for number, task in enumerate(tasks):
            status.update(f"writing {task.name} for {task.runtime} at {input_size} px")
            files[number] = self._file(task, device.setup, input_size, classes)
        # the reference gives up resolution as the first architecture does, so that both are of one kind
        strides = [task.arch.output_stride for task in tasks if task.arch is not None]
        stride = (
            strides[0] if strides else 1 << (min(32, input_size).bit_length() - 1)
        )  # of files: what the size allows
        name = f"mobilenetv2/s{stride}" if stride < 32 else "mobilenetv2"
        status.update(f"calibrating by {name} at {input_size} px in {device.setup.runtime}")
        from mnas.export.render import render  # torch takes seconds, and what has been refused needs none of it

        device.calibrate(make_reference(named_arch(name), name, input_size, classes, render(device.setup)))
        outcomes: dict[int, Latency | MeasurementError] = {}
        for runtime in dict.fromkeys(task.runtime for task in tasks):
            these = {number: files[number] for number, task in enumerate(tasks) if task.runtime == runtime}
            status.update(f"measuring {len(these)} model(s) in {runtime} at {input_size} px")
            outcomes |= dict(
                device.measure(these, runtime=runtime, budget_s=self.budget_s, interval=self.interval, fresh=self.fresh)
            )
        rows, errors = [], []
        for number, task in enumerate(tasks):
            outcome = outcomes[number]
            if isinstance(outcome, Latency):
                rows.append(self._row(task, outcome, device, len(files[number]), input_size, classes))
            else:
                errors.append(f"{task.name!r}: {outcome}")
        return rows, errors

    def _file(self, task: _Task, setup: Setup, input_size: int, classes: int) -> bytes:
        if task.arch is not None:
            from mnas.export.render import render

            return render(dataclasses.replace(setup, runtime=task.runtime), int8=self.int8)(
                task.arch, input_size, classes
            )
        try:
            content = read_regular(task.name, MODEL_BYTES)
        except OSError as error:
            raise ValueError(f"model file {task.name!r} cannot be read: {error.strerror}") from None
        own_metadata(Path(task.name), content, allow_changed=self.allow_changed)
        return content

    def _row(
        self, task: _Task, latency: Latency, device: Device, size_bytes: int, input_size: int, classes: int
    ) -> Row:
        whole = None if task.arch is None else cost(task.arch, input_size, classes)
        return Row(
            name=task.name,
            runtime=task.runtime,
            int8=self.int8 and task.arch is not None,
            params=None if whole is None else whole.params,
            macs=None if whole is None else whole.macs,
            size_bytes=size_bytes,
            latency=latency,
            calibration=device.calibration_of(latency),
        )


def _at(tasks: Sequence[_Task], input_size: int) -> list[_Task]:
    return [task for task in tasks if task.input_size in (0, input_size)]


def _side(name: str) -> int | None:
    """The size that a .tflite file has; None for others, which the runtime will judge."""
    path = Path(name)
    if path.suffix != FORMATS["litert"].suffix or not path.is_file():
        return None
    from mnas.tflite.metadata import image_side

    return image_side(read_regular(path, MODEL_BYTES))


def _is_file(name: str, wanted: tuple[str, ...]) -> bool:
    row = format_of(name)
    return row is not None and (row.writer != "" or wanted in ((), row.runtimes))


def _runtimes_of_file(name: str, wanted: tuple[str, ...]) -> tuple[str, ...]:
    """Those of the wanted runtimes that take it; its own if none is wanted. Raises ValueError if it is for others."""
    takes = SUFFIXES[Path(name).suffix].runtimes
    if not wanted:
        return takes[:1]
    found = tuple(runtime for runtime in wanted if runtime in takes)
    if not found:
        raise ValueError(f"{name!r} is a file for {' or '.join(takes)}, but got --runtime {','.join(wanted)}")
    return found


def _require_runtimes(entry: DeviceEntry, runtimes: Sequence[str]) -> None:
    """Raise ImportError if a runtime's package is not installed on this machine, and models are to run here."""
    for runtime in runtimes if entry.of_kind.local else ():
        if runtime in RUNTIME_EXTRAS and importlib.util.find_spec(runtime) is None:
            raise ImportError(f"runtime {runtime} needs {runtime}; pip install 'mnas[{RUNTIME_EXTRAS[runtime]}]'")


def _require_shares(budget_s: float, interval: float) -> None:
    if not 0 < budget_s < float("inf"):
        raise ValueError(f"measuring budget must be more than 0 s, but got {budget_s}")
    if not 0 < interval < 1:
        raise ValueError(f"interval must be a share between 0 and 1, but got {interval}")


def _the_one(option: str, given: int | Literal["auto"], found: list[int]) -> int:
    """What was given, or what all architectures have in common. Raises ValueError where they have nothing in common."""
    if given != "auto":
        return given
    if len(set(found)) > 1:
        raise ValueError(f"{option} must be given where the architectures' own differ ({', '.join(map(str, found))})")
    return found[0]
