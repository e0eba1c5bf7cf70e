"""A module imports only from modules to its left (the list stands in CONTRIBUTING.md)."""

import ast
from pathlib import Path

import mnas

ORDER = [
    {"text"},
    {"atomic", "folders", "labels", "readers", "children", "counts"},
    {"foreign"},
    {"arch"},
    {"training_data"},
    {"cell_arch"},
    {"architecture"},
    {"objective"},
    {"space"},
    {"zoo"},
    {"nn"},
    {"tflite"},
    {"latency", "data"},
    {"predict"},
    {"train"},
    {"export"},
    {"evaluate"},
    {"controller"},
    {"study"},
    {"names"},
    {"run"},
    {"shortlist"},
    {"search"},
    {"proxycheck"},
    {"report"},
    {"bench"},
    {"cli"},
]
RANK = {part: rank for rank, parts in enumerate(ORDER) for part in parts}
ROOT = Path(mnas.__file__).parent


def imports(file: Path) -> set[str]:
    """Parts of mnas (`mnas.part...`) that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        found |= {name.split(".")[1] for name in names if name.startswith("mnas.")}
    return found - {"__version__"}


def test_imports_flow_from_left_to_right():
    wrong = []
    for file in ROOT.rglob("*.py"):
        part = file.relative_to(ROOT).parts[0].removesuffix(".py")
        if part == "__init__":
            continue
        for imported in imports(file) - {part}:
            if RANK[imported] >= RANK[part]:
                wrong.append(f"{file.relative_to(ROOT)} imports mnas.{imported}")
    assert not wrong


def test_importing_mnas_does_no_work():
    import subprocess
    import sys

    code = "import sys, mnas; print([m for m in ('torch', 'optuna', 'timm') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
