"""Checks of values, which raise ValueError with one line: a rule, and what was given instead."""

import dataclasses
import reprlib
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

MOST_INPUT_SIZE = 8192
"""Largest side of an input image, in pixels."""


def flag_of(field: str) -> str:
    """Return the flag of a field, by which errors name it: `learning_rate` is --learning-rate."""
    return f"--{field.replace('_', '-')}"


def require_int(name: str, value: object, low: int, high: int | None = None) -> None:
    """Raise ValueError unless `value` is an int (not a bool) from `low` to `high`; None: no upper bound."""
    if type(value) is not int or value < low or (high is not None and value > high):
        rule = f"of {low} or more" if high is None else f"from {low} to {high}"
        raise ValueError(f"{name} must be an integer {rule}, but got {reprlib.repr(value)}")


def require_number(name: str, value: object, low: float, high: float) -> None:
    """Raise ValueError unless `value` is an int or float (not a bool, not NaN) from `low` to `high`."""
    if type(value) not in (int, float) or not low <= value <= high:  # type: ignore[operator]
        raise ValueError(f"{name} must be a number from {low} to {high}, but got {reprlib.repr(value)}")


def require_input_size(name: str, value: object, output_stride: int = 1) -> None:
    """Raise ValueError unless `value` is an image side in pixels that is at least the output stride."""
    require_int(name, value, 1, MOST_INPUT_SIZE)
    if value < output_stride:  # type: ignore[operator]
        raise ValueError(
            f"{name} must be at least the output stride {output_stride}, but got {value}; "
            "use larger images or a smaller output stride (NAME/s8)"
        )


def require_choice(name: str, value: object, choices: Sequence[object]) -> None:
    """Raise ValueError unless `value` is one of `choices` and has their type."""
    if type(value) not in {type(c) for c in choices} or value not in choices:
        # TOML and JSON write true, Python writes True
        rule = "true or false" if type(choices[0]) is bool else f"one of {', '.join(map(str, choices))}"
        raise ValueError(f"{name} must be {rule}, but got {reprlib.repr(value)}")


def checked_fields(cls: type, values: object, what: str) -> dict[str, Any]:
    """Return `values`; raise ValueError unless it maps all required fields of dataclass `cls`, and only its fields."""
    if not isinstance(values, dict):
        raise ValueError(f"{what} must be a mapping of fields, but got {reprlib.repr(values)}")
    fields_by_name = {f.name: f for f in fields(cls)}
    if unknown := [reprlib.repr(name) for name in values if name not in fields_by_name]:
        raise ValueError(f"{what} has unknown fields {', '.join(unknown)}; its fields are {', '.join(fields_by_name)}")
    required = (name for name, f in fields_by_name.items() if f.default is dataclasses.MISSING)
    if missing := [name for name in required if name not in values]:
        raise ValueError(f"{what} lacks the fields {', '.join(missing)}")
    return values
