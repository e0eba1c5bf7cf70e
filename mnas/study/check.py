"""Check a study's values when it is read; an error names the damaged value and the remedy, on one line.

Only mnas writes a study, in transactions. But files get copied halfway, repaired by tools and edited by hand. The
checks cover what the rest of the program assumes, and ignore unknown attributes.
"""

import dataclasses
import math
import re
import reprlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from mnas.architecture import Architecture, architecture_from_dict
from mnas.evaluate.evaluation import METRICS, Evaluation
from mnas.latency.latency import Calibration, Latency
from mnas.objective import Objective, Sharing
from mnas.space.candidates import Parent
from mnas.space.named import space_from_dict

T = TypeVar("T")

Check = Callable[[Any], object]
"""Raises ValueError, TypeError or KeyError where a value is invalid."""


class RunError(ValueError):
    """Raised for a run directory that cannot be used; the message gives the reason and the remedy."""


def damaged(path: Path, what: str) -> RunError:
    """Return the error for a damaged record."""
    return RunError(
        f"{path / 'study.db'} is damaged: {what}; restore it from a copy, or choose another --run (the files in "
        "models/, front/ and trained/ stay usable)"
    )


def one_line(value: object) -> str:
    """Return an error, or any other value, as one line of bounded length."""
    text = " ".join(str(value).split()) or type(value).__name__
    return text if len(text) <= 160 else text[:157] + "..."


# Checks of single values


def text(value: Any) -> None:
    """Raise ValueError unless the value is text."""
    if not isinstance(value, str):
        raise ValueError(f"must be text, but got {reprlib.repr(value)}")


def file_name(value: Any) -> None:
    """Raise ValueError unless the value is a valid file name and not a number."""
    text(value)
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9@._-]{0,99}", value):
        raise ValueError(f"must be a name that begins with a letter, but got {value!r}")


def metric_name(value: Any) -> None:
    """Raise ValueError unless the value is a score that a search can maximise."""
    if value not in METRICS:
        raise ValueError(f"must be one of {', '.join(METRICS)}, but got {reprlib.repr(value)}")


def whole(value: Any) -> None:
    """Raise ValueError unless the value is an integer of at least 0."""
    if type(value) is not int or value < 0:
        raise ValueError(f"must be an integer of 0 or more, but got {reprlib.repr(value)}")


