"""Docstrings begin with what a thing is or does, not with a fragment that needs its context."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDERS = ("mnas", "scripts", "benchmarks", "tests")
FRAGMENTS = ("Of ", "As ", "By ")


def _docstrings(module: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield line and text of every string that stands alone: docstrings of modules, classes, functions and fields."""
    for node in ast.walk(module):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.lineno, node.value.value


def test_no_docstring_is_a_fragment() -> None:
    fragments = [
        f"{path.relative_to(ROOT)}:{line} {text.splitlines()[0]}"
        for folder in FOLDERS
        for path in sorted((ROOT / folder).rglob("*.py"))
        for line, text in _docstrings(ast.parse(path.read_text()))
        if text.startswith(FRAGMENTS)
    ]
    assert fragments == []
