"""`mnas latency fit`: learn to predict the latency of all members of a space on a device from a sample of them."""

import contextlib
import datetime
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import filelock
from rich import box
from rich.console import Console
from rich.table import Table

from mnas.cli.console import make_console
from mnas.export.render import render
from mnas.folders import user_state_dir
from mnas.latency.devices.registry import DeviceEntry, find_device
from mnas.latency.fleet.lease import lease_key
from mnas.latency.fleet.pool import Device, open_device
from mnas.latency.latency import Latency
from mnas.latency.prediction.design import design_sample
from mnas.latency.prediction.journal import Journal
from mnas.latency.prediction.learned import FOLDS, Score, kendall_tau
from mnas.latency.prediction.predictor import Predictor, Sample, fit_predictor
from mnas.latency.protocol import make_reference
from mnas.nn.cost import cost
from mnas.space.named import load_space
from mnas.space.skeleton import output_stride_for
from mnas.space.space import Space
from mnas.zoo.architectures import reference_arch

Auto = Literal["auto"]
AT_ONCE = 8
"""Files made before they are measured; each is as large as its network."""


@dataclass(frozen=True, kw_only=True)
class LatencyFitCommand:
    """Fit a predictor of the latency of a space's networks to a designed sample, measured on a device.

    The same command resumes an interrupted fit.
    """

    space: str = "mnasnet"
    """mnasnet, mnasnet-no-se, per-layer, cell, or a TOML file with a space of your own."""
    device: str = "host"
    """Device to measure on: a name in devices.toml, or host, this machine."""
    devices: Path | Auto = "auto"
    """The devices.toml to look in; auto: the user's own."""
    samples: int = 200
    """Number of networks to measure."""
    input_size: int = 224
    """Side of the images in pixels."""
    classes: int = 1000
    """Outputs of the classifier."""
    width: float = 1.0
    """Width multiplier of the space's skeleton, as in the search."""
    output_stride: int | Auto = "auto"
    """Input pixels per pixel of the last map; auto: as in the search, what leaves a map of 3 x 3 or more."""
    budget_s: float = 3.0
    """Latency budget per network, in seconds."""
    interval: float = 0.015
    """Stop earlier when a ratio is known to plus or minus this share, with 95 % confidence."""
    out: Path | Auto = "auto"
    """The predictor's file; auto: predictors/DEVICE-SPACE-SIZE.json."""
    seed: int = 0
    """Random seed of the sample."""

    def __post_init__(self) -> None:
        for name in ("budget_s", "interval"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise ValueError(f"{name.replace('_', ' ')} must be above 0, but got {getattr(self, name)}")
        if self.samples < 2 * FOLDS:
            raise ValueError(f"samples must be {2 * FOLDS} or more, but got {self.samples}")

    def run(self) -> None:
        """Measure what is missing, learn, save, and print how well it predicts."""
        console = make_console()
        space = self.resolved_space()
        entry = find_device(self.device, self.devices)
        name = f"{self.device}-{space.name}-{self.input_size}.json"
        out = Path("predictors") / name if self.out == "auto" else self.out
        with _alone(out):
            self._fit(console, space, entry, out)

    def _fit(self, console: Console, space: Space, entry: DeviceEntry, out: Path) -> None:
        if out.exists():
            raise ValueError(f"{out} is there already; remove it, or name another file (--out)")
        members = design_sample(space, self.samples, self.seed)
        out.parent.mkdir(parents=True, exist_ok=True)
        journal = Journal(out.with_name(f"{out.name}.unfinished"), self.identity(space))
        with open_device(entry, say=lambda text: console.print(text)) as device:
            self._measure(console, space, device, members, journal)
        with console.status("learning", spinner="line"):
            predictor = fit_predictor(
                [journal.samples[member] for member in members if member in journal.samples],
                space=space,
                num_classes=self.classes,
                calibration=journal.calibrations[0],
                date=datetime.date.today().isoformat(),
            )
        predictor.save(out)
        journal.remove()
        _print_scores(console, predictor)
        console.print(f"predictor {out}")

    def resolved_space(self) -> Space:
        """The space at its width and stride. Raises ValueError, also where the input is too small for it."""
        space = load_space(self.space).scaled(self.width)
        if self.output_stride == "auto":
            own = space.skeleton.output_stride
            space = space.with_output_stride(min(output_stride_for(self.input_size), own))
        else:
            space = space.with_output_stride(self.output_stride)
        cost(reference_arch(space.reference_skeleton), self.input_size, self.classes)
        return space

    def identity(self, space: Space) -> dict[str, Any]:
        """What must not change while an interrupted fit goes on."""
        kept = ("device", "samples", "input_size", "classes", "seed")
        return {"space": space.to_dict(), **{name: getattr(self, name) for name in kept}}

    def _measure(
        self,
        console: Console,
        space: Space,
        device: Device,
        members: Sequence[tuple[int, ...]],
        journal: Journal,
    ) -> None:
        """Bring the journal up to all members but those that the runtime cannot run."""
        make_file = render(device.setup)
        arch = reference_arch(space.reference_skeleton)
        reference = make_reference(arch, "mobilenetv2", self.input_size, self.classes, make_file)
        if journal.calibrations:
            console.print(f"going on after {len(journal.samples)} of {len(members)} samples")
            device.resume(reference, journal.calibrations)
        else:
            with console.status("calibrating", spinner="line"):
                journal.begin(device.calibrate(reference, 3 * self.budget_s))  # all milliseconds have its error
        missing = [number for number, member in enumerate(members) if member not in journal.samples]
        started = time.monotonic()
        with console.status("measuring", spinner="line") as status:
            for first in range(0, len(missing), AT_ONCE):
                some = missing[first : first + AT_ONCE]
                files = {n: make_file(space.decode(members[n]), self.input_size, self.classes) for n in some}
                for number, outcome in device.measure(files, budget_s=self.budget_s, interval=self.interval):
                    if isinstance(outcome, Latency):
                        journal.add(Sample.of(members[number], outcome))
                    else:
                        console.print(f"a member is left out: {outcome}")
                done = first + len(some)
                left_s = (time.monotonic() - started) / done * (len(missing) - done)
                line = f"measured {len(journal.samples)} of {len(members)}, {left_s / 60:.0f} min left"
                status.update(line)
                if not console.is_terminal and (first // AT_ONCE) % 5 == 0:
                    console.print(line)


@contextlib.contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Two fits would write into one journal; the lock dies with its holder. Raises ValueError."""
    folder = user_state_dir() / "leases"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with filelock.FileLock(folder / f"{lease_key('fit', str(out.absolute()))}.lock", blocking=False):
            yield
    except filelock.Timeout:
        raise ValueError(f"{out} is being fitted by another process; name another file (--out)") from None


def _print_scores(console: Console, predictor: Predictor) -> None:
    scores = predictor.learned.held_out
    archs = [predictor.space.decode(sample.indices) for sample in predictor.samples]
    macs = [cost(arch, predictor.input_size, predictor.num_classes).macs for arch in archs]
    table = Table("held out", box=box.SIMPLE)
    for column in ("value", "95 %"):
        table.add_column(column, justify="right")

    def row(name: str, score: Score, percent: bool) -> None:
        texts = [f"{100 * v:.1f} %" if percent else f"{v:.3f}" for v in (score.value, score.low, score.high)]
        table.add_row(name, texts[0], f"{texts[1]} to {texts[2]}")

    row("mean error (MAPE)", scores.mape, True)
    row("worst error", scores.worst, True)
    row("Kendall tau with latency", scores.kendall_tau, False)
    row("of MACs alone", kendall_tau(macs, [sample.ratio for sample in predictor.samples]), False)
    console.print(table)
    calibration, parameters = predictor.calibration, predictor.learned.additive.parameters
    console.print(
        f"{scores.networks} members of {predictor.space.name} at {predictor.input_size} px, each predicted from the "
        f"others; {calibration.device['runtime']}, {calibration.threads} thread(s), ratios to {calibration.reference} "
        f"({calibration.reference_ms:.4g} ms); not explained {100 * parameters.spreads['noise']:.1f} %",
    )
