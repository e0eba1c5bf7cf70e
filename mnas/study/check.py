"""Check every record of a study when it is read; one line names a damaged one and says what to do.

A study is written by this program alone, in transactions; but files are copied halfway, repaired by tools, and edited
by hand. What is checked is what the rest of the program takes for granted. Unknown attributes are left alone.
"""

import dataclasses
import math
import re
import reprlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from mnas.architecture import architecture_from_dict
from mnas.controller.view import KNOWN_VALUES
from mnas.evaluate.evaluation import METRICS, Evaluation, Metric
from mnas.latency.latency import Calibration, Latency
from mnas.objective import Objective, Sharing
from mnas.space.named import space_from_dict

Check = Callable[[Any], object]
"""Raises ValueError, TypeError or KeyError where a value is invalid."""


class RunError(ValueError):
    """A run directory that cannot be used, and what to do about it."""


def damaged(path: Path, what: str) -> RunError:
    """Return the error about a record that must not be used."""
    return RunError(
        f"{path / 'study.db'} is damaged: {what}; restore it from a copy, or choose another --run (models/, front/ and "
        "trained/ beside it are files of their own)"
    )


def one_line(value: object) -> str:
    """Return an error, or any other value, on one line of bounded length."""
    text = " ".join(str(value).split()) or type(value).__name__
    return text if len(text) <= 160 else text[:157] + "..."


# The values of records


def text(value: Any) -> None:
    """A string."""
    if not isinstance(value, str):
        raise ValueError(f"must be text, but got {reprlib.repr(value)}")


def file_name(value: Any) -> None:
    """A name that a file can have and that is not a number."""
    text(value)
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9@._-]{0,99}", value):
        raise ValueError(f"must be a name of letters and digits, but got {value!r}")


def known_metric(value: Any) -> None:
    """A score that a search can maximise."""
    if value not in METRICS:
        raise ValueError(f"must be one of {', '.join(METRICS)}, but got {reprlib.repr(value)}")


def whole(value: Any) -> None:
    """An integer from 0 on."""
    if type(value) is not int or value < 0:
        raise ValueError(f"must be an integer of 0 or more, but got {reprlib.repr(value)}")


