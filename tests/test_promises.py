"""The page of promises names tests that exist."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_test_that_the_page_names_exists() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", (ROOT / "docs" / "reference" / "promises.md").read_text())
    assert len(named) > 50
    missing = []
    for file, function in named:
        path = ROOT / file
        functions = (
            {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}
            if path.is_file()
            else set()
        )
        if not path.is_file() or (function and function not in functions):
            missing.append(f"{file}::{function}")
    assert missing == []