def number(value: Any) -> None:
    """Raise ValueError unless the value is a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"must be a finite number, but got {reprlib.repr(value)}")


def numbers(value: Any) -> None:
    """Raise ValueError unless the value is a list of finite numbers."""
    listed(number)(value)


def share(value: Any) -> None:
    """Raise ValueError unless the value is a number in [0, 1]."""
    number(value)
    if not 0 <= value <= 1:
        raise ValueError(f"must be from 0 to 1, but got {value}")


def listed(each: Check) -> Check:
    """Return a check for a list of values that `each` accepts."""

    def check(value: Any) -> None:
        if not isinstance(value, list):
            raise ValueError(f"must be a list, but got {reprlib.repr(value)}")
        for one in value:
            each(one)

    return check


def mapped(each: Check) -> Check:
    """Return a check for a non-empty object of values that `each` accepts."""

    def check(value: Any) -> None:
        if not isinstance(value, dict) or not value:
            raise ValueError(f"must be an object, but got {reprlib.repr(value)}")
        for one in value.values():
            each(one)

    return check


def fields_of(required: Mapping[str, Check], optional: Mapping[str, Check] | None = None) -> Check:
    """Return a check for an object with these fields; it may have others."""

    def check(value: Any) -> None:
        if not isinstance(value, dict):
            raise ValueError(f"must be an object, but got {reprlib.repr(value)}")
        for name, each in {**required, **(optional or {})}.items():
            if name in value:
                check_named(name, each, value[name])
            elif name in required:
                raise ValueError(f"must have {name!r}")

    return check


def maybe(each: Check) -> Check:
    """Return a check that also accepts None."""
    return lambda value: None if value is None else each(value)


def check_named(name: str, check: Callable[[Any], T], value: Any) -> T:
    """Return the result of `check`. Raises ValueError with the name in front, whatever `check` raises."""
    try:
        return check(value)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"{name}: {one_line(error)}") from None


def pair_with_latency(value: Any) -> None:
    """Raise ValueError unless the value is a list of null and a latency."""
    if not isinstance(value, list) or len(value) != 2 or value[0] is not None:
        raise ValueError(f"must be null and a latency, but got {reprlib.repr(value)}")
    number(value[1])


def check_fingerprint(arch: Architecture, fingerprint: str) -> None:
    """Raise ValueError unless the fingerprint belongs to the architecture."""
    if arch.fingerprint != fingerprint:
        expected = f"that of its architecture, {arch.fingerprint}"
        raise ValueError(f"its attribute 'fingerprint' must be {expected}, but got {one_line(fingerprint)}")


def _whole_or_several(value: Any) -> None:
    (listed(whole) if isinstance(value, list) else whole)(value)


def _calibration(value: Any) -> None:
    fields_of({name: lambda v: v for name in ("unit",)})(value)
    Calibration.from_dict({"unit_scale": 1.0, **value})


def _dataclass(kind: type) -> Check:
    def check(value: Any) -> None:
        names = {field.name for field in dataclasses.fields(kind)}
        if not isinstance(value, dict) or set(value) != names:
            raise ValueError(f"must have exactly {', '.join(sorted(names))}, but got {reprlib.repr(value)}")
        kind(**value)

    return check


_STATE = fields_of({"status": text, "reason": text})
_MODEL = fields_of({}, {"weights": mapped(number), "left_out_r2": maybe(number)})
_DIAGNOSTICS = fields_of(
    {}, {"entropy_per_decision": mapped(number), "kl": number, "clip_fraction": number, "objectives": listed(_MODEL)}
)
_UPDATE = fields_of({"trials": whole, "hypervolume": number, "diagnostics": maybe(_DIAGNOSTICS)})
_REFERENCE_FIELDS = fields_of(
    {
        "name": file_name,
        "latency": Latency.from_dict,
        "latencies": mapped(Latency.from_dict),
        "accuracy": maybe(share),
        "params": whole,
        "macs": whole,
    },
    {
        "measure_s": number,
        "train_s": maybe(number),
        "arch": architecture_from_dict,
        "fingerprint": text,
        "input_size": whole,
        "seed": whole,
        "size_bytes": whole,
        "evaluation": maybe(Evaluation.from_dict),
        "error": text,
    },
)


def _reference(value: Any) -> None:
    """Check a reference network, whose fingerprint must belong to its architecture."""
    _REFERENCE_FIELDS(value)
    if "arch" in value and "fingerprint" in value:
        check_fingerprint(architecture_from_dict(value["arch"]), value["fingerprint"])


_ATTRIBUTES: dict[str, Check] = {
    "config": fields_of(
        {},
        {
            "data": text,
            "input_size": _whole_or_several,
            "proxy": fields_of({}),
            "space": space_from_dict,
            "parents": listed(Parent.from_dict),
            "metric": metric_name,
        },
    ),
    "state": _STATE,
    "objective": _dataclass(Objective),
    "other_objectives": listed(_dataclass(Objective)),
    "sharing": _dataclass(Sharing),
    "calibrations": mapped(listed(_calibration)),
    "predictors": lambda value: mapped(text)(value) if value else fields_of({})(value),
    "provenance": fields_of(
        {"data": fields_of({"classes": listed(text)}, {"val_images": whole})},
        {"versions": mapped(text), "command": text},
    ),
    "references": listed(_reference),
    "parent_weights": mapped(text),
    "elapsed_s": number,
    "val_counts": listed(whole),
}
"""Attribute of a run -> the check of its value."""


def needed(path: Path, attributes: Mapping[str, Any], *names: str) -> Any:
    """Return the value under nested names, which every run has from its start. Raises RunError where it is missing."""
    value: Any = attributes
    for place, name in enumerate(names):
        if not isinstance(value, Mapping) or name not in value:
            raise damaged(path, f"the run's attribute {'.'.join(names[: place + 1])!r} is missing")
        value = value[name]
    return value


def check_attributes(path: Path, attributes: Mapping[str, Any]) -> None:
    """Raise RunError where an attribute of a run is missing or invalid."""
    if "config" not in attributes:
        raise damaged(path, "the run's attribute 'config' is missing")
    for name, value in attributes.items():
        check = _UPDATE if name.startswith("update:") else _ATTRIBUTES.get(name)
        if check is not None:
            try:
                check_named(f"the run's attribute {name!r}", check, value)
                if name.startswith("update:"):
                    int(name.removeprefix("update:"))
            except ValueError as error:
                raise damaged(path, one_line(error)) from None
    devices = attributes.get("sharing", {}).get("targets_ms", {})
    calibrated = attributes.get("calibrations", devices)
    if devices and (list(calibrated) != list(devices) or not all(calibrated.values())):
        raise damaged(path, f"it must have a calibration for each of {', '.join(devices)}")
