"""Source files that a controller runs: its module and all modules that this imports, except for installed libraries."""

import ast
import importlib
import os
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path

from mnas import version


def sources_of(module: str) -> list[Path]:
    """Return the files of a module and of all modules that it imports, directly or indirectly.

    Modules of the standard library and of installed packages have no files here, except for `module` and mnas. A module
    that is imported under a name made at run time is not found. `module` must be importable.
    """
    folders = _own_folders()
    files: dict[Path, None] = {}
    wanted = [module]
    imported = importlib.import_module(module)
    if imported.__file__ is not None:
        own = Path(imported.__file__).resolve()
        files[own] = None
        above = "" if module.startswith("mnas.") else module.rpartition(".")[0]
        wanted = [above, *_imports(own, imported.__package__ or "")]
    seen: set[str] = set()
    while wanted:
        name = wanted.pop()
        if name in seen or name in ("", "mnas"):  # mnas/__init__.py imports every command on first use
            continue
        seen.add(name)
        if (parent := name.rpartition(".")[0]) and not name.startswith("mnas."):
            wanted.append(parent)  # importing a.b also runs a/__init__.py; those of mnas do nothing
        if (file := _file_of(name, folders)) and file not in files:
            files[file] = None
            wanted += _imports(file, name if file.name == "__init__.py" else parent)
    return list(files)


def _own_folders() -> list[Path]:
    """Return the folders that Python looks for modules in, without those of installed packages."""
    installed = {
        Path(path).resolve() for name, path in sysconfig.get_paths().items() if name.endswith(("lib", "stdlib"))
    }
    folders = dict.fromkeys(Path(path or os.getcwd()).resolve() for path in [os.getcwd(), *sys.path])
    return [f for f in folders if f not in installed and not {"site-packages", "dist-packages"} & set(f.parts)]


def _file_of(name: str, folders: Sequence[Path]) -> Path | None:
    """Return the file of a module of mnas or of the user's own folders; None for any other module."""
    parts = name.split(".")
    if parts[0] in sys.stdlib_module_names:
        return None
    for folder in [Path(version.__file__).resolve().parents[1]] if parts[0] == "mnas" else folders:
        for file in (folder.joinpath(*parts, "__init__.py"), folder.joinpath(*parts).with_suffix(".py")):
            if file.is_file():
                return file
    return None


def _imports(file: Path, package: str) -> Iterator[str]:
    """Yield the names that a file of `package` imports; of `from a import b`, both a and a.b."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):  # Python reports it if the search imports the file
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            if base := ".".join([*above, *([node.module] if node.module else [])]):
                yield base
                yield from (f"{base}.{alias.name}" for alias in node.names)
