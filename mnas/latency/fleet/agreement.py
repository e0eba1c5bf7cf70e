"""Check that the units of a device are of one kind, and put their milliseconds on one scale; pure.

Units of one model differ a little in speed, which each unit's own calibration corrects. They must not differ in the
fingerprint, nor in the light reference's time as a multiple of the reference's. That ratio differs for a unit that is
hot, that another program slows down, or that is another model. The largest group of units that agree is used. If two
units have different fingerprints, the first one is used. If their ratios differ, the faster one is used, because faults
make a device slower.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from statistics import median

from mnas.latency.latency import Calibration

AGREEMENT = 0.05
"""Relative difference up to which light ratios agree, whatever their intervals are."""


def agree(calibrations: Sequence[Calibration]) -> tuple[list[Calibration], dict[str, str]]:
    """Return the units in use, on one `reference_ms` (their median), and the reason against each other unit."""
    if not calibrations:
        return [], {}
    alike = _largest(calibrations, lambda a, b: a.device == b.device)
    used = _largest(sorted(alike, key=_own_ms), _same_ratio)
    used = [c for c in alike if c in used]
    first = used[0]
    left_out = {c.unit: _another_device(c, first) for c in calibrations if c not in alike}
    left_out |= {
        c.unit: f"its light reference takes {c.light_ratio:.3f} of the reference's time, but {first.light_ratio:.3f} "
        f"on {first.unit}; the unit is hot, busy or another model"
        for c in alike
        if c not in used
    }
    return _on_one_scale(used), left_out


def _largest(
    calibrations: Sequence[Calibration], same: Callable[[Calibration, Calibration], bool]
) -> Sequence[Calibration]:
    """Return the largest group of units that are the `same` as one of them; of equally large groups, the first."""
    return max(([b for b in calibrations if same(a, b)] for a in calibrations), key=len)


def _same_ratio(a: Calibration, b: Calibration) -> bool:
    near = abs(math.log(a.light_ratio / b.light_ratio)) <= math.log(1 + AGREEMENT)
    return near or (a.light_ratio_low <= b.light_ratio_high and b.light_ratio_low <= a.light_ratio_high)


def _another_device(unit: Calibration, first: Calibration) -> str:
    names = [n for n in {**first.device, **unit.device} if first.device.get(n) != unit.device.get(n)]
    differing = ", ".join(f"{n} {unit.device.get(n)!r} instead of {first.device.get(n)!r}" for n in names)
    return f"it is a different device from {first.unit} ({differing})"


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
