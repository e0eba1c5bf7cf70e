"""Settings as flat keyword arguments: the Python functions take the fields of the commands' dataclasses.

A settings dataclass may contain others (the training of candidates, the source of images). Their fields are options of
the outer one, on the command line as in Python, so `mnas.search(data="photos", epochs=3)` needs one constructor.
"""

import dataclasses
import difflib
import inspect
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

Settings = TypeVar("Settings")
Preset = TypeVar("Preset")

_KINDS: Mapping[type, str] = {bool: "True or False", int: "an integer", float: "a number", str: "text", Path: "a path"}


def from_options(kind: type[Settings], options: Mapping[str, object]) -> Settings:
    """Return the settings of dataclass `kind` with these options, of the dataclass itself or of a nested one.

    A string becomes a `Path`, an integer a float and a list a tuple if the field has that type.

    Raises:
        ValueError: an option is unknown, missing, out of range, or has a value of the wrong type.
    """
    names = list(option_names(kind))
    for name in options:
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1)
            hint = f"; did you mean {close[0]}?" if close else f"; the options are {', '.join(names)}"
            raise ValueError(f"unknown option {name!r}{hint}")
    return _build(kind, options)


def named_preset(presets: Mapping[str, Preset], name: str) -> Preset:
    """Return the preset of this name. Raises ValueError for an unknown name."""
    if name not in presets:
        raise ValueError(f"--preset must be one of {', '.join(presets)}, but got {name!r}")
    return presets[name]


def option_names(kind: type) -> Iterator[str]:
    """Yield the names of all options of a settings dataclass, in order."""
    for parameter in _parameters(kind):
        yield parameter.name


def signature_of(
    kind: type,
    *,
    returns: object,
    more: tuple[inspect.Parameter, ...] = (),
    defaults: Mapping[str, object] | None = None,
) -> inspect.Signature:
    """Return the signature of a function that takes these settings as keyword arguments, for `help()` and editors.

    Args:
        more: further parameters of the function.
        defaults: option -> default that replaces the one in the settings.
    """
    parameters = [
        p.replace(default=defaults[p.name]) if defaults and p.name in defaults else p for p in _parameters(kind)
    ]
    required = [p for p in parameters if p.default is inspect.Parameter.empty]
    optional = [p for p in parameters if p.default is not inspect.Parameter.empty]
    ordered = sorted([*required, *optional, *more], key=lambda p: p.kind)  # positional parameters come first
    return inspect.Signature(ordered, return_annotation=returns)


def _parameters(kind: type, instance: object = None) -> Iterator[inspect.Parameter]:
    """Yield the parameters of a dataclass; the values of `instance`, if given, are the defaults."""
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        default: Any = inspect.Parameter.empty
        if instance is not None:
            default = getattr(instance, field.name)
        elif field.default is not dataclasses.MISSING:
            default = field.default
        elif field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        if isinstance(hints[field.name], type) and dataclasses.is_dataclass(hints[field.name]):
            yield from _parameters(hints[field.name], None if default is inspect.Parameter.empty else default)
            continue
        place = inspect.Parameter.KEYWORD_ONLY if field.kw_only else inspect.Parameter.POSITIONAL_OR_KEYWORD
        yield inspect.Parameter(field.name, place, default=default, annotation=hints[field.name])


def _build(kind: type[Settings], options: Mapping[str, object]) -> Settings:
    hints = typing.get_type_hints(kind)
    values: dict[str, Any] = {}
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        hint = hints[field.name]
        if isinstance(hint, type) and dataclasses.is_dataclass(hint):
            inner = {name: options[name] for name in option_names(hint) if name in options}
            if inner or field.default_factory is dataclasses.MISSING:
                values[field.name] = _build(hint, _over_defaults(field, inner))
        elif field.name in options:
            values[field.name] = _converted(field.name, options[field.name], hint)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ValueError(f"{field.name} is required")
    return kind(**values)


def _over_defaults(field: "dataclasses.Field[Any]", options: Mapping[str, object]) -> Mapping[str, object]:
    """Return the enclosing dataclass's default values of this field, updated with the nested options."""
    if field.default_factory is dataclasses.MISSING:
        return options
    default = field.default_factory()
    return {each.name: getattr(default, each.name) for each in dataclasses.fields(default)} | dict(options)


def _converted(name: str, value: object, hint: Any) -> object:
    """Return the value converted to the field's type. Raises ValueError if it has another type."""
    kinds = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    if any(_fits(value, kind) for kind in kinds):
        return value
    if type(value) is int and float in kinds:
        return float(value)
    if isinstance(value, str) and Path in kinds:
        return Path(value)
    if isinstance(value, Path) and str in kinds:
        return str(value)
    if isinstance(value, list) and any(typing.get_origin(kind) is tuple for kind in kinds):
        return tuple(value)
    raise ValueError(f"{name} must be {' or '.join(map(_described, kinds))}, but got {value!r}")


def _fits(value: object, kind: Any) -> bool:
    origin = typing.get_origin(kind)
    if origin is Literal:
        return any(type(value) is type(choice) and value == choice for choice in typing.get_args(kind))
    if kind in (int, float) and isinstance(value, bool):
        return False
    if kind is None:
        return value is None
    return isinstance(value, origin or kind)


def _described(kind: Any) -> str:
    if typing.get_origin(kind) is Literal:
        return ", ".join(map(str, typing.get_args(kind)))
    return "None" if kind is types.NoneType else _KINDS.get(kind, getattr(kind, "__name__", str(kind)))
