"""A device as a search sees it: one or several units of one model, between which candidates are spread."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from mnas.latency.latency import Calibration, Latency, MeasurementError
from mnas.latency.protocol import Reference
from mnas.latency.registry import DeviceEntry
from mnas.latency.unit import Unit

Say = Callable[[str], None]


def open_device(entry: DeviceEntry, *, say: Say, patience_s: float = 600.0) -> "Device":
    """The device of a registry's entry with the user's leases and cache; nothing is connected before the first use.

    Raises:
        ImportError, ValueError: as `mnas.latency.registry.open_units`.
    """
    raise NotImplementedError


class Device:
    """One or several units of one model; `calibrate` or `resume` first, then `measure`. Use it as a context."""

    def __init__(
        self,
        entry: DeviceEntry,
        units: Sequence[Unit],
        *,
        say: Say,
        lease_dir: Path,
        cache_dir: Path,
        patience_s: float = 600.0,
    ) -> None:
        raise NotImplementedError

    @property
    def reference_ms(self) -> float:
        """The reference's latency in milliseconds, on which all units' milliseconds are scaled (after calibrating)."""
        raise NotImplementedError

    def calibrate(self, reference: Reference, budget_s: float = 8.0) -> list[Calibration]:
        """Measure the reference on every unit, all at once; what to store for `resume`: one for each unit in use.

        Raises:
            ValueError: the runtime is not on the device, or a number is out of its range.
            MeasurementError: the runtime cannot load or run the reference.
            UnitError: no unit could be calibrated; it says why for each.
        """
        raise NotImplementedError

    def resume(self, reference: Reference, calibrations: Sequence[Calibration]) -> None:
        """Go on with what `calibrate` returned in an earlier process.

        Raises:
            ValueError: no unit is the device that the calibrations were made on; says what differs.
            UnitError: no unit can be reached.
        """
        raise NotImplementedError

    def measure(
        self, models: Mapping[int, bytes], *, budget_s: float = 3.0, interval: float = 0.01, fresh: bool = False
    ) -> Iterator[tuple[int, Latency | MeasurementError]]:
        """Latencies of `models` (number -> file), each as soon as it is known, in any order; every number once.

        Args:
            fresh: measure also what the cache knows, replace it, and say how far it moved.

        Raises:
            UnitError: no unit is left, or none could be reached for `patience_s`; what was not yielded is not lost.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Let go of all units. Never raises."""
        raise NotImplementedError

    def __enter__(self) -> "Device":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
