"""How well a device repeats itself from session to session, as `mnas devices calibrate` found it out.

What all rounds of a session share (where the system put the process, which pages it got, how warm the device is) cannot
be seen in the session itself. Several sessions, each a new connection, show it: what they differ by, less what the
rounds of each explain. It is part of the interval of every later measurement.
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
"""A few sessions may by chance lie nearer to each other than the next ones will."""
Z95 = 1.96


@dataclass(frozen=True, kw_only=True)
class Repeatability:
    """Of one model of device and one way of running models; relative standard deviations between sessions."""

    name: str
    """What the device was called."""
    device: dict[str, str | int]
    """Its fingerprint."""
    runtime: str
    threads: int
    batch: int
    reference: str
    input_size: int
    sessions: int
    ratio_deviation: float
    """Of the light reference's time as a multiple of the reference's: what later measurements are made of."""
    level_deviation: float
    """Of the reference's own time in milliseconds."""
    reference_ms: float
    """The geometric mean of the sessions'."""
    light_ratio: float
    """The geometric mean of the sessions'."""
    session_error: float
    """What later calibrations take: `ratio_deviation` less what the sessions' own intervals explain; never less than
    `LEAST_ERROR`."""
    at: str
    """When, in ISO 8601."""

    def is_possible(self) -> bool:
        """Whether all values are of their kinds and in their ranges."""
        positive = (self.reference_ms, self.light_ratio)
        deviations = (self.ratio_deviation, self.level_deviation, self.session_error)
        return (
            all(isinstance(text, str) for text in (self.name, self.runtime, self.reference))
            and all(type(n) is int and n > 0 for n in (self.threads, self.batch, self.input_size, self.sessions))
            and all(type(value) in (int, float) and 0 < value < math.inf for value in positive)
            and all(type(value) in (int, float) and 0 <= value < math.inf for value in deviations)
        )


def repeatability_of(name: str, calibrations: Sequence[Calibration]) -> Repeatability:
    """From calibrations of one device, each of a session of its own, with a session error of 0.

    Raises:
        ValueError: there are fewer than 3.
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
    """Keep it in place of an earlier one of the same device; returns the file. Raises OSError."""
    setup = Setup(runtime=repeatability.runtime, threads=repeatability.threads, batch=repeatability.batch)
    folder.mkdir(parents=True, exist_ok=True)
    path = _path(folder, repeatability.device, setup)
    write_atomic(path, json.dumps(dataclasses.asdict(repeatability), indent=1))
    return path


def find_repeatability(folder: Path, device: dict[str, str | int], setup: Setup) -> Repeatability | None:
    """Of a device with this fingerprint, run in this way; None where it is not known."""
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
    """The device's own, or what is taken for a device that is not known."""
    repeatability = find_repeatability(folder, device, setup)
    return SESSION_ERROR if repeatability is None else repeatability.session_error


def _path(folder: Path, device: dict[str, str | int], setup: Setup) -> Path:
    words = json.dumps([device, setup.to_dict()], sort_keys=True)
    return folder / f"{hashlib.sha256(words.encode()).hexdigest()[:16]}.json"
