"""A public class name stands for one thing in the whole package, and a value is named by a noun of the field."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent / "mnas"
PARTICIPLES = {"found", "told", "known", "left", "shown", "kept"}
"""They say what happened to a value, not what it is."""


def _modules() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(ROOT.rglob("*.py")):
        yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text())


def _bindings(module: ast.Module) -> Iterator[tuple[str, int]]:
    """Return name and line of every variable, parameter and attribute that is given a value."""
    for node in ast.walk(module):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.MatchAs | ast.MatchStar) and node.name:
            yield node.name, node.lineno
        if isinstance(node, ast.FunctionDef) and any(map(_is_property, node.decorator_list)):
            yield node.name, node.lineno


def _is_property(decorator: ast.expr) -> bool:
    return isinstance(decorator, ast.Name) and decorator.id in ("property", "cached_property")


def test_a_public_class_name_stands_for_one_thing() -> None:
    homes = defaultdict(list)
    for path, module in _modules():
        for node in ast.walk(module):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes[node.name].append(path)
    assert {name: paths for name, paths in homes.items() if len(paths) > 1} == {}


def test_values_are_named_by_nouns() -> None:
    bindings = [
        f"{path}:{line} {name}"
        for path, module in _modules()
        for name, line in _bindings(module)
        if name.strip("_") in PARTICIPLES
    ]
    assert bindings == []
