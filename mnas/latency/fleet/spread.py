"""Distribution of candidates over the units of a device, until each has its latency or its own failure.

A unit that fails is suspended until it has measured the light reference again, at about its usual speed. Meanwhile
another unit retries the candidate, or the same unit retries it later. So only working units measure candidates, and a
candidate that fails three times is itself at fault. Only measurements by calm units are yielded.
"""

import threading
import time
from collections import Counter, deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mnas.latency.fleet.cache import Entry, keep, key_of, look_up, moved
from mnas.latency.fleet.crew import Crew
from mnas.latency.fleet.lease import REMIND_S, lease
from mnas.latency.latency import Calibration, Latency, MeasurementError, Setup, UnitError
from mnas.latency.protocol import Reference, measure
from mnas.latency.unit import Unit

OCCASIONS = 3
"""Number of failures on working units after which a candidate has failed."""
CULPRITS = 3
"""Number of candidates failing in a row, none measured in between, after which the device is at fault."""
RECENT, MOST_FAILURES = 10, 5
"""Window of recent measurements, and number of failures in it that exclude a unit if there are others."""
DISTURBED = 0.5
"""Share of disturbed rounds above which a measurement that did not reach its interval is repeated."""
MAX_BACKOFF_S = 60.0

Outcome = Latency | MeasurementError


@dataclass(frozen=True, kw_only=True)
class Patience:
    """Waiting times and accepted changes in speed."""

    away_s: float = 600.0
    """Seconds that all units may be away before measuring stops with a UnitError."""
    backoff_s: float = 1.0
    """First pause after a unit's failure, in seconds; it doubles each time, up to a minute."""
    cool_s: float = 10.0
    """Pause before a unit whose speed changed measures again, in seconds."""
    drift: float = 0.3
    """Accepted relative change of a unit's speed since its calibration, either way."""

    def drifted(self, latency: Latency) -> bool:
        return not 1 / (1 + self.drift) <= 1 + latency.drift <= 1 + self.drift


@dataclass
class UnitWorker:
    """A unit of a device, and its state."""

    unit: Unit
    lease_key: str
    calibration: Calibration
    quarantined: str = ""
    """Reason why the unit is quarantined; empty if it is not."""
    away_since: float | None = None
    """Time since when the unit has not worked; None while it works."""
    away_reason: str = ""
    away_s: float = 0.0
    """Seconds that the unit had been away, in this call, at the last attempt."""
    recent: deque[bool] = field(default_factory=lambda: deque(maxlen=RECENT))
    """Whether each of its last measurements succeeded."""
    wait_reported: float = float("-inf")
    """Time of the last message about waiting for the unit's lease."""

    @property
    def usable(self) -> bool:
        """Whether the unit works, as far as its measurements show."""
        return not self.quarantined and self.away_since is None


@dataclass
class Streak:
    """State that outlives one call."""

    culprits: int = 0
    """Number of candidates given up in a row, none measured in between."""
    cache_warned: bool = False
    """Whether a warning about the cache has been printed."""


class _DriftError(UnitError):
    """Error for a unit whose speed has changed; the candidate is not at fault."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """The models to measure, and how."""

    models: Mapping[int, bytes]
    setup: Setup
    """Settings for running the models."""
    runtime: str
    """Runtime with its version, if not the reference's; else empty."""
    reference: Reference
    budget_s: float
    interval: float
    fresh: bool
    lease_dir: Path
    cache_dir: Path


