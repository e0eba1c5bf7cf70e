"""Limits on networks: a search skips a trial beyond one, and reports such a reference but does not recommend it."""

import math
import re
import reprlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol, get_args

from mnas.latency.latency import Latency
from mnas.readers import require_types

Limit = Literal["latency", "size", "memory", "front"]


@dataclass(frozen=True, kw_only=True)
class LimitKind:
    """The names of a limit in options, configuration and reports."""

    figure: str
    """Name of the value that is compared with the limit."""
    option: str = ""
    """Option of `mnas search` that sets it; empty where the limit follows from other candidates."""
    setting: str = ""
    """Field of the run's configuration that holds the limit."""
    setting_unit: str = ""
    """Unit of that field."""
    unit: str = ""
    """Unit of the values in a `Skip`."""

    @property
    def group(self) -> str:
        """Return the heading for skips by this limit: `latency over --latency-limit`."""
        return f"{self.figure} over {self.option}" if self.option else f"{self.figure} below the front"


LIMITS: dict[Limit, LimitKind] = {
    "latency": LimitKind(
        option="--latency-limit", setting="latency_limit", setting_unit="T", figure="latency", unit="ms"
    ),
    "size": LimitKind(option="--max-size-mb", setting="max_size_mb", setting_unit="MB", figure="file size", unit="MB"),
    "memory": LimitKind(
        option="--max-memory-mb", setting="max_memory_mb", setting_unit="MB", figure="memory", unit="MB"
    ),
    "front": LimitKind(figure="expected accuracy"),
}


@dataclass(frozen=True, kw_only=True)
class Skip:
    """The reason why a network is skipped. Raises ValueError for an invalid field."""

    limit: Limit
    value: float | None = None
    """Latency in ms, file size or memory in MB, or accuracy; None in records of earlier versions without it."""
    bound: float | None = None
    """The limit, in the same unit; None in records of earlier versions."""

    def __post_init__(self) -> None:
        if self.limit not in get_args(Limit):
            raise ValueError(f"limit must be one of {', '.join(LIMITS)}, but got {reprlib.repr(self.limit)}")
        for name in ("value", "bound"):
            figure = getattr(self, name)
            if figure is not None and not (math.isfinite(figure) and figure > 0):
                raise ValueError(f"{name} must be a number above 0, but got {figure!r}")

    def __str__(self) -> str:
        kind = LIMITS[self.limit]
        if not kind.option:
            return f"its {kind.figure} of {self.value:.3g} is below that of one no slower ({self.bound:.3g})"
        value = "" if self.value is None else f" of {self.value:.3g} {kind.unit}"
        bound = "" if self.bound is None else f" ({self.bound:.3g} {kind.unit})"
        return f"its {kind.figure}{value} is over {kind.option}{bound}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, JSON-able; `from_stored` reads them back equal."""
        return asdict(self)

    @classmethod
    def from_stored(cls, stored: object) -> "Skip":
        """Return the record from `to_dict`'s values, or from a sentence of earlier versions. Raises ValueError."""
        if isinstance(stored, str):
            return _skip_in_words(stored)
        if not isinstance(stored, dict) or set(stored) != {"limit", "value", "bound"}:
            raise ValueError(f"must have the fields limit, value and bound, but got {reprlib.repr(stored)}")
        require_types(cls, stored)
        return cls(**stored)


def _skip_in_words(sentence: str) -> Skip:
    """Parse `its file of 3.2 MB is over --max-size-mb`: the option and, except for latency, the value."""
    limit = next((limit for limit, kind in LIMITS.items() if kind.option and kind.option in sentence), None)
    if limit is None:
        raise ValueError(f"must name a limit of a search, but got {reprlib.repr(sentence)}")
    figure = re.search(r"(\d[\d.]*(?:e[+-]?\d+)?) MB", sentence)
    return Skip(limit=limit, value=float(figure[1]) if figure else None)


class Limits(Protocol):
    """The limits of a search's plan."""

    @property
    def latency_limit(self) -> float:
        """Limit on the latency, as a multiple of the slowest target."""

    @property
    def max_size_mb(self) -> float:
        """Limit on the size of the file, in MB."""

    @property
    def max_memory_mb(self) -> float:
        """Limit on the runtime's memory on any device, in MB."""


def over_size(plan: Limits, size_bytes: int) -> Skip | None:
    """Return why a file of this size is skipped; None if it is not."""
    if size_bytes <= plan.max_size_mb * 1e6:
        return None
    return Skip(limit="size", value=size_bytes / 1e6, bound=plan.max_size_mb)


def over_limits(plan: Limits, target_ms: float, latency: Latency, latencies: Mapping[str, Latency]) -> Skip | None:
    """Return why a network is skipped, by the latency that counts and each device's; None if it is not."""
    if latency.latency_ms > plan.latency_limit * target_ms:
        return Skip(limit="latency", value=latency.latency_ms, bound=plan.latency_limit * target_ms)
    peak_bytes = max((each.peak_memory_bytes or 0 for each in latencies.values()), default=0)
    if peak_bytes > plan.max_memory_mb * 1e6:
        return Skip(limit="memory", value=peak_bytes / 1e6, bound=plan.max_memory_mb)
    return None


class StoredLimits:
    """The limits in a run's configuration; None for each that it lacks."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        def limit(name: str) -> float:
            value = config.get(name, math.inf)
            return float(value) if isinstance(value, int | float) else math.inf

        self.latency_limit = limit("latency_limit")
        self.max_size_mb = limit("max_size_mb")
        self.max_memory_mb = limit("max_memory_mb")
