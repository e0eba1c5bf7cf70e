"""Fit of a predictor of the latency of all members of a space on a device, from a sample of them."""

import contextlib
import datetime
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import filelock

from mnas.export.render import render
from mnas.folders import user_state_dir
from mnas.latency.devices.registry import DeviceEntry, find_device
from mnas.latency.fleet.lease import lease_key
from mnas.latency.fleet.pool import Device, open_device
from mnas.latency.latency import Latency
from mnas.latency.prediction.design import design_sample
from mnas.latency.prediction.journal import Journal
from mnas.latency.prediction.learned import FOLDS
from mnas.latency.prediction.predictor import Predictor, Sample, fit_predictor
from mnas.latency.protocol import make_reference
from mnas.nn.cost import cost
from mnas.require import require_input_size, require_int
from mnas.space.named import load_space
from mnas.space.skeleton import output_stride_for
from mnas.space.space import Space
from mnas.zoo.architectures import reference_arch

Auto = Literal["auto"]
Say = Callable[[str], None]
AT_ONCE = 8
"""Number of files made before they are measured; each is as large as its network."""
BATCHES_A_LINE = 5
"""Number of batches of measured files between two lines about the fit's progress."""


@dataclass(frozen=True, kw_only=True)
class LatencyFitSettings:
    """A predictor to fit. Raises ValueError where a field is out of its range."""

    space: str = "mnasnet"
    """Search space: mnasnet, mnasnet-no-se, per-layer, mobilenetv4, cell, or a TOML file with your own."""
    device: str = "host"
    """Device to measure on: host (this machine) or a device from devices.toml."""
    devices: Path | Auto = "auto"
    """File that describes the devices; auto: devices.toml in your configuration folder (~/.config/mnas on Linux)."""
    samples: int = 200
    """Number of networks to measure."""
    input_size: int = 224
    """Input size in pixels."""
    classes: int = 1000
    """Number of classes."""
    width: float = 1.0
    """Width multiplier of the space's skeleton (its filters, layers and strides), as in mnas search."""
    output_stride: int | Auto = "auto"
    """Input pixels per pixel of the last feature map, as in mnas search; auto: the largest of 32, 16, 8 and 4 that
    leaves a map of 3 x 3 or more."""
    budget_s: float = 3.0
    """Time limit for measuring each network, in seconds."""
    interval: float = 0.015
    """Stop measuring early once the ratio to the reference network is this precise (0.01: its 95 % confidence interval
    is within plus or minus 1 %)."""
    out: Path | Auto = "auto"
    """File to write the predictor to; auto: predictors/DEVICE-SPACE-SIZE.json in the current folder."""
    seed: int = 0
    """Random seed of the sample."""

    def __post_init__(self) -> None:
        for name in ("budget_s", "interval"):
            flag = name.replace("_", "-")
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise ValueError(f"--{flag} must be finite and greater than 0, but got {getattr(self, name)}")
        if self.samples < 2 * FOLDS:
            raise ValueError(f"--samples must be at least {2 * FOLDS}, but got {self.samples}")
        require_int("--classes", self.classes, 1)

    def resolved_space(self) -> Space:
        """Return the space at its width and stride. Raises ValueError, also where the input is too small for it."""
        space = load_space(self.space).scaled(self.width)
        if self.output_stride == "auto":
            own = space.skeleton.output_stride
            space = space.with_output_stride(min(output_stride_for(self.input_size), own))
        else:
            space = space.with_output_stride(self.output_stride)
        require_input_size("--input-size", self.input_size, space.skeleton.output_stride)
        cost(reference_arch(space.reference_skeleton), self.input_size, self.classes)
        return space

    def identity(self, space: Space) -> dict[str, Any]:
        """Return what must not change when an interrupted fit is resumed."""
        names = ("device", "samples", "input_size", "classes", "seed")
        return {"space": space.to_dict(), **{name: getattr(self, name) for name in names}}


