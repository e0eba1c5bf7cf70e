"""Repeatability of a device from session to session, as `mnas devices calibrate` measures it.

The rounds of one session cannot show what they share: where the system put the process, which pages it got, how warm
the device is. Several sessions, each a new connection, show it as their differences, less what the rounds of each
explain. It is part of the interval of every later measurement.
"""

import dataclasses
import datetime
import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

from mnas.atomic import write_atomic
from mnas.latency.latency import Calibration, Setup
from mnas.latency.statistics import SESSION_ERROR
from mnas.readers import read_json, require_types

LEAST_SESSIONS = 3
LEAST_ERROR = 0.002
"""Minimum session error, as a few sessions may by chance lie nearer to each other than later ones."""
Z95 = 1.96


@dataclass(frozen=True, kw_only=True)
class Repeatability:
    """Relative standard deviations between sessions, for one model of device and one way of running models."""

    name: str
    """Name of the device when it was calibrated."""
    device: dict[str, str | int]
    """Fingerprint of the device."""
    runtime: str
    threads: int
    batch: int
    reference: str
    input_size: int
    sessions: int
    ratio_deviation: float
    """Deviation of the light reference's time as a multiple of the reference's, the ratio that is measured later."""
    level_deviation: float
    """Deviation of the reference's own time in milliseconds."""
    reference_ms: float
    """Geometric mean of the sessions' reference times, in milliseconds."""
    light_ratio: float
    """Geometric mean of the sessions' light ratios."""
    session_error: float
    """Session error of later calibrations: `ratio_deviation` less what the sessions' own intervals explain, at least
    `LEAST_ERROR`."""
    at: str
    """Time of the calibration, in ISO 8601."""

    def is_possible(self) -> bool:
        """Return whether all values have the right type and range."""
        positive = (self.reference_ms, self.light_ratio)
        deviations = (self.ratio_deviation, self.level_deviation, self.session_error)
        return (
            all(isinstance(text, str) for text in (self.name, self.runtime, self.reference))
            and all(type(n) is int and n > 0 for n in (self.threads, self.batch, self.input_size, self.sessions))
            and all(type(value) in (int, float) and 0 < value < math.inf for value in positive)
            and all(type(value) in (int, float) and 0 <= value < math.inf for value in deviations)
        )


def repeatability_of(name: str, calibrations: Sequence[Calibration]) -> Repeatability:
    """Return the repeatability from calibrations of one device, each of its own session, with a session error of 0.

    Raises:
        ValueError: there are fewer than 3 calibrations.
    """
    if len(calibrations) < LEAST_SESSIONS:
        raise ValueError(f"repeatability needs {LEAST_SESSIONS} sessions or more, but got {len(calibrations)}")
    first = calibrations[0]
    levels = [math.log(c.reference_ms) for c in calibrations]
    ratios = [math.log(c.light_ratio) for c in calibrations]
    within = [math.log(c.light_ratio_high / c.light_ratio_low) / (2 * Z95) for c in calibrations]
    unexplained = stdev(ratios) ** 2 - mean(w**2 for w in within)
    return Repeatability(
        name=name,
        device=first.device,
        runtime=first.runtime,
        threads=first.threads,
        batch=first.batch,
        reference=first.reference,
        input_size=first.input_size,
        sessions=len(calibrations),
        ratio_deviation=stdev(ratios),
        level_deviation=stdev(levels),
        reference_ms=math.exp(mean(levels)),
        light_ratio=math.exp(mean(ratios)),
        session_error=math.sqrt(max(LEAST_ERROR**2, unexplained)),
        at=datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
    )


def keep_repeatability(folder: Path, repeatability: Repeatability) -> Path:
    """Write the record in place of the device's earlier one, and return the file. Raises OSError."""
    setup = Setup(runtime=repeatability.runtime, threads=repeatability.threads, batch=repeatability.batch)
    folder.mkdir(parents=True, exist_ok=True)
    path = _path(folder, repeatability.device, setup)
    write_atomic(path, json.dumps(dataclasses.asdict(repeatability), indent=1))
    return path


def find_repeatability(folder: Path, device: dict[str, str | int], setup: Setup) -> Repeatability | None:
    """Return the repeatability of the device with this fingerprint and setup, or None."""
    try:
        values = read_json(_path(folder, device, setup))
        require_types(Repeatability, values)
        stored = Repeatability(**values)
        datetime.datetime.fromisoformat(stored.at)
        sound = stored.device == device and LEAST_ERROR <= stored.session_error < 1 and stored.is_possible()
    except (OSError, ValueError, TypeError):
        return None
    return stored if sound else None


def session_error_of(folder: Path, device: dict[str, str | int], setup: Setup) -> float:
    """Return the device's own session error, or the default for a device without a record."""
    repeatability = find_repeatability(folder, device, setup)
    return SESSION_ERROR if repeatability is None else repeatability.session_error


def _path(folder: Path, device: dict[str, str | int], setup: Setup) -> Path:
    words = json.dumps([device, setup.to_dict()], sort_keys=True)
    return folder / f"{hashlib.sha256(words.encode()).hexdigest()[:16]}.json"
