"""Parse the words of a command line into the command's dataclass; report errors in one line.

cyclopts splits the words and reports errors by the type of its exceptions; the sentences are ours.
"""

import contextlib
import difflib
import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar, get_args

from cyclopts import App, CoercionError, CycloptsError, MissingArgumentError, Parameter, Token, UnknownOptionError
from cyclopts.exceptions import UnusedCliTokensError

from mnas.cli.options import REQUIRED, Option, members, options_of, words_of
from mnas.settings import from_options

Command = TypeVar("Command")

_KINDS = {int: "an integer", float: "a number", str: "text", Path: "a path", bool: "yes or no"}
"""Type of a value -> its name in sentences."""
_SEVERAL = ("--mean", "--std")
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", re.IGNORECASE)


def parse(command: type[Command], words: str, arguments: Sequence[str]) -> Command:
    """Return the command's dataclass with the values that the arguments give.

    Args:
        command: dataclass; its `defaults(given)`, if it has one, returns values that replace defaults (a preset).
        words: name of the command.
        arguments: arguments after it on the command line.

    Raises:
        ValueError: an option is unknown, missing, or has a value that it does not take; a check of the command fails.
    """
    try:
        options = options_of(command)
        given = given_values(options, words, arguments)
        if missing := [option for option in options if option.default is REQUIRED and option.name not in given]:
            raise ValueError(". ".join(map(_required, missing)))
        several = {option.name: option.default for option in options if option.several}
        return from_options(command, {**several, **preset_values(command, given), **given})
    except ValueError as error:
        raise ValueError(f"{error} (mnas {words} --help)") from error


def preset_values(command: type, given: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return field -> default, where the given options choose a preset. Raises ValueError for an unknown preset."""
    chosen: Mapping[str, Any] = command.defaults(given) if hasattr(command, "defaults") else {}
    return chosen


def given_values(options: Sequence[Option], words: str, arguments: Sequence[str]) -> dict[str, Any]:
    """Return field -> value for the options in the arguments. Raises ValueError where they are wrong."""
    app = application(f"mnas {words}", options)
    arguments = numbers_joined(arguments)
    try:
        _, bound, _ = app.parse_args(arguments, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        _explain(error, options)
    return dict(bound.arguments)


def application(name: str, options: Iterable[Option], **rules: Any) -> App:
    """Return a cyclopts application whose one command takes the options, each optional.

    Args:
        name: name of the command in usage lines.
        options: options of the command.
        rules: fields of `cyclopts.Parameter` that hold for all options.
    """
    every = Parameter(allow_repeating=True, negative_iterable=(), json_list=False, **rules)
    app = App(name=name, help_flags=(), version_flags=(), default_parameter=every)
    app.default(_function(options))
    return app


def _function(options: Iterable[Option]) -> Callable[..., None]:
    def command(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("only its signature is used")

    ordered = sorted(options, key=lambda option: 0 if option.positional and not option.several else 1 + option.several)
    ordered = [option for option in ordered if option.positional] + [x for x in ordered if not x.positional]
    command.__signature__ = inspect.Signature([_parameter(option) for option in ordered])  # type: ignore[attr-defined]
    return command


def _parameter(option: Option) -> inspect.Parameter:
    kinds = inspect.Parameter
    converter = None if option.hint in (bool, str) or option.several else _converted
    about = Parameter(name=option.flag, help=option.help, converter=converter)
    if option.several:
        return kinds(option.name, kinds.VAR_POSITIONAL, annotation=Annotated[get_args(option.hint)[0], about])
    kind = kinds.POSITIONAL_ONLY if option.positional else kinds.KEYWORD_ONLY
    return kinds(option.name, kind, annotation=Annotated[option.hint, about], default=None)


def _converted(hint: Any, tokens: Sequence[Token]) -> Any:
    """Return a value of the hint's types: first its words, then its types in the order of the hint."""
    text = tokens[0].value
    if text in words_of(hint):
        return text
    for kind in members(hint):
        if isinstance(kind, type):
            with contextlib.suppress(ValueError):
                return kind(text)
    raise ValueError(text)


def _explain(error: CycloptsError, options: Sequence[Option]) -> NoReturn:
    """Raise ValueError with a sentence for an exception of cyclopts."""
    by_name = {option.name: option for option in options}
    option = by_name.get(error.argument.field_info.name) if error.argument else None
    match error:
        case UnknownOptionError(token=token):
            word = (token.keyword or token.value).split("=")[0]
            flags = [option.flag for option in options if not option.positional]
            close = difflib.get_close_matches(word, flags, n=1)
            raise ValueError(f"unknown option {word}{f'; did you mean {close[0]}?' if close else ''}") from error
        case CoercionError(token=Token(keyword=flag, value=value)) if option:
            expected = accepted_values(option.hint)
            raise ValueError(f"{flag or option.flag} must be {expected}, but got {value!r}") from error
        case MissingArgumentError() if option:
            expected = accepted_values(option.hint)
            raise ValueError(f"{option.flag} must have a value ({expected}), but got none") from error
        case UnusedCliTokensError(unused_tokens=[word, *_]):
            raise ValueError(f"unexpected argument {word!r}") from error
    raise ValueError(" ".join(str(error).split())) from error


def _required(option: Option) -> str:
    text = option.help.removesuffix(".")
    return f"{option.flag} is required. {text}"


def accepted_values(hint: Any) -> str:
    """Return the values that a type accepts, in words: `an integer or auto`."""
    kinds = [_KINDS[kind] for kind in members(hint) if kind in _KINDS]
    words = words_of(hint)
    if not kinds and len(words) > 1:
        return f"one of {', '.join(words)}"
    return " or ".join((*kinds, *words))


def numbers_joined(arguments: Sequence[str]) -> list[str]:
    """Return `--std 0.2 0.2 0.2 MODEL` as `--std=0.2,0.2,0.2 MODEL`, joining up to three numbers.

    Raises ValueError where no number follows: cyclopts would take MODEL as the value, and then miss MODEL.
    """
    joined: list[str] = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        values: list[str] = []
        while argument in _SEVERAL and rest and len(values) < 3 and _NUMBER.fullmatch(rest[0]):
            values.append(rest.pop(0))
        if argument in _SEVERAL and rest and not values:
            numbers(argument, rest[0])
        joined.append(f"{argument}={','.join(values)}" if values else argument)
    return joined


def numbers(option: str, text: str) -> tuple[float, ...] | None:
    """Return the numbers of `0.5,0.5,0.5` or `0.5 0.5 0.5`; None for an empty text.

    Raises ValueError where a part is not a number.
    """
    if not text:
        return None
    try:
        return tuple(float(part) for part in text.replace(",", " ").split())
    except ValueError:
        raise ValueError(f"{option} must be one number or three (0.5,0.5,0.5), but got {text!r}") from None
