"""Latency predicted without measuring: a model of one space on one device, learnt from a measured sample.

`mnas latency fit` makes a predictor and saves it; a search with `--latency predicted` measures only where
`choose_to_measure` says so.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mnas import digests
from mnas.architecture import Architecture
from mnas.atomic import write_atomic
from mnas.latency.latency import Calibration, Latency
from mnas.latency.prediction.additive import Network, Parameters
from mnas.latency.prediction.learned import FOLDS, HeldOut, Learned, learn, relearn
from mnas.latency.prediction.parts import parts_of_arch
from mnas.readers import parse_json, read_regular, require_types
from mnas.space.named import space_from_dict
from mnas.space.space import Space
from mnas.zoo.architectures import reference_arch

FORMAT = "mnas latency predictor 1"
REFERENCE_ERROR = 1e-3
"""Error of the reference's ratio, which is 1 by definition; an error of 0 would force the fit through it."""
WIDEST = 0.08
"""Largest half-width of a 95 % interval, as a share, at which a search accepts a prediction."""


@dataclass(frozen=True)
class Sample:
    """A measured member of the space."""

    indices: tuple[int, ...]
    """Indices of the member, as `Space.decode` takes them."""
    ratio: float
    """Time of the member over the time of the reference."""
    error: float
    """Standard error of the ratio, as a share of it."""

    @staticmethod
    def of(indices: Sequence[int], latency: Latency) -> "Sample":
        """Return the sample of a measured member."""
        return Sample(tuple(indices), latency.ratio, math.log(latency.ratio_high / latency.ratio_low) / 2 / 1.96)


def sample_of(values: Any) -> Sample:
    """Return the sample with these values, as `asdict` gives them. Raises KeyError, TypeError or ValueError."""
    require_types(Sample, values)
    sample = Sample(tuple(values["indices"]), values["ratio"], values["error"])
    if not (0 < sample.ratio < math.inf and 0 <= sample.error < math.inf):
        raise ValueError(f"a sample must have a ratio above 0 and an error of 0 or more, but got {sample}")
    return sample


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """Predicts the latency of members of one space, at one input size, on one device and runtime."""

    space: Space
    input_size: int
    num_classes: int
    calibration: Calibration
    """Calibration of the device; ratios are to its reference."""
    date: str
    """Date of the measurements, as 2026-11-21."""
    samples: tuple[Sample, ...]
    learned: Learned

    def predict(self, arch: Architecture, calibration: Calibration | None = None) -> Latency:
        """Return the latency of `arch`, in milliseconds of `calibration` (a run's own), or of the predictor's.

        Raises:
            ValueError: `arch` is not in the space, or the calibration has another device, runtime or input size.
        """
        return self.predict_all([arch], calibration)[0]

    def predict_all(self, archs: Sequence[Architecture], calibration: Calibration | None = None) -> list[Latency]:
        """Return the latencies of several architectures, as `predict` does for one."""
        for arch in archs:
            try:
                self.space.encode(arch)
            except ValueError as error:
                raise ValueError(f"the predictor covers only networks of its search space: {error}") from None
        if calibration is not None:
            self.require(calibration=calibration)
        networks = [parts_of_arch(arch, self.input_size, self.num_classes) for arch in archs]
        return [
            _latency(e.low, e.value, e.high, calibration or self.calibration) for e in self.learned.predict(networks)
        ]

    def require(
        self,
        *,
        space: Space | None = None,
        num_classes: int | None = None,
        calibration: Calibration | None = None,
    ) -> None:
        """Raise ValueError, naming what differs, unless the predictor was learnt for these."""
        if space is not None and space.to_dict() != self.space.to_dict():
            raise ValueError(
                f"the predictor must be for this search space ({_described(space)}), but got one for "
                f"{_described(self.space)}; fit one for this space (mnas latency fit)"
            )
        if num_classes is not None and num_classes != self.num_classes:
            raise ValueError(
                f"the predictor must be for {num_classes} classes, but got one for {self.num_classes}; fit another "
                "(mnas latency fit)"
            )
        if calibration is None:
            return
        ours = asdict(self.calibration)
        for name in ("input_size", "reference", "runtime", "threads", "batch"):
            value = getattr(calibration, name)
            if value != ours[name]:
                raise ValueError(
                    f"the predictor must be for {name.replace('_', ' ')} {value}, but got one for {ours[name]}; fit "
                    "another (mnas latency fit)"
                )
        differing = [
            f"{name} {self.calibration.device.get(name)!r} instead of {calibration.device.get(name)!r}"
            for name in {**self.calibration.device, **calibration.device}
            if self.calibration.device.get(name) != calibration.device.get(name)
        ]
        if differing:
            raise ValueError(
                f"the predictor was fitted on another device ({', '.join(differing)}); fit one on this device "
                "(mnas latency fit)"
            )

    def save(self, path: Path) -> None:
        """Write the predictor as JSON, in one atomic step. Raises OSError."""
        values: dict[str, Any] = {
            "format": FORMAT,
            "date": self.date,
            "space": self.space.to_dict(),
            "input_size": self.input_size,
            "num_classes": self.num_classes,
            "calibration": self.calibration.to_dict(),
            "held_out": self.learned.held_out.to_dict(),
            "width": self.learned.width,
            "parameters": self.learned.additive.parameters.to_dict(),
            "samples": [asdict(sample) for sample in self.samples],
        }
        values |= {digests.KEY: digests.blank(values)}
        write_atomic(path, digests.sealed(json.dumps(values, indent=1).encode(), values[digests.KEY]))


