"""Give an exported file its name once it has passed its gate; a file that fails gets another name."""

import dataclasses
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from mnas.atomic import place, write_atomic
from mnas.export.record import GateRecord
from mnas.formats import SIDECAR_SUFFIX

REPORT_SUFFIX = ".gate.json"
_Result = TypeVar("_Result", bound=GateRecord)


def placed(
    content: bytes,
    out: Path,
    judge: Callable[[Path], _Result],
    *,
    sidecar: str | None = None,
    overwrite: bool = True,
) -> tuple[Path, _Result]:
    """Write a file, judge it, and place it at `out`, or under another name if it fails; return path and result.

    Writes beside it `NAME.gate.json` with the result and `NAME.json` with the sidecar. A file that fails overwrites
    nothing; one that passes replaces the file of its name.

    Args:
        judge: function from the path of the file, with its sidecar, to the gate's result.
        sidecar: content of the file beside it; None: it has no sidecar.
        overwrite: whether to replace an existing file; if False, a file that appears meanwhile stays.

    Raises:
        FileExistsError: the file exists and `overwrite` is False.
        OSError: the disk is full, the folder is missing or read-only; no partial file remains.
    """
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder:
        file = Path(folder) / out.name
        write_atomic(file, content)
        parts = [""]
        if sidecar is not None:
            write_atomic(Path(f"{file}{SIDECAR_SUFFIX}"), sidecar)
            parts.append(SIDECAR_SUFFIX)
        result = judge(file)
        final = out if result.passed else _free(out)
        result = dataclasses.replace(result, file=final.name)
        write_atomic(Path(f"{file}{REPORT_SUFFIX}"), json.dumps(result.to_dict(), indent=1) + "\n")
        parts.append(REPORT_SUFFIX)
        done: list[Path] = []
        try:
            for part in reversed(parts):  # the model file last: the files beside it exist when it appears
                place(Path(f"{file}{part}"), Path(f"{final}{part}"), new=not overwrite)
                done.append(Path(f"{final}{part}"))
        except OSError:
            if not overwrite:
                for other in done:
                    other.unlink(missing_ok=True)
            raise
    return final, result


def require_new(out: Path, *, overwrite: bool) -> None:
    """Raise ValueError if the file, or one beside it, exists and must not be replaced."""
    for path in (out, Path(f"{out}{REPORT_SUFFIX}"), Path(f"{out}{SIDECAR_SUFFIX}")):
        if path.exists() and not overwrite:
            raise ValueError(f"--out must be new, but {str(path)!r} exists; choose another or use --overwrite")


def _free(out: Path) -> Path:
    """Return `model.failed.tflite`, or a numbered name where that exists already."""
    stem, suffix = out.name.removesuffix(out.suffix), out.suffix
    number = 1
    while True:
        name = f"{stem}.failed{suffix}" if number == 1 else f"{stem}.failed-{number}{suffix}"
        if not any((out.parent / f"{name}{part}").exists() for part in ("", SIDECAR_SUFFIX, REPORT_SUFFIX)):
            return out.parent / name
        number += 1
