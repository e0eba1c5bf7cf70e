"""Whether the units of a device are of one kind, and their milliseconds on one scale; pure.

Units of one model differ a little in speed, which each unit's own calibration takes out. What must not differ is the
fingerprint, and the light reference's time as a multiple of the reference's: a unit that another program slows down,
that is hot, or that is no such model shows there. The largest group that agrees is in use. Of two units with different
fingerprints that is the first; of two whose ratios differ the faster, as whatever is wrong with a device makes it
slower.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from statistics import median

from mnas.latency.latency import Calibration

AGREEMENT = 0.05
"""Light ratios so near to each other agree, whatever their intervals say."""


def agree(calibrations: Sequence[Calibration]) -> tuple[list[Calibration], dict[str, str]]:
    """Those in use, with one `reference_ms` (the median of their own) for all; and why each other unit is not."""
    if not calibrations:
        return [], {}
    alike = _largest(calibrations, lambda a, b: a.device == b.device)
    used = _largest(sorted(alike, key=_own_ms), _same_ratio)
    used = [c for c in alike if c in used]
    first = used[0]
    left_out = {c.unit: _another_device(c, first) for c in calibrations if c not in alike}
    left_out |= {
        c.unit: f"its light reference takes {c.light_ratio:.3f} of the reference, and {first.light_ratio:.3f} on "
        f"{first.unit}; it is hot, busy, or not of the same model"
        for c in alike
        if c not in used
    }
    return _on_one_scale(used), left_out


def _largest(
    calibrations: Sequence[Calibration], same: Callable[[Calibration, Calibration], bool]
) -> Sequence[Calibration]:
    """The largest group of which all are the `same` as one of them, of several as large the first one's."""
    return max(([b for b in calibrations if same(a, b)] for a in calibrations), key=len)


def _same_ratio(a: Calibration, b: Calibration) -> bool:
    near = abs(math.log(a.light_ratio / b.light_ratio)) <= math.log(1 + AGREEMENT)
    return near or (a.light_ratio_low <= b.light_ratio_high and b.light_ratio_low <= a.light_ratio_high)


def _another_device(unit: Calibration, first: Calibration) -> str:
    names = [n for n in {**first.device, **unit.device} if first.device.get(n) != unit.device.get(n)]
    differing = ", ".join(f"{n} {unit.device.get(n)!r}, {first.device.get(n)!r} there" for n in names)
    return f"it is another device than {first.unit} ({differing})"


def _own_ms(calibration: Calibration) -> float:
    return calibration.reference_ms * calibration.unit_scale


def _on_one_scale(calibrations: Sequence[Calibration]) -> list[Calibration]:
    level_ms = median(_own_ms(c) for c in calibrations)
    return [
        dataclasses.replace(
            c,
            reference_ms=level_ms,
            low_ms=c.low_ms * level_ms / c.reference_ms,
            high_ms=c.high_ms * level_ms / c.reference_ms,
            unit_scale=_own_ms(c) / level_ms,
        )
        for c in calibrations
    ]
