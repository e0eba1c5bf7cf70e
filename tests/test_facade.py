"""`import mnas`: its names, its import time, and packages of the same names."""

import importlib
import inspect
import subprocess
import sys

import pytest

import mnas
from mnas.search.settings import SearchSettings
from mnas.settings import option_names


def run_python(code: str) -> str:
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return result.stdout.strip()


def test_importing_mnas_does_no_work() -> None:
    heavy = ("torch", "optuna", "timm", "numpy", "rich", "cyclopts")
    assert run_python(f"import sys, mnas; print([m for m in {heavy!r} if m in sys.modules])") == "[]"


def test_a_function_and_the_package_of_its_name_are_both_there() -> None:
    """A package that is imported first does not hide the function, and the function does not hide the package."""
    code = "import mnas.search.loop, inspect; from mnas.search import loop"
    facts = "callable(mnas.search), 'trials' in inspect.signature(mnas.search).parameters, mnas.search.loop is loop"
    assert run_python(f"{code}; print({facts})") == "True True True"


def test_every_name_is_there_and_documented() -> None:
    names = {name: getattr(mnas, name) for name in mnas.__all__ if name not in ("__version__", "detect")}
    names |= {f"detect.{name}": getattr(mnas.detect, name) for name in mnas.detect.__all__}
    for name, value in names.items():
        assert callable(value), name
        assert inspect.getdoc(value), name
    with pytest.raises(AttributeError, match="module 'mnas' has no attribute 'serach'"):
        mnas.serach  # noqa: B018


def test_a_function_takes_every_option_of_its_command() -> None:
    parameters = inspect.signature(importlib.import_module("mnas").search).parameters
    assert set(option_names(SearchSettings)) == set(parameters) - {"watcher"}
