"""Write the files of an export: each is compared with its network, and a failure does not affect the others."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from mnas.atomic import claimed
from mnas.export.packages import missing_packages
from mnas.export.place import REPORT_SUFFIX, require_new
from mnas.export.record import GateRecord
from mnas.export.target import Target
from mnas.export.timing import Speed, TimedFile, speed, timed_file
from mnas.latency.latency import MeasurementError, UnitError
from mnas.text import message_of

Progress = Callable[[str], None]
_CLEAR_ERRORS = (ValueError, OSError, ImportError, RuntimeError, MemoryError)
"""Errors whose message is clear without the type."""
_REASON_CHARS = 400


@dataclass(frozen=True, kw_only=True)
class WrittenFile:
    """A written file, and its comparison with the network."""

    path: Path
    gate: GateRecord

    @property
    def report(self) -> Path:
        """Return the path of the file beside it that contains the comparison."""
        return Path(f"{self.path}{REPORT_SUFFIX}")


File = TypeVar("File", bound=WrittenFile)
Compared = TypeVar("Compared")


@dataclass(frozen=True, kw_only=True)
class WrittenFiles:
    """The files of an export."""

    files: Sequence[WrittenFile]
    """Written files; those that failed the comparison have another name than requested."""
    failures: Mapping[Path, str]
    """File that could not be written -> reason."""
    notes: tuple[str, ...]
    """Notices about the images."""

    def require_all(self) -> None:
        """Raise ValueError where a file failed the comparison or could not be written."""
        wrong = [
            f"{'; '.join(file.gate.failures)}: quarantined as {str(file.path)!r}"
            for file in self.files
            if not file.gate.passed
        ]
        wrong += [f"{path.name} was not written: {reason}" for path, reason in self.failures.items()]
        if wrong:
            raise ValueError("; ".join(wrong))


@contextlib.contextmanager
def reserved(targets: Sequence[Target], outs: Sequence[Path], *, overwrite: bool) -> Iterator[dict[Path, str]]:
    """Reserve the files of an export, and yield file -> package that is missing to write it.

    Raises:
        ValueError: a file exists already.
        ImportError: every format lacks its package.
    """
    for out in outs:
        require_new(out, overwrite=overwrite)
    failures = missing_packages(targets, outs)
    with claimed(outs, "--out"):
        for out in outs:  # another process may have written them before its claim ended
            require_new(out, overwrite=overwrite)
        yield failures


def write_each(
    targets: Sequence[Target], outs: Sequence[Path], failures: dict[Path, str], write: Callable[[Target, Path], File]
) -> tuple[File, ...]:
    """Write the file of each target that has no failure yet; one that fails now gets its reason in `failures`."""
    files: list[File] = []
    for target, out in zip(targets, outs, strict=True):
        if out in failures:
            continue
        try:
            files.append(write(target, out))
        except Exception as error:  # whatever fails, the other files are exported first
            failures[out] = message_of(error if isinstance(error, _CLEAR_ERRORS) else repr(error), _REASON_CHARS)
    return tuple(files)


def judged(
    file: Path,
    target: Target,
    compare: Callable[[Path], tuple[Compared, tuple[str, ...]]],
    *,
    reference: TimedFile,
    speed_s: float,
) -> tuple[Compared | None, dict[str, Any]]:
    """Return the comparison of a file, None where its runtime cannot run it, and the fields of its `GateRecord`.

    Args:
        compare: function from the file to its comparison with the network, and to the violations of the tolerance.
        reference: fp32 LiteRT file, which the times of the others relate to.
        speed_s: time in seconds to measure the speed of a file that passes; 0: no measurement.
    """
    comparison: Compared | None = None
    timed: Speed | None = None
    try:
        comparison, failures = compare(file)
        if not failures and speed_s:
            with contextlib.suppress(UnitError):  # the gate judges a file by its outputs alone
                timed = speed(timed_file(file), reference, budget_s=speed_s)
    except (ValueError, RuntimeError, MeasurementError) as error:
        failures = (f"its runtime cannot run it: {' '.join(str(error).split())}",)
    record = GateRecord(
        file=file.name,
        format=target.format,
        kind=target.kind,
        size_bytes=file.stat().st_size,
        failures=failures,
        speed=timed,
    )
    return comparison, vars(record)
