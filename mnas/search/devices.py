"""Open and calibrate the devices that the settings of a search name."""

import contextlib
import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mnas.architecture import Architecture
from mnas.candidate import Candidate
from mnas.export.render import render
from mnas.latency.devices.registry import find_device
from mnas.latency.fleet.fleet import Fleet, Post
from mnas.latency.fleet.pool import open_device
from mnas.latency.latency import Calibration, Latency, UnitError
from mnas.latency.prediction.predictor import Predictor, load_predictor
from mnas.latency.protocol import make_reference
from mnas.search.settings import SearchSettings
from mnas.space.candidates import CandidateSpace
from mnas.space.space import Space
from mnas.study import RunError

Say = Callable[[str], None]
"""Takes one line for the user."""


def open_fleet(settings: SearchSettings, reference: Candidate, num_classes: int, say: Say) -> Fleet:
    """Return the devices that `settings` names; connections open only when the fleet starts.

    Raises:
        ValueError: an unknown device, or a reference that is too large for it; ImportError: an extra is missing.
    """
    posts = {}
    for name in settings.device_names:
        entry = find_device(name, settings.devices)
        if settings.latency_threads != "auto":
            entry = dataclasses.replace(entry, threads=settings.latency_threads)
        make_file = render(entry.setup)
        posts[name] = Post(
            device=open_device(entry, say=say),
            reference=make_reference(reference.arch, "mobilenetv2", reference.input_size, num_classes, make_file),
            render=make_file,
        )
    return Fleet(posts, num_classes=num_classes, budget_s=settings.latency_budget_s, fresh=settings.fresh)


def read_predictors(settings: SearchSettings, space: CandidateSpace, num_classes: int) -> list[tuple[Path, Predictor]]:
    """Return the path and the predictor of each device; empty unless `--latency predicted` is set.

    It is called before a run is created, so that an invalid predictor leaves no run behind.

    Raises:
        ValueError: a file is missing, is not a predictor, was fitted for another space or other classes, or the search
            has several input sizes or parents.
    """
    if settings.latency != "predicted":
        return []
    if space.space is None or space.parents or len(space.input_sizes) > 1:
        raise ValueError(
            "--latency predicted must have one --input-size and no --parent, as predictors are fitted for one space at "
            "one size; measure latencies instead, which takes a few seconds each"
        )
    read = []
    for path in predictor_paths(settings, space.space, space.input_sizes[0]):
        if not path.exists():
            raise ValueError(f"predictor file {str(path)!r} does not exist; mnas latency fit writes it")
        predictor = load_predictor(path)
        with _naming(path):
            predictor.require(space=space.space, num_classes=num_classes)
        read.append((path, predictor))
    return read


def start_fleet(
    settings: SearchSettings,
    fleet: Fleet,
    predictors: Sequence[tuple[Path, Predictor]],
    attributes: Mapping[str, Any],
    origin: str,
) -> dict[str, Any]:
    """Calibrate the devices, or restore the frozen calibrations in `attributes`; errors name `origin`, their source.

    Returns the attributes that the run stores. Raises RunError where a device or a predictor differs from the stored
    one.
    """
    try:
        calibrations = fleet.start(
            attributes.get("calibrations"),
            budget_s=3 * settings.latency_budget_s,  # the calibration's error enters every latency in ms
        )
    except (ValueError, UnitError) as error:
        raise RunError(f"{origin}: {error}") from None
    paired = dict(zip(calibrations, predictors, strict=bool(predictors)))  # empty unless --latency is predicted
    files = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, (path, _) in paired.items()}
    if attributes.get("predictors", files) != files:
        raise RunError(f"{origin} was started with other predictors; use the same --predictor, or choose another --run")
    return {"calibrations": calibrations, "predictors": files}


def predicting(
    predictors: Sequence[tuple[Path, Predictor]], calibrations: Mapping[str, Sequence[Any]]
) -> Callable[[Architecture], Mapping[str, Latency]] | None:
    """Return a function that predicts the latency of a network on each calibrated device; None without predictors.

    Raises:
        ValueError: a predictor was fitted for another device or another way of running models.
    """
    by_device = {}
    for (path, predictor), (name, units) in zip(predictors, calibrations.items(), strict=False):
        calibration = Calibration.from_dict(units[0])
        with _naming(path):
            predictor.require(calibration=calibration)
        by_device[name] = (predictor, calibration)
    if not by_device:
        return None
    return lambda arch: {
        name: predictor.predict(arch, calibration) for name, (predictor, calibration) in by_device.items()
    }


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def predictor_paths(settings: SearchSettings, space: Space, input_size: int) -> list[Path]:
    """Return the predictor file of each device. Raises ValueError unless there is one file for each device."""
    if settings.predictor == "auto":
        return [Path("predictors") / f"{name}-{space.name}-{input_size}.json" for name in settings.device_names]
    paths = [Path(path) for path in settings.predictor.split(",")]
    if len(paths) != len(settings.device_names):
        raise ValueError(f"--predictor must name a file for each of {settings.device}, but got {settings.predictor!r}")
    return paths
