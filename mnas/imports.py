"""Import the user's own controllers and spaces, named as `module:attribute`."""

import importlib
import os
import sys
from collections.abc import Callable


def imported(name: str, option: str, expected: str) -> Callable[..., object]:
    """Return the object that `module:attribute` names; like `python -m`, it also searches the current folder.

    Args:
        option: option or argument that gave the name, for errors.
        expected: values that it accepts, for errors: "one of ...".

    Raises:
        ValueError: the name has another form, the module or attribute does not exist, or it is not callable.
    """
    module_name, colon, attribute = name.partition(":")
    if not colon or not module_name or not attribute:
        raise ValueError(f"{option} must be {expected}, but got {name!r}")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        is_it = missing is not None and f"{module_name}.".startswith(f"{missing}.")
        where = "; modules are looked for in the current folder and on the Python path" if is_it else ""
        raise ValueError(
            f"{option} {name}: module {module_name} cannot be imported: {described(error)}{where}"
        ) from error
    if not hasattr(module, attribute):
        raise ValueError(f"{option} {name}: module {module_name} has no attribute {attribute}")
    target = getattr(module, attribute)
    if not callable(target):
        raise ValueError(f"{option} {name}: {attribute} must be callable, but got {target!r}")
    result: Callable[..., object] = target
    return result


def described(error: BaseException) -> str:
    """Return the type and message of an error of the user's code, on one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())
