"""Faults of boxes and annotations: counted by kind, and reported in one line."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from mnas.text import NAME_CHARS, clean, counted

_PRINTED = 6


@dataclass(frozen=True, kw_only=True)
class DataFault:
    """Annotations or images with the same fault."""

    what: str
    """The fault and what mnas does about it, such as `boxes reach outside of their image (clipped)`."""
    count: int
    example: str
    """Name of the first image or annotation with the fault."""


class FaultCount:
    """Counts faults while a data set is read."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._examples: dict[str, str] = {}

    def add(self, what: str, example: str, count: int = 1) -> None:
        """Count a fault `count` times; 0 does nothing."""
        if count:
            self._counts[what] += count
            self._examples.setdefault(what, clean(example, NAME_CHARS))

    @property
    def faults(self) -> tuple[DataFault, ...]:
        """All faults so far, the most frequent first."""
        return tuple(
            DataFault(what=what, count=count, example=self._examples[what])
            for what, count in sorted(self._counts.items(), key=lambda item: (-item[1], item[0]))
        )


def fault_line(faults: Sequence[DataFault]) -> str:
    """Return the notice about faults, with the number and the first example of each kind; empty without faults."""
    if not faults:
        return ""
    named = "; ".join(f"{fault.what}: {fault.count:,} (first {fault.example})" for fault in faults[:_PRINTED])
    more = f"; and {counted(len(faults) - _PRINTED, 'other kind')}" if len(faults) > _PRINTED else ""
    return f"faults in the annotations: {named}{more}"


def because(faults: FaultCount) -> str:
    """Return the end of an error that the faults explain; empty without faults."""
    line = fault_line(faults.faults)
    return f"; {line}" if line else ""
