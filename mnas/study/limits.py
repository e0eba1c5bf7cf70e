"""Limits beyond which a network is skipped by a search, or, where it is a reference, shown but not recommended."""

import math
from collections.abc import Mapping
from typing import Any, Protocol


class Limits(Protocol):
    """The limits of a search's plan."""

    @property
    def latency_limit(self) -> float:
        """Limit on the latency, a multiple of the slowest target."""

    @property
    def max_size_mb(self) -> float:
        """Limit on the file."""

    @property
    def max_memory_mb(self) -> float:
        """Limit on the runtime's memory, on any device."""


def over_size(plan: Limits, size_bytes: int) -> str:
    """Why a file of that size is skipped; empty where it is not."""
    return f"its file of {size_bytes / 1e6:.3g} MB is over --max-size-mb" if size_bytes > plan.max_size_mb * 1e6 else ""


def over_limits(plan: Limits, target_ms: float, latency: Mapping[str, Any], latencies: Mapping[str, Any]) -> str:
    """Why a network of these latencies (plain values: the one that counts, and each device's) is skipped; or empty."""
    peaks = [told["peak_memory_bytes"] or 0 for told in latencies.values()]
    if latency["latency_ms"] > plan.latency_limit * target_ms:
        return "slower than --latency-limit"
    if max(peaks) > plan.max_memory_mb * 1e6:
        return f"its {max(peaks) / 1e6:.3g} MB of memory are over --max-memory-mb"
    return ""


class StoredLimits:
    """The limits of a run, from its configuration; none where it has none."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        def limit(name: str) -> float:
            value = config.get(name, math.inf)
            return float(value) if isinstance(value, int | float) else math.inf

        self.latency_limit = limit("latency_limit")
        self.max_size_mb = limit("max_size_mb")
        self.max_memory_mb = limit("max_memory_mb")
