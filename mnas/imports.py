"""What a user names as `module:attribute`: a controller or a space of one's own."""

import importlib
import os
import sys
from collections.abc import Callable


def imported(name: str, expected: str) -> Callable[..., object]:
    """Return what `module:attribute` names, imported as `python -m` would, also from the current folder.

    Args:
        expected: what else the option could be, for the error: "controller must be one of ...".

    Raises:
        ValueError: the form is another, there is no such module or attribute, or it cannot be called.
    """
    module_name, colon, attribute = name.partition(":")
    if not colon or not module_name or not attribute:
        raise ValueError(f"{expected}, but got {name!r}")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # whatever somebody's code may raise
        raise ValueError(f"{name}: {module_name} cannot be imported: {described(error)}") from error
    if not hasattr(module, attribute):
        raise ValueError(f"{name}: there is no {attribute} in {module_name}")
    target = getattr(module, attribute)
    if not callable(target):
        raise ValueError(f"{name}: {attribute} must be something in {module_name} to call, but got {target!r}")
    result: Callable[..., object] = target
    return result


def described(error: BaseException) -> str:
    """Return an error of somebody's code, with its type, on one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())
