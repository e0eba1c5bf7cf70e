"""The record of a gate's result for one exported file."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from mnas.export.target import Kind
from mnas.export.timing import Speed


@dataclass(frozen=True, kw_only=True)
class GateRecord:
    """The gate's result for one file."""

    file: str
    """Name of the file."""
    format: str
    kind: Kind
    size_bytes: int
    failures: tuple[str, ...]
    """Violations of the tolerance, in words; empty if the file passed."""
    speed: Speed | None
    """Speed of the file; None where it failed, since the speed of a wrong file is irrelevant."""

    @property
    def passed(self) -> bool:
        return not self.failures

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; NaN and infinity become None."""
        return {"passed": self.passed, **_finite(dataclasses.asdict(self))}


def _finite(value: object) -> Any:
    """Return the value with None for NaN and infinity, in dictionaries too."""
    if isinstance(value, dict):
        return {name: _finite(v) for name, v in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
