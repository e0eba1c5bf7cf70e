"""Result of measuring models: a record for each model in each runtime."""

from collections.abc import Mapping
from dataclasses import dataclass

from mnas.latency.latency import Calibration, Latency

MUCH_DRIFT, MUCH_DISTURBED = 0.1, 0.5
"""Drift and share of disturbed rounds from which a record has a note."""


@dataclass(frozen=True, kw_only=True)
class ModelLatency:
    """The latency of one model in one runtime."""

    name: str
    runtime: str
    int8: bool
    """Whether an architecture was measured in int8; a file has its own type."""
    params: int | None
    """Number of parameters; None for a file of which only the graph can be read."""
    macs: int | None
    """Multiply-accumulates of one image; None as for `params`."""
    size_bytes: int
    """Size of the file."""
    latency: Latency
    calibration: Calibration
    """Calibration of the reference that the latency is a multiple of, perhaps in another runtime."""

    def to_dict(self) -> dict[str, object]:
        """Return plain values, for JSON."""
        return {
            "name": self.name,
            "runtime": self.runtime,
            "int8": self.int8,
            "input_size": self.calibration.input_size,
            **self.latency.to_dict(),
            "params": self.params,
            "macs": self.macs,
            "size_bytes": self.size_bytes,
            "calibration": self.calibration.to_dict(),
        }

    @property
    def notes(self) -> list[str]:
        """Return notes on disturbances of the measurement, and on its age if it is cached."""
        latency, notes = self.latency, []
        if abs(latency.drift) > MUCH_DRIFT:
            notes.append(
                f"{latency.unit} ran the reference {100 * abs(latency.drift):.0f} % "
                f"{'slower' if latency.drift > 0 else 'faster'} than at its calibration"
            )
        if latency.disturbed > MUCH_DISTURBED:
            notes.append(f"something else disturbed {100 * latency.disturbed:.0f} % of the rounds")
        if latency.source == "cached":
            notes.append("cached; use --fresh to measure again")
        return notes


@dataclass(frozen=True, kw_only=True)
class LatencyResult:
    """Records of all models."""

    models: tuple[ModelLatency, ...]
    failures: tuple[str, ...]
    """Models that could not be measured, each with the reason."""
    runtimes: Mapping[str, str]
    """Name of each runtime -> its name and version, as the device reports them."""

    def require_all(self) -> None:
        """Raise ValueError where a model could not be measured."""
        if self.failures:
            raise ValueError("; ".join(self.failures))
