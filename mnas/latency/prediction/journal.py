"""Samples of an unfinished fit, written to disk one by one, so that a killed fit can be resumed."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mnas.atomic import write_atomic
from mnas.latency.latency import Calibration
from mnas.latency.prediction.predictor import Sample, sample_of
from mnas.readers import parse_json, read_regular

JOURNAL_BYTES = 64 << 20
"""Maximum size of the journal in bytes; a sample takes some 200."""


class Journal:
    """A file of one JSON object a line: the fit's identity and calibrations, then one sample a line.

    Args:
        path: path of the file, which may exist.
        identity: plain values that identify the fit; samples of another fit are rejected.

    Raises:
        ValueError: the file belongs to another fit, or cannot be read.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        self.path = path
        self.calibrations: list[Calibration] = []
        """Calibrations of the device's units; empty until `begin`."""
        self.samples: dict[tuple[int, ...], Sample] = {}
        """Samples by their indices."""
        self._identity = json.loads(json.dumps(identity))
        try:
            lines = read_regular(path, JOURNAL_BYTES).splitlines(keepends=True)
        except FileNotFoundError:
            return
        except OSError as error:
            raise ValueError(f"{path} cannot be read: {error.strerror}") from None
        if lines and not lines[-1].endswith(b"\n"):
            del lines[-1]  # the fit was killed while writing this line
        try:
            rows = [_checked(parse_json(line)) for line in lines]
            before = rows[0]["identity"] if rows else self._identity
            self.calibrations = [Calibration.from_dict(c) for row in rows[:1] for c in row["calibrations"]]
            samples = [sample_of(row) for row in rows[1:]]
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ValueError(
                f"{path} must be the journal of an unfinished fit, but it is damaged; remove it to start again"
            ) from None
        if differing := [name for name in self._identity if before.get(name) != self._identity[name]]:
            raise ValueError(
                f"{path} belongs to an unfinished fit with another value of {differing[0]}; resume that fit, or remove "
                "the file"
            )
        self.samples = {sample.indices: sample for sample in samples}
        write_atomic(path, b"".join(lines))  # a line that is added must not follow half a line

    def begin(self, calibrations: Sequence[Calibration]) -> None:
        """Write the first line. Raises OSError."""
        self.calibrations = list(calibrations)
        head = {"identity": self._identity, "calibrations": [c.to_dict() for c in calibrations]}
        write_atomic(self.path, _line(head))

    def add(self, sample: Sample) -> None:
        """Write a sample, which is on disk when this returns. Raises OSError."""
        self.samples[sample.indices] = sample
        line = _line({"indices": list(sample.indices), "ratio": sample.ratio, "error": sample.error})
        with self.path.open("a") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())

    def remove(self) -> None:
        """Remove the file once the fit is done."""
        self.path.unlink(missing_ok=True)


def _line(values: Mapping[str, Any]) -> str:
    """Return a line of the file: the values, and a digest of them."""
    return json.dumps({**values, "check": _check(values)}) + "\n"


def _checked(values: Any) -> Any:
    """Return a line's values without their digest. Raises ValueError where values and digest do not match."""
    check = values.pop("check", None)  # lines of earlier versions have none
    if check not in (None, _check(values)):
        raise ValueError("a line was changed")
    return values


def _check(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]
