"""Cache of measurements: one small JSON file for each graph, device and way of running it.

A file holds the ratio to the model that the graph took turns with, which belongs to the device, and not the
milliseconds, which belong to a run; a hit is converted to the scale of the present calibration. A damaged file is
ignored.
"""

import datetime
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mnas.atomic import write_atomic
from mnas.latency.latency import Calibration, Latency
from mnas.latency.protocol import Reference
from mnas.latency.statistics import Estimate, of_turn
from mnas.readers import read_json

VERSION = 1
"""Version of the format and of the protocol; entries of other versions are ignored."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A measurement of an earlier run."""

    latency: Latency
    """Latency as measured, in that run's milliseconds."""
    turn: Estimate
    """Time as a multiple of the other model's, `latency.against`."""
    budget_s: float
    """Latency budget of the measurement, in seconds."""
    at: str
    """Time of the measurement, in ISO 8601."""

    def serves(self, interval: float, budget_s: float) -> bool:
        """Return False if the interval is too wide and a larger budget could narrow it."""
        return self.turn.error <= interval or (self.latency.stopped_by == "budget" and self.budget_s >= budget_s)

    def on_scale(self, calibration: Calibration) -> Latency:
        """Return the latency in the milliseconds of `calibration`."""
        return of_turn(self.latency, self.turn, calibration)


def key_of(model: bytes, reference: Reference, calibration: Calibration, runtime: str = "") -> dict[str, Any]:
    """Return what must be equal for a cached measurement to be valid: graphs, device, and how it runs them.

    `runtime`, with its version, is the model's runtime if not the reference's.
    """
    return {
        "version": VERSION,
        "graph": hashlib.sha256(model).hexdigest(),
        "reference": hashlib.sha256(reference.file).hexdigest(),
        "light_reference": hashlib.sha256(reference.light_file).hexdigest(),
        "input_size": reference.input_size,
        "device": dict(calibration.device),  # includes the version of the runtime
        "runtime": calibration.runtime,
        "model_runtime": runtime,
        "core": calibration.pinned_core,
        "threads": calibration.threads,
        "batch": calibration.batch,
    }


def look_up(folder: Path, key: dict[str, Any]) -> Entry | None:
    """Return the entry of `key`; None if its file is missing or unreadable."""
    try:
        values = read_json(_path(folder, key))
        if values["key"] != key or values.pop("check") != _check(values):
            return None
        latency, turn = Latency.from_dict(values["latency"]), Estimate(*map(float, values["turn"]))
        datetime.datetime.fromisoformat(values["at"])
        budget_s = float(values["budget_s"])
        if latency.source != "measured" or not 0 < turn.low <= turn.value <= turn.high < float("inf"):
            return None
        if not 0 <= budget_s < float("inf") or not _is_possible(latency):
            return None
        return Entry(latency=latency, turn=turn, budget_s=budget_s, at=values["at"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None


def _is_possible(latency: Latency) -> bool:
    """Return whether the fields that `Latency` does not check itself are in their ranges."""
    counts = (latency.runs, latency.rounds, latency.peak_memory_bytes or 0)
    values = (latency.seconds, latency.disturbed, latency.drift + 1, latency.energy_mj or 0.0)
    return (
        all(type(count) is int and count >= 0 for count in counts)
        and all(type(value) in (int, float) and 0 <= value < float("inf") for value in values)
        and isinstance(latency.unit, str)
    )


def keep(folder: Path, key: dict[str, Any], latency: Latency, calibration: Calibration, budget_s: float) -> None:
    """Write a measurement under `key`, in place of an earlier one. Raises OSError where it cannot be written."""
    share = calibration.light_ratio if latency.against == "light" else 1
    turn = [value / share for value in (latency.ratio, latency.ratio_low, latency.ratio_high)]
    at = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    values = {"key": key, "latency": latency.to_dict(), "turn": turn, "budget_s": budget_s, "at": at}
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(_path(folder, key), json.dumps({**values, "check": _check(values)}, indent=1))


def moved(entry: Entry, latency: Latency, calibration: Calibration) -> str:
    """Return how far a re-measured latency is from the cached one, in words."""
    before = entry.on_scale(calibration)
    apart = before.ratio_high < latency.ratio_low or latency.ratio_high < before.ratio_low
    return (
        f"ratio {before.ratio:.4f} ({before.ratio_low:.4f}-{before.ratio_high:.4f}) on {entry.at[:10]}, "
        f"{latency.ratio:.4f} ({latency.ratio_low:.4f}-{latency.ratio_high:.4f}) now: "
        f"{100 * (latency.ratio / before.ratio - 1):+.1f} %, {'outside' if apart else 'within'} the intervals"
    )


def _path(folder: Path, key: dict[str, Any]) -> Path:
    return folder / f"{_check(key)}.json"


def _check(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
