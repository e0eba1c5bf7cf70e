"""From the options of `mnas search` to the devices that it measures on."""

import contextlib
import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from mnas.architecture import Architecture
from mnas.data.dataset import Dataset
from mnas.export.render import render
from mnas.latency.devices.registry import find_device
from mnas.latency.fleet.fleet import Fleet, Post
from mnas.latency.fleet.pool import open_device
from mnas.latency.latency import Calibration, Latency, UnitError
from mnas.latency.prediction.predictor import Predictor, load_predictor
from mnas.latency.protocol import make_reference
from mnas.space.space import Space
from mnas.study import RunError

if TYPE_CHECKING:
    from mnas.cli.search import SearchCommand


def device_values(what: str, text: str, devices: Sequence[str]) -> dict[str, float]:
    """A number for each device, of `5` (where there is one device) or `pixel=5,pi=20`.

    Raises:
        ValueError: it is neither, or a device is missing or unknown.
    """
    parts = [part.partition("=") for part in text.split(",")]
    example = ",".join(f"{name}=1" for name in devices)
    try:
        if len(devices) == 1 and len(parts) == 1 and not parts[0][1]:
            return {devices[0]: float(text)}
        values = {name: float(number) for name, _, number in parts}
    except ValueError:
        form = "auto or a number" if len(devices) == 1 else f"given as in {example}"
        raise ValueError(f"{what} must be {form}, but got {text!r}") from None
    if len(values) < len(parts) or set(values) != set(devices):
        raise ValueError(f"{what} must be given for each device once, as in {example}, but got {text!r}")
    return values


def open_fleet(command: "SearchCommand", reference: Architecture, dataset: Dataset, console: Console) -> Fleet:
    """The devices that `command` names; nothing is connected before it is started.

    Raises:
        ValueError: an unknown device, or a reference that is too large for it; ImportError: an extra is missing.
    """

    def say(text: str) -> None:
        console.print(text)

    classes = len(dataset.classes)
    posts = {}
    for name in command.device_names:
        entry = find_device(name, command.devices)
        if command.latency_threads != "auto":
            entry = dataclasses.replace(entry, threads=command.latency_threads)
        make_file = render(entry.setup)
        posts[name] = Post(
            device=open_device(entry, say=say),
            reference=make_reference(reference, "mobilenetv2", dataset.input_size, classes, make_file),
            render=make_file,
        )
    return Fleet(
        posts,
        input_size=dataset.input_size,
        num_classes=classes,
        budget_s=command.latency_budget_s,
        fresh=command.fresh,
    )


def read_predictors(command: "SearchCommand", space: Space, dataset: Dataset) -> list[tuple[Path, Predictor]]:
    """One for each device with `--latency predicted`, else none; before a run is made that could not go on.

    Raises:
        ValueError: a file is missing, is none, or was learnt for another space or other classes.
    """
    read = []
    for path in predictor_paths(command, space, dataset.input_size) if command.latency == "predicted" else ():
        if not path.exists():
            raise ValueError(f"predictor file {str(path)!r} must be there; mnas latency fit makes it")
        predictor = load_predictor(path)
        with _naming(path):
            predictor.require(space=space, num_classes=len(dataset.classes))
        read.append((path, predictor))
    return read


def start_fleet(
    command: "SearchCommand",
    fleet: Fleet,
    predictors: Sequence[tuple[Path, Predictor]],
    attributes: Mapping[str, Any],
    origin: str,
) -> dict[str, Any]:
    """Calibrate the devices, or go on with the frozen calibrations among `attributes`, which are those of `origin`.

    Returns the attributes that a run keeps of it. Raises RunError where a device or a predictor is not that of before.
    """
    try:
        calibrations = fleet.start(
            attributes.get("calibrations"),
            budget_s=3 * command.latency_budget_s,  # every candidate's milliseconds have its error
        )
    except (ValueError, UnitError) as error:
        raise RunError(f"{origin}: {error}") from None
    paired = dict(zip(calibrations, predictors, strict=bool(predictors)))  # none without --latency predicted
    files = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, (path, _) in paired.items()}
    if attributes.get("predictors", files) != files:
        raise RunError(f"{origin} was begun with other predictors; give those, or choose another --run")
    return {"calibrations": calibrations, "predictors": files}


def predicting(
    predictors: Sequence[tuple[Path, Predictor]], calibrations: Mapping[str, Sequence[Any]]
) -> Callable[[Architecture], Mapping[str, Latency]] | None:
    """What predicts the latency on each calibrated device; None without predictors.

    Raises:
        ValueError: a predictor is for another device, or another way of running models.
    """
    known = {}
    for (path, predictor), (name, units) in zip(predictors, calibrations.items(), strict=False):
        calibration = Calibration.from_dict(units[0])
        with _naming(path):
            predictor.require(calibration=calibration)
        known[name] = (predictor, calibration)
    if not known:
        return None
    return lambda arch: {name: predictor.predict(arch, told) for name, (predictor, told) in known.items()}


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def predictor_paths(command: "SearchCommand", space: Space, input_size: int) -> list[Path]:
    """One file for each device; raises ValueError where there are more or fewer."""
    if command.predictor == "auto":
        return [Path("predictors") / f"{name}-{space.name}-{input_size}.json" for name in command.device_names]
    paths = [Path(path) for path in command.predictor.split(",")]
    if len(paths) != len(command.device_names):
        raise ValueError(f"predictor must be one file for each of {command.device}, but got {command.predictor!r}")
    return paths
