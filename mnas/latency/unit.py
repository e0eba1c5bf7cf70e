"""Interface of every device to the measurement: a `Unit`, one physical device on which two models take turns."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from mnas.latency.latency import Setup

Core = int | str | None
"""Number of a core; `auto`: the fastest one; None: not pinned."""


@dataclass(frozen=True)
class Times:
    """Times of one model in one round, in milliseconds."""

    wall_ms: tuple[float, ...]
    """Wall-clock times of all inferences, as other tools measure them."""
    kept_ms: tuple[float, ...]
    """Times that count: by the best clock available, without the first of a turn, which finds the caches cold."""


@dataclass(frozen=True)
class MeasuringSession:
    """Two models on the device that take turns until the session is closed."""

    round: Callable[[bool], tuple[Times, Times]]
    """Function that runs candidate and reference once each, loaded afresh, the reference first if mirrored. Raises
    MeasurementError, UnitError."""
    pinned_core: int | None
    realtime: bool
    waited_s: float = 0.0
    """Seconds until the device was connected and free of other users; not part of the measurement's duration."""


@dataclass(frozen=True, kw_only=True)
class Condition:
    """Present state of a device; None where the device does not report a value."""

    model: str | None = None
    """Model name of the device."""
    soc: str | None = None
    temperature_c: float | None = None
    """Temperature of its hottest sensor."""
    clock_mhz: int | None = None
    """Present clock of the core that measures."""
    max_clock_mhz: int | None = None
    cores: tuple[dict[str, Any], ...] = ()
    """`core`, `max_mhz` and `governor` of each core."""
    throttled: bool | None = None
    """Whether the device reports that it holds its clock down (heat, voltage)."""
    battery_percent: float | None = None
    charging: bool | None = None
    load: float | None = None
    """Average number of runnable programs over the last minute."""


class Unit(ABC):
    """One device. Its user must hold its lease (mnas.latency.fleet.lease) while measuring."""

    name: str
    """Name in the registry, for messages and records."""

    @abstractmethod
    def fingerprint(self, setup: Setup) -> dict[str, str | int]:
        """Return what must be equal for latencies to compare. Raises UnitError, ValueError (no such runtime there)."""

    @abstractmethod
    def condition(self) -> Condition:
        """Return the present state. Raises UnitError."""

    @abstractmethod
    def session(
        self, models: tuple[bytes, bytes], setup: Setup, other: Setup | None = None
    ) -> AbstractContextManager[MeasuringSession]:
        """Bring candidate and reference to the device, and remove them at the end, also after a failure.

        `other` is how to run the reference, if not as the candidate: in another runtime, with equal threads and batch.

        Raises:
            MeasurementError: the runtime cannot load or run one of them.
            UnitError: the device is gone, hangs, is full, or gives an invalid answer.
        """

    @abstractmethod
    def peak_memory_bytes(self, model: bytes, setup: Setup) -> int | None:
        """Return the peak memory of loading `model` and running it once; None where the device does not report it.

        Raises:
            MeasurementError, UnitError: as `session`.
        """

    @abstractmethod
    def close(self) -> None:
        """Release the device and leave nothing behind on it. Never raises."""
