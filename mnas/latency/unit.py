"""What every device is to the measuring: a `Unit`, one physical thing on which two models take turns."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from mnas.latency.latency import Setup

Core = int | str | None
"""A core's number; `auto`: the fastest one; None: not pinned."""


@dataclass(frozen=True)
class Times:
    """Of one model in one round, in milliseconds."""

    wall_ms: tuple[float, ...]
    """Of all inferences, as any other tool would time them."""
    kept_ms: tuple[float, ...]
    """What counts: by the best clock that there is, without the first of a turn, which finds the caches cold."""


@dataclass(frozen=True)
class MeasuringSession:
    """Two models that lie on the device and take turns, until it is closed."""

    round: Callable[[bool], tuple[Times, Times]]
    """Candidate and reference once each, loaded afresh, the reference first if mirrored. Raises MeasurementError,
    UnitError."""
    pinned_core: int | None
    realtime: bool
    waited_s: float = 0.0
    """Until the device was connected and nobody else measured on it: no part of what measuring takes."""


@dataclass(frozen=True, kw_only=True)
class Condition:
    """How a device is now; None for what it does not tell."""

    model: str | None = None
    """What the device is called."""
    soc: str | None = None
    temperature_c: float | None = None
    """Of its hottest sensor."""
    clock_mhz: int | None = None
    """Of the core that measures, now."""
    max_clock_mhz: int | None = None
    cores: tuple[dict[str, Any], ...] = ()
    """`core`, `max_mhz`, `governor` of each."""
    throttled: bool | None = None
    """Whether it says that it keeps its clock down (heat, voltage)."""
    battery_percent: float | None = None
    charging: bool | None = None
    load: float | None = None
    """Programs that want to run, over the last minute."""


class Unit(ABC):
    """One device. Whoever measures on it holds its lease (mnas.latency.fleet.lease)."""

    name: str
    """As in the registry, for messages and records."""

    @abstractmethod
    def fingerprint(self, setup: Setup) -> dict[str, str | int]:
        """What must be equal for latencies to be comparable. Raises UnitError, ValueError (no such runtime there)."""

    @abstractmethod
    def condition(self) -> Condition:
        """How it is now. Raises UnitError."""

    @abstractmethod
    def session(
        self, models: tuple[bytes, bytes], setup: Setup, other: Setup | None = None
    ) -> AbstractContextManager[MeasuringSession]:
        """Bring candidate and reference to the device; they are removed at the end, also after a failure.

        The reference is run as `other` says where that is given: in another runtime, with equal threads and batch.

        Raises:
            MeasurementError: the runtime cannot load or run one of them.
            UnitError: the device is gone, hangs, is full, or answers what it should not.
        """

    @abstractmethod
    def peak_memory_bytes(self, model: bytes, setup: Setup) -> int | None:
        """What the runtime takes at most to load `model` and run it once; None where the device does not tell.

        Raises:
            MeasurementError, UnitError: as `session`.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of the device; leaves nothing behind on it. Never raises."""
