"""The options of a command: the fields of its dataclass and of the dataclasses nested in it, flattened."""

import ast
import dataclasses
import functools
import inspect
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from cyclopts import Parameter

REQUIRED = dataclasses.MISSING
"""Default that marks an option as required."""


@dataclass(frozen=True, kw_only=True)
class Option:
    """A field in the form of an option."""

    name: str
    """Name of the field."""
    flag: str
    """Flag as typed, such as --max-trials; for a positional argument its name in capitals."""
    positional: bool
    """Whether the value needs no flag; a field declares that by `field(kw_only=False)`."""
    hint: Any
    """Type of the value, without None."""
    help: str
    """Docstring of the field, on one line."""
    group: str
    """Heading above the option: for a nested dataclass, its field's docstring or `Parameter(group=)`; empty for the
    command's own options."""
    default: Any
    """Default value; REQUIRED for a required option; () for several positional values, which commands reject."""

    @property
    def several(self) -> bool:
        """Whether a positional argument takes all values that follow."""
        return get_origin(self.hint) is tuple

    @property
    def choices(self) -> tuple[str, ...]:
        """Words that the option takes: all its values, or those beside numbers and paths."""
        return words_of(self.hint)


def options_of(settings: type, defaults: Mapping[str, Any] | None = None) -> tuple[Option, ...]:
    """Return the options of a command or of settings, in the order of the fields.

    Args:
        settings: dataclass; fields that are themselves dataclasses are replaced by their fields.
        defaults: field -> value that replaces its default, for example from a preset.
    """
    options = _flattened(settings, REQUIRED, "")
    assert len({option.flag for option in options}) == len(options), settings
    replaced = defaults or {}
    return tuple(dataclasses.replace(x, default=replaced.get(x.name, x.default)) for x in options)


def members(hint: Any) -> tuple[Any, ...]:
    """Return the types of a union; of other types the type itself."""
    return (hint,) if get_origin(hint) in (None, tuple, Literal) else get_args(hint)


def words_of(hint: Any) -> tuple[str, ...]:
    """Return the words that a type takes, those of its Literal members."""
    literals = [member for member in members(hint) if get_origin(member) is Literal]
    return tuple(word for literal in literals for word in get_args(literal))


def _flattened(settings: Any, instance: Any, group: str) -> list[Option]:
    """Return the options of a dataclass, with defaults from `instance` where there is one."""
    options: list[Option] = []
    texts = docstrings(settings)
    for field in _fields(settings):
        hint, parameter = _hints(settings)[field.name]
        default = _default(field) if instance is REQUIRED else getattr(instance, field.name)
        groups = [str(getattr(x, "name", x)) for x in parameter.group or ()]  # type: ignore[union-attr]
        if dataclasses.is_dataclass(hint):
            heading = groups[0] if groups else texts.get(field.name, "").removesuffix(".")
            options += _flattened(hint, default, heading if len(_fields(settings)) > 1 else group)
            continue
        names = [name for name in parameter.name or () if name != "*"]
        words = field.name.replace("_", "-")
        positional = field.kw_only is False
        option = Option(
            name=field.name,
            flag=names[0] if names else words.upper() if positional else f"--{words}",
            positional=positional,
            hint=hint,
            help=parameter.help or texts.get(field.name, ""),
            group=groups[0] if groups else group,
            default=() if default is REQUIRED and get_origin(hint) is tuple else default,
        )
        options.append(option)
    return options


def _fields(settings: Any) -> list[dataclasses.Field[Any]]:
    return [field for field in dataclasses.fields(settings) if field.init]


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


@functools.cache
def _hints(settings: Any) -> dict[str, tuple[Any, Parameter]]:
    """Return field -> its type without None, and the `Parameter` in its `Annotated[...]`."""
    hints = {}
    for name, annotation in get_type_hints(settings, include_extras=True).items():
        parameters: list[Parameter] = []
        hint = annotation
        while get_origin(hint) is Annotated:
            parameters = [x for x in hint.__metadata__ if isinstance(x, Parameter)] + parameters
            hint = hint.__origin__
        kinds = tuple(member for member in members(hint) if member is not NoneType)
        hints[name] = (kinds[0] if len(kinds) == 1 else hint, Parameter.combine(*parameters))
    return hints


@functools.cache
def docstrings(settings: type) -> dict[str, str]:
    """Return field -> the docstring below it, on one line, including inherited fields."""
    texts: dict[str, str] = {}
    for owner in reversed([c for c in settings.__mro__ if dataclasses.is_dataclass(c)]):
        [node] = ast.parse(textwrap.dedent(inspect.getsource(owner))).body
        assert isinstance(node, ast.ClassDef)
        for field, text in zip(node.body, node.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr):
                texts[field.target.id] = " ".join(str(ast.literal_eval(text.value)).split())
    return texts
