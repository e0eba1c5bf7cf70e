"""The packages that writing a file needs."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path

from mnas.export.target import Target
from mnas.formats import FORMATS


def require_packages(target: Target) -> None:
    """Raise ImportError, with the extra to install, where the target's format lacks its package."""
    row = FORMATS[target.format]
    extra, packages = (row.extra, row.packages) if target.kind == "fp32" else ("quantize", ("ai_edge_quantizer",))
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(f"writing {target.suffix} files needs {' and '.join(missing)}; pip install 'mnas[{extra}]'")


def missing_packages(targets: Sequence[Target], outs: Sequence[Path]) -> dict[Path, str]:
    """Return file -> missing package, before any work. Raises ImportError where every file lacks one."""
    failures = {}
    for target, out in zip(targets, outs, strict=True):
        try:
            require_packages(target)
        except ImportError as error:
            failures[out] = str(error)
    if len(failures) == len(targets):
        raise ImportError("; ".join(dict.fromkeys(failures.values())))
    return failures
