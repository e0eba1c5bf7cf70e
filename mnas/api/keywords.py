"""Errors of the Python functions name keywords instead of flags."""

import functools
import re
from collections.abc import Callable
from typing import ParamSpec, TypeVar

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def names_keywords(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Return the function with errors that name its keywords.

    Settings name an option as the command line does, `--latency-budget-s`; in a call it is `latency_budget_s`.
    """

    @functools.wraps(function)
    def call(*arguments: Parameters.args, **options: Parameters.kwargs) -> Result:
        try:
            return function(*arguments, **options)
        except ValueError as error:
            error.args = tuple(_in_python(part) if isinstance(part, str) else part for part in error.args)
            raise

    return call


def _in_python(text: str) -> str:
    return re.sub(r"(?<![\w-])--([a-z][a-z0-9-]*)", lambda flag: flag[1].replace("-", "_"), text)