def fit_predictor(
    samples: Sequence[Sample],
    *,
    space: Space,
    num_classes: int,
    calibration: Calibration,
    date: str,
    folds: int = FOLDS,
) -> Predictor:
    """Learn from samples that were measured against `calibration` on `date`.

    Raises:
        ValueError: there are fewer than 2 * `folds` samples.
    """
    size = calibration.input_size
    learned = learn(
        _networks(space, samples, size, num_classes),
        [sample.ratio for sample in samples],
        [sample.error for sample in samples],
        anchors=_anchors(space, size, num_classes),
        folds=folds,
    )
    return Predictor(
        space=space,
        input_size=size,
        num_classes=num_classes,
        calibration=calibration,
        date=date,
        samples=tuple(samples),
        learned=learned,
    )


_BEFORE = {
    *("format", "date", "space", "input_size", "num_classes", "calibration", "held_out", "width", "parameters"),
    "samples",
}
PREDICTOR_BYTES = 64 << 20
"""Maximum size of a predictor's file; a sample takes some 300 bytes."""


def load_predictor(path: Path) -> Predictor:
    """Return the predictor in a file that `Predictor.save` wrote; its predictions are exactly the same.

    Raises:
        ChangedFileError: the file was changed after mnas wrote it.
        ValueError: the file cannot be read, or contains no predictor; one line.
    """
    try:
        content = read_regular(path, PREDICTOR_BYTES)
        values: Any = parse_json(content, PREDICTOR_BYTES)
    except OSError as error:
        raise ValueError(f"predictor file {str(path)!r} cannot be read: {error.strerror}") from None
    except ValueError:
        raise ValueError(f"predictor file {str(path)!r} must be JSON (mnas latency fit writes it)") from None
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise ValueError(f"predictor file {str(path)!r} must come from mnas latency fit (format {FORMAT!r})")
    state = digests.state_of(content, values.get(digests.KEY))
    if state == "unsealed" and set(values) - _BEFORE:
        state = "changed"
    digests.require_intact(state, str(path), "fit it again (mnas latency fit)")
    try:
        return _predictor(values)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"predictor file {str(path)!r} is damaged: {error}") from None


def choose_to_measure(
    predicted: Sequence[Latency],
    *,
    target_ms: float,
    front: Sequence[tuple[float, float]] = (),
    accuracies: Sequence[float | None] | None = None,
    limit_ms: float = math.inf,
    widest: float = WIDEST,
) -> list[int]:
    """Return the candidates that must be measured, as indices into `predicted`.

    A candidate must be measured if its interval is wider than +-`widest`, if the interval contains the target or the
    limit (a search skips candidates beyond the limit), or if the candidate may be on the front, a list of (accuracy,
    latency_ms). It may be on the front if the lower end of its interval is faster than every point that is at least as
    accurate; a candidate whose accuracy is unknown (None) must be faster than the whole front.
    """
    scores = [None] * len(predicted) if accuracies is None else list(accuracies)
    chosen = []
    for number, (latency, accuracy) in enumerate(zip(predicted, scores, strict=True)):
        wide = (latency.high_ms - latency.low_ms) / (2 * latency.latency_ms) > widest
        undecided = any(latency.low_ms <= bound <= latency.high_ms for bound in (target_ms, limit_ms))
        rivals = [ms for other, ms in front if accuracy is None or other >= accuracy]
        may_lead = latency.low_ms < min(rivals, default=math.inf) and (accuracy is not None or bool(front))
        if latency.source == "predicted" and (wide or undecided or may_lead):
            chosen.append(number)
    return chosen


def _described(space: Space) -> str:
    return f"{space.name}, output stride {space.skeleton.output_stride}, {space.size:,} combinations"


def _latency(low: float, ratio: float, high: float, calibration: Calibration) -> Latency:
    level_ms = calibration.reference_ms
    below = math.hypot(math.log(ratio / low), math.log(level_ms / calibration.low_ms))
    above = math.hypot(math.log(high / ratio), math.log(calibration.high_ms / level_ms))
    return Latency(
        latency_ms=ratio * level_ms,
        low_ms=ratio * level_ms * math.exp(-below),
        high_ms=ratio * level_ms * math.exp(above),
        ratio=ratio,
        ratio_low=low,
        ratio_high=high,
        against="reference",
        raw_median_ms=ratio * level_ms,
        runs=0,
        rounds=0,
        stopped_by="interval",
        seconds=0.0,
        drift=0.0,
        disturbed=0.0,
        peak_memory_bytes=None,
        energy_mj=None,
        unit=calibration.unit,
        source="predicted",
    )


def _networks(space: Space, samples: Sequence[Sample], input_size: int, num_classes: int) -> list[Network]:
    return [parts_of_arch(space.decode(sample.indices), input_size, num_classes) for sample in samples]


def _anchors(space: Space, input_size: int, num_classes: int) -> list[tuple[Network, float, float]]:
    return [(parts_of_arch(reference_arch(space.reference_skeleton), input_size, num_classes), 1.0, REFERENCE_ERROR)]


def _predictor(values: dict[str, Any]) -> Predictor:
    space, calibration = space_from_dict(values["space"]), Calibration.from_dict(values["calibration"])
    size, classes = values["input_size"], values["num_classes"]
    samples = tuple(map(sample_of, values["samples"]))
    learned = relearn(
        _networks(space, samples, size, classes),
        [sample.ratio for sample in samples],
        [sample.error for sample in samples],
        anchors=_anchors(space, size, classes),
        parameters=Parameters(**values["parameters"]),
        width=values["width"],
        held_out=HeldOut.from_dict(values["held_out"]),
    )
    return Predictor(
        space=space,
        input_size=size,
        num_classes=classes,
        calibration=calibration,
        date=values["date"],
        samples=samples,
        learned=learned,
    )