def number(value: Any) -> None:
    """A finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"must be a number, but got {reprlib.repr(value)}")


def numbers(value: Any) -> None:
    """A list of finite numbers."""
    listed(number)(value)


def share(value: Any) -> None:
    """A number in [0, 1]."""
    number(value)
    if not 0 <= value <= 1:
        raise ValueError(f"must be from 0 to 1, but got {value}")


def listed(each: Check) -> Check:
    """A list of such values."""

    def check(value: Any) -> None:
        if not isinstance(value, list):
            raise ValueError(f"must be a list, but got {reprlib.repr(value)}")
        for one in value:
            each(one)

    return check


def mapped(each: Check) -> Check:
    """An object of such values; not an empty one."""

    def check(value: Any) -> None:
        if not isinstance(value, dict) or not value:
            raise ValueError(f"must be an object, but got {reprlib.repr(value)}")
        for one in value.values():
            each(one)

    return check


def fields(required: Mapping[str, Check], optional: Mapping[str, Check] | None = None) -> Check:
    """An object with these fields, and perhaps others."""

    def check(value: Any) -> None:
        if not isinstance(value, dict):
            raise ValueError(f"must be an object, but got {reprlib.repr(value)}")
        for name, each in {**required, **(optional or {})}.items():
            if name in value:
                _named(name, each, value[name])
            elif name in required:
                raise ValueError(f"must have {name!r}")

    return check


def maybe(each: Check) -> Check:
    """The same or None."""
    return lambda value: None if value is None else each(value)


def _named(name: str, check: Check, value: Any) -> None:
    try:
        check(value)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"{name}: {one_line(error)}") from None


def _known_values(value: Any) -> None:
    if not isinstance(value, list) or len(value) != 2 or value[0] is not None:
        raise ValueError(f"must be null and a latency, but got {reprlib.repr(value)}")
    number(value[1])


def _calibration(value: Any) -> None:
    fields({name: lambda v: v for name in ("unit",)})(value)
    Calibration.from_dict({"unit_scale": 1.0, **value})


def _dataclass(kind: type) -> Check:
    def check(value: Any) -> None:
        names = {field.name for field in dataclasses.fields(kind)}
        if not isinstance(value, dict) or set(value) != names:
            raise ValueError(f"must have exactly {', '.join(sorted(names))}, but got {reprlib.repr(value)}")
        kind(**value)

    return check


_STATE = fields({"status": text, "reason": text})
_MODEL = fields({}, {"weights": mapped(number), "left_out_r2": maybe(number)})
_DIAGNOSTICS = fields(
    {}, {"entropy_per_decision": mapped(number), "kl": number, "clip_fraction": number, "objectives": listed(_MODEL)}
)
_UPDATE = fields({"trials": whole, "hypervolume": number, "diagnostics": maybe(_DIAGNOSTICS)})
_REFERENCE = fields(
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
        "seed": whole,
        "size_bytes": whole,
        "evaluation": maybe(Evaluation.from_dict),
        "skipped": text,
        "error": text,
    },
)
_ATTRIBUTES: dict[str, Check] = {
    "config": fields(
        {}, {"data": text, "input_size": whole, "proxy": fields({}), "space": space_from_dict, "metric": known_metric}
    ),
    "state": _STATE,
    "objective": _dataclass(Objective),
    "other_objectives": listed(_dataclass(Objective)),
    "sharing": _dataclass(Sharing),
    "calibrations": mapped(listed(_calibration)),
    "predictors": lambda value: mapped(text)(value) if value else fields({})(value),
    "provenance": fields(
        {"data": fields({"classes": listed(text)}, {"val_images": whole})}, {"versions": mapped(text), "command": text}
    ),
    "references": listed(_REFERENCE),
    "elapsed_s": number,
    "val_counts": listed(whole),
}
"""Attribute of a run -> what it must be."""

_TRIAL: dict[str, Check] = {
    "arch": architecture_from_dict,
    "fingerprint": text,
    "params": whole,
    "macs": whole,
    "size_bytes": whole,
    "seed": whole,
    "latency": Latency.from_dict,
    "latencies": mapped(Latency.from_dict),
    "evaluation": Evaluation.from_dict,
    "reward": number,
    "rewards": numbers,
    "same_as": whole,
    "from": fields({"run": text, "trial": whole}),
    "name": text,
    "skipped": text,
    "error": text,
    KNOWN_VALUES: _known_values,
}
"""User attribute of a trial -> what it must be."""

_ALWAYS = ("arch", "fingerprint", "params", "macs", "size_bytes", "seed")
_NEEDED: dict[TrialState, tuple[str, ...]] = {
    TrialState.RUNNING: _ALWAYS,
    TrialState.COMPLETE: (*_ALWAYS, "latency", "latencies", "evaluation", "reward"),
    TrialState.PRUNED: (*_ALWAYS, "skipped"),
    TrialState.FAIL: (*_ALWAYS, "error"),
}
"""State -> the user attributes that such a trial must have."""


def needed(path: Path, attributes: Mapping[str, Any], *names: str) -> Any:
    """Return the value under nested names, which every run has once it has begun. Raises RunError if missing."""
    value: Any = attributes
    for place, name in enumerate(names):
        if not isinstance(value, Mapping) or name not in value:
            raise damaged(path, f"the run's attribute {'.'.join(names[: place + 1])!r} is missing")
        value = value[name]
    return value


def check_attributes(path: Path, attributes: Mapping[str, Any]) -> None:
    """Raise RunError for an attribute of a run that is missing or is not what it must be."""
    if "config" not in attributes:
        raise damaged(path, "the run's attribute 'config' is missing")
    for name, value in attributes.items():
        check = _UPDATE if name.startswith("update:") else _ATTRIBUTES.get(name)
        if check is not None:
            try:
                _named(f"the run's attribute {name!r}", check, value)
                if name.startswith("update:"):
                    int(name.removeprefix("update:"))
            except ValueError as error:
                raise damaged(path, one_line(error)) from None
    devices = attributes.get("sharing", {}).get("targets_ms", {})
    calibrated = attributes.get("calibrations", devices)
    if devices and (list(calibrated) != list(devices) or not all(calibrated.values())):
        raise damaged(path, f"it must have a calibration of each of {', '.join(devices)}")


def check_trials(path: Path, attributes: Mapping[str, Any], trials: Sequence[FrozenTrial]) -> None:
    """Raise RunError for a trial that is missing, not whole, or is not what a search writes."""
    for place, trial in enumerate(trials):
        if trial.number != place:
            raise damaged(path, f"trial {place} is missing (the row in its place has number {trial.number!r})")
    closed = max((v["trials"] for name, v in attributes.items() if name.startswith("update:")), default=0)
    if closed > len(trials):
        raise damaged(path, f"trial {len(trials)} is missing (the updates know of {closed} trials)")
    config = attributes["config"]
    space = space_from_dict(config["space"]).distributions if trials and "space" in config else None
    targets = len(attributes.get("other_objectives", [])) + 1
    for trial in trials:
        try:
            _check_trial(trial, len(trials), targets, config.get("metric", "accuracy"))
            if space is not None and trial.distributions != space:
                raise ValueError("its parameters must be the decisions of the run's space")
        except ValueError as error:
            raise damaged(path, f"trial {trial.number}: {one_line(error)}") from None


def _check_trial(trial: FrozenTrial, count: int, targets: int, metric: Metric) -> None:
    """Raise ValueError for a trial that no search writes."""
    known = trial.user_attrs
    if trial.state not in _NEEDED:
        raise ValueError(f"its state must be RUNNING, COMPLETE, PRUNED or FAIL, but got {trial.state.name}")
    for name in _NEEDED[trial.state]:
        if name not in known:
            raise ValueError(f"its attribute {name!r} is missing")
    for name, check in _TRIAL.items():
        if name in known:
            _named(f"its attribute {name!r}", check, known[name])
    if "latency" in known and "latencies" not in known:
        raise ValueError("its attribute 'latencies' is missing")
    if known.get("same_as", -1) >= count:
        raise ValueError(f"its attribute 'same_as' must be a trial's number, but got {known['same_as']}")
    if trial.state == TrialState.COMPLETE:
        if targets > 1 and len(known.get("rewards", ())) != targets:
            raise ValueError(f"its attribute 'rewards' must be {targets} numbers")
        if trial.values is None or len(trial.values) != 2:
            raise ValueError("its values must be an accuracy and a latency, but one is missing")
        _named("its accuracy", share, trial.values[0])
        _named("its latency", number, trial.values[1])
        kept = Evaluation.from_dict(known["evaluation"]).score(metric), known["latency"]["latency_ms"]
        if not all(math.isclose(a, b, rel_tol=1e-6) for a, b in zip(trial.values, kept, strict=True)):
            raise ValueError(f"its values {trial.values} must be those of its attributes, {list(kept)}")