@dataclass(frozen=True, kw_only=True)
class LatencyFit:
    """A fitted predictor."""

    predictor: Predictor
    path: Path
    """Path of the predictor's file."""


def fit_latency(settings: LatencyFitSettings, *, progress: Say, say: Say) -> LatencyFit:
    """Measure the members that no earlier call has measured, fit the predictor and save it.

    Args:
        progress: called with a few words at the start of each step.
        say: called with a line for every event on the device, and now and then for the fit's progress.

    Raises:
        ValueError: the file exists, another process is making it, or the space or device is unknown.
        MeasurementError, UnitError: the reference cannot be measured; the device cannot be used.
    """
    space = settings.resolved_space()
    entry = find_device(settings.device, settings.devices)
    name = f"{settings.device}-{space.name}-{settings.input_size}.json"
    out = Path("predictors") / name if settings.out == "auto" else settings.out
    with _alone(out):
        return LatencyFit(predictor=_fit(settings, space, entry, out, progress, say), path=out)


def _fit(
    settings: LatencyFitSettings, space: Space, entry: DeviceEntry, out: Path, progress: Say, say: Say
) -> Predictor:
    if out.exists():
        raise ValueError(f"--out must be a new file, but {out} exists; remove it or choose another file")
    members = design_sample(space, settings.samples, settings.seed)
    out.parent.mkdir(parents=True, exist_ok=True)
    journal = Journal(out.with_name(f"{out.name}.unfinished"), settings.identity(space))
    with open_device(entry, say=say) as device:
        _measure(settings, space, device, members, journal, progress, say)
    progress("fitting the predictor")
    predictor = fit_predictor(
        [journal.samples[member] for member in members if member in journal.samples],
        space=space,
        num_classes=settings.classes,
        calibration=journal.calibrations[0],
        date=datetime.date.today().isoformat(),
    )
    predictor.save(out)
    journal.remove()
    return predictor


def _measure(
    settings: LatencyFitSettings,
    space: Space,
    device: Device,
    members: Sequence[tuple[int, ...]],
    journal: Journal,
    progress: Say,
    say: Say,
) -> None:
    """Add all members to the journal, except those that the runtime cannot run."""
    make_file = render(device.setup)
    arch = reference_arch(space.reference_skeleton)
    reference = make_reference(arch, "mobilenetv2", settings.input_size, settings.classes, make_file)
    if journal.calibrations:
        say(f"resuming after {len(journal.samples)} of {len(members)} samples")
        device.resume(reference, journal.calibrations)
    else:
        progress("calibrating")
        journal.begin(device.calibrate(reference, 3 * settings.budget_s))  # all milliseconds have its error
    progress("measuring")
    missing = [number for number, member in enumerate(members) if member not in journal.samples]
    started = time.monotonic()
    for first in range(0, len(missing), AT_ONCE):
        some = missing[first : first + AT_ONCE]
        files = {n: make_file(space.decode(members[n]), settings.input_size, settings.classes) for n in some}
        for number, outcome in device.measure(files, budget_s=settings.budget_s, interval=settings.interval):
            if isinstance(outcome, Latency):
                journal.add(Sample.of(members[number], outcome))
            else:
                say(f"a network failed and is not used: {outcome}")
        done = first + len(some)
        remaining_s = (time.monotonic() - started) / done * (len(missing) - done)
        line = f"measured {len(journal.samples)} of {len(members)} networks, {remaining_s / 60:.0f} min left"
        progress(line)
        if (first // AT_ONCE) % BATCHES_A_LINE == 0:
            say(line)


@contextlib.contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Exclude another fit, which would write to the same journal; the lock dies with its holder. Raises ValueError."""
    folder = user_state_dir() / "leases"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with filelock.FileLock(folder / f"{lease_key('fit', str(out.absolute()))}.lock", blocking=False):
            yield
    except filelock.Timeout:
        raise ValueError(f"another process is fitting {out}; choose another file with --out") from None