class Spread:
    """One call of `Device.measure`."""

    def __init__(
        self, name: str, members: Sequence[UnitWorker], order: Order, *, crew: Crew, patience: Patience, streak: Streak
    ) -> None:
        self._name, self._members, self._order = name, members, order
        self._patience, self._streak = patience, streak
        self._crew = crew
        self._changed = threading.Condition()
        self._pending = deque(order.models)
        self._open = set(order.models)
        self._failures: dict[int, Counter[str]] = {number: Counter() for number in order.models}

    def outcomes(self, stop: threading.Event) -> Generator[tuple[int, Outcome]]:
        """Yield the outcome of each number once, until `stop` is set. Raises UnitError when no unit can measure."""
        yield from self._cached()
        pending = len(self._open)
        for member in self._members if pending else ():
            if not member.quarantined:
                member.away_s = 0.0  # the patience of this call begins now
                self._crew.start(lambda member=member: self._work(member))  # type: ignore[misc]
        try:
            while pending and not stop.is_set():
                outcome = self._crew.hear(0.1)
                if outcome is not None:
                    yield outcome
                    pending -= 1
                else:
                    self._require_hope()
        finally:
            self._crew.end(self._close)

    def _cached(self) -> Iterator[tuple[int, Outcome]]:
        """Yield the latencies in the cache."""
        for number in list(self._pending):
            entry = self._entry(self._members[0], number)
            if entry is not None and not self._order.fresh:
                self._pending.remove(number)
                self._open.discard(number)
                yield number, entry.on_scale(self._members[0].calibration)

    def _require_hope(self) -> None:
        in_use = [m for m in self._members if not m.quarantined]
        most_s = self._patience.away_s
        if all(m.away_since is not None and m.away_s > most_s for m in in_use):
            quarantined = [f"{m.unit.name} is quarantined: {m.quarantined}" for m in self._members if m.quarantined]
            away = [f"failing for {m.away_s:.0f} s: {m.away_reason}" for m in in_use]
            raise UnitError(f"{self._name}: no unit can measure: {'; '.join(quarantined + away)}")

    def _close(self) -> None:
        for member in self._members:
            member.unit.close()

    # Run in a unit's thread

    def _work(self, member: UnitWorker) -> None:
        if member.away_since is not None:
            self._come_back(member)
        while member.usable and (number := self._take(member)) is not None:
            try:
                outcome = self._outcome(member, number)
            except (UnitError, ValueError) as error:
                if self._crew.stop.is_set():  # the crew took the unit from its thread, and the unit has not failed
                    self._give_back(number)
                elif isinstance(error, UnitError):
                    self._on_failure(member, number, error)
                else:  # another device answers there now
                    self._give_back(number)
                    self._quarantine(member, str(error))
            except BaseException:
                self._give_back(number)
                raise
            else:
                member.recent.append(True)
                if isinstance(outcome, Latency):
                    self._streak.culprits = 0
                self._finish(number, outcome)

    def _take(self, member: UnitWorker) -> int | None:
        """Return the next candidate, leaving one that failed here to other working units; None when all are done."""
        with self._changed:
            while self._open and not self._crew.stop.is_set():
                for number in self._pending:
                    if not self._is_for_others(number, member):
                        self._pending.remove(number)
                        return number
                self._changed.wait(0.1)
        return None

    def _is_for_others(self, number: int, member: UnitWorker) -> bool:
        failures = self._failures[number]
        others = [m for m in self._members if m is not member and m.usable]
        return any(failures[m.unit.name] < failures[member.unit.name] for m in others)

    def _give_back(self, number: int) -> None:
        with self._changed:
            self._pending.append(number)  # the other candidates come first
            self._changed.notify_all()

    def _finish(self, number: int, outcome: Outcome) -> None:
        with self._changed:
            self._open.discard(number)
            self._changed.notify_all()
        self._crew.hand((number, outcome))

    def _outcome(self, member: UnitWorker, number: int) -> Outcome:
        """Measure a candidate, or take it from the cache. Raises UnitError, ValueError."""
        with self._leased(member):
            entry = self._entry(member, number)  # another process may have measured it while this one waited
            if entry is not None and not self._order.fresh:
                return entry.on_scale(member.calibration)
            try:
                latency = self._calm(member, number)
            except MeasurementError as error:
                self._prove(member)  # a model's failure counts only while the reference runs
                return error
        if entry is not None:
            self._crew.say(f"re-measured candidate {number}: {moved(entry, latency, member.calibration)}")
        self._keep(member, number, latency)
        return latency

    def _calm(self, member: UnitWorker, number: int) -> Latency:
        """Return a measurement, repeated once if the device was not calm; the narrower of two good ones."""
        first = self._measure(member, self._order.models[number])
        drifted = self._patience.drifted(first)
        if drifted:
            self._crew.say(f"{member.unit.name}: measuring candidate {number} again: {_drift(first)}")
            self._crew.pause(self._patience.cool_s)
        elif first.disturbed > DISTURBED and first.stopped_by == "budget":
            share = f"{100 * first.disturbed:.0f} % of its rounds were disturbed"
            self._crew.say(f"{member.unit.name}: measuring candidate {number} again: {share}")
        else:
            return first
        second = self._measure(member, self._order.models[number])
        if self._patience.drifted(second):
            raise _DriftError(f"{member.unit.name}: {_drift(second)}, even when measured again")
        return second if drifted else min((first, second), key=lambda latency: latency.ratio_high / latency.ratio_low)

    def _prove(self, member: UnitWorker) -> None:
        """Raise UnitError unless the light reference runs, at about its usual speed."""
        try:
            latency = measure(
                member.unit, self._order.reference.light_file, self._order.reference, member.calibration, budget_s=0.1
            )
        except MeasurementError as error:
            raise UnitError(f"{member.unit.name}: the reference ran before, but no longer runs: {error}") from None
        if self._patience.drifted(latency):
            raise _DriftError(f"{member.unit.name}: {_drift(latency)}")

    def _measure(self, member: UnitWorker, model: bytes) -> Latency:
        order = self._order
        return measure(
            member.unit,
            model,
            order.reference,
            member.calibration,
            setup=order.setup,
            budget_s=order.budget_s,
            interval=order.interval,
        )

    # Failures

    def _on_failure(self, member: UnitWorker, number: int, error: UnitError) -> None:
        blameless = isinstance(error, _DriftError)
        others = any(m.usable for m in self._members if m is not member)
        if not blameless:
            member.recent.append(False)
            self._failures[number][member.unit.name] += 1
        if self._failures[number].total() >= OCCASIONS and not blameless:
            self._blame(number, error)
        else:
            self._crew.say(f"retrying candidate {number} {'on another unit' if others else 'later'}: {error}")
            self._give_back(number)
        failed = member.recent.count(False)
        if others and blameless:
            self._quarantine(member, str(error))
        elif others and failed >= MOST_FAILURES:
            self._quarantine(
                member, f"{failed} of its last {len(member.recent)} measurements failed; the last error: {error}"
            )
        else:
            self._suspend(member, error)
            self._come_back(member)

    def _blame(self, number: int, error: UnitError) -> None:
        self._streak.culprits += 1
        if self._streak.culprits >= CULPRITS:
            self._give_back(number)
            raise UnitError(
                f"{self._name}: {CULPRITS} candidates in a row failed {OCCASIONS} times each, although the reference "
                f"runs; the last error: {error}"
            )
        self._finish(
            number,
            MeasurementError(
                f"failed {OCCASIONS} times on units that measure other candidates; the last error: {error}"
            ),
        )

    def _quarantine(self, member: UnitWorker, reason: str) -> None:
        member.quarantined = reason
        member.unit.close()
        self._crew.say(f"{member.unit.name} is quarantined: {reason}")

    def _suspend(self, member: UnitWorker, error: UnitError) -> None:
        member.away_since, member.away_reason = time.monotonic(), str(error)
        member.unit.close()

    def _come_back(self, member: UnitWorker) -> None:
        """Wait until the unit works again, turns out to be a different device, or no candidate remains."""
        began, backoff_s = time.monotonic(), self._patience.backoff_s
        while self._open:
            self._crew.pause(backoff_s)
            try:
                with self._leased(member):
                    self._prove(member)
            except UnitError as error:
                self._stay_suspended(member, error)
                member.away_s = time.monotonic() - began
                backoff_s = min(2 * backoff_s, MAX_BACKOFF_S)
            except ValueError as error:
                self._quarantine(member, str(error))
                return
            else:
                away_s = time.monotonic() - (member.away_since or began)
                member.away_since, member.away_s = None, 0.0
                self._crew.say(f"{member.unit.name} works again after {away_s:.0f} s")
                return

    def _stay_suspended(self, member: UnitWorker, error: UnitError) -> None:
        if str(error) != member.away_reason:
            self._crew.say(f"still failing: {error}")
        member.away_reason = str(error)
        member.unit.close()

    # Leases and the cache

    def _leased(self, member: UnitWorker) -> AbstractContextManager[None]:
        def say(text: str) -> None:
            if time.monotonic() - member.wait_reported > REMIND_S:  # one line for all candidates of a shared device
                member.wait_reported = time.monotonic()
                self._crew.say(text)

        order = self._order
        return lease(order.lease_dir, member.lease_key, member.unit.name, say=say, stop=self._crew.stop)

    def _entry(self, member: UnitWorker, number: int) -> Entry | None:
        entry = look_up(self._order.cache_dir, self._key(member, number))
        serves = entry is not None and (self._order.fresh or entry.serves(self._order.interval, self._order.budget_s))
        return entry if serves else None

    def _key(self, member: UnitWorker, number: int) -> dict[str, Any]:
        order = self._order
        return key_of(order.models[number], order.reference, member.calibration, order.runtime)

    def _keep(self, member: UnitWorker, number: int, latency: Latency) -> None:
        try:
            keep(self._order.cache_dir, self._key(member, number), latency, member.calibration, self._order.budget_s)
        except OSError as error:
            if not self._streak.cache_warned:
                self._streak.cache_warned = True
                self._crew.say(f"measurements cannot be cached in {self._order.cache_dir}: {error.strerror}")


def _drift(latency: Latency) -> str:
    return f"the reference takes {1 + latency.drift:.2f} times as long as at the calibration"
