"""A device as a search uses it: one or several units of one model, which share the candidates."""

import contextlib
import dataclasses
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from mnas.folders import user_cache_dir, user_state_dir
from mnas.latency.devices.registry import DeviceEntry, open_units, unit_addresses
from mnas.latency.fleet.agreement import agree
from mnas.latency.fleet.crew import Crew, Say
from mnas.latency.fleet.lease import lease, lease_key
from mnas.latency.fleet.spread import Order, Patience, Spread, Streak, UnitWorker
from mnas.latency.latency import Calibration, Latency, MeasurementError, UnitError
from mnas.latency.protocol import Reference, calibrate, check_device
from mnas.latency.repeatability import session_error_of
from mnas.latency.unit import Unit


def open_device(entry: DeviceEntry, *, say: Say, patience_s: float = 600.0) -> "Device":
    """Return the device of a registry's entry, with the user's leases and cache; it connects on first use.

    Raises:
        ImportError, ValueError: as `mnas.latency.devices.registry.open_units`.
    """
    patience = Patience(away_s=patience_s, drift=entry.of_kind.drift)
    opened: list[Device] = []
    device = Device(
        entry,
        open_units(entry, lambda text: opened[0].overhear(text)),
        say=say,
        state_dir=user_state_dir(),
        cache_dir=user_cache_dir() / "latency",
        patience=patience,
    )
    opened.append(device)
    return device


class Device:
    """One or several units of one model; call `calibrate` or `resume` before `measure`. Use it as a context manager.

    Args:
        entry: the device's entry in the registry.
        units: one for each address of the entry, in that order.
        say: called with a line for every event (waiting, failures, retries, unused units), always in the thread that
            called a method.
        state_dir: folder of leases and of the devices' repeatability.
        cache_dir: folder of measurements for other runs.
    """

    def __init__(
        self,
        entry: DeviceEntry,
        units: Sequence[Unit],
        *,
        say: Say,
        state_dir: Path,
        cache_dir: Path,
        patience: Patience = Patience(),  # noqa: B008 (frozen)
    ) -> None:
        keys = [lease_key(entry.kind, address) for _, address in unit_addresses(entry)]
        self.name, self.setup, self._core = entry.name, entry.setup, entry.core
        self._units = dict(zip(keys, units, strict=True))
        self._say, self._state_dir, self._cache_dir, self._patience = say, state_dir, cache_dir, patience
        self._reference: Reference | None = None
        self._members: list[UnitWorker] = []
        self._streak = Streak()
        self._crew: Crew | None = None

    @property
    def reference_ms(self) -> float:
        """Latency of the reference in milliseconds, the scale of all units' milliseconds; available once calibrated."""
        assert self._members, "calibrate or resume comes first"
        return self._members[0].calibration.reference_ms

    @property
    def calibrations(self) -> list[Calibration]:
        """Calibrations of the units in use."""
        return [m.calibration for m in self._members if not m.quarantined]

    def calibration_of(self, latency: Latency) -> Calibration:
        """Return the calibration of the unit that `latency` names, or the first one if another run named the unit."""
        by_unit = {m.unit.name: m.calibration for m in self._members}
        return by_unit.get(latency.unit, self._members[0].calibration)

    def runtime(self, name: str) -> str:
        """Return the runtime `name` with its version. Raises ValueError if it is not on the device, UnitError."""
        unit = next(iter(self._units.values()))
        return str(unit.fingerprint(dataclasses.replace(self.setup, runtime=name))["runtime"])

    def calibrate(self, reference: Reference, budget_s: float = 8.0) -> list[Calibration]:
        """Measure the reference on all units in parallel, and return the calibration of each unit in use, for `resume`.

        A unit that is unreachable, is a different device or disagrees with the others is not used; a notice gives the
        reason.

        Raises:
            ValueError: the runtime is not on the device, or a number is out of its range.
            MeasurementError: the runtime cannot load or run the reference.
            UnitError: no unit could be calibrated; the message gives the reason for each.
        """

        def work(key: str, unit: Unit, crew: Crew) -> Calibration:
            device = unit.fingerprint(self.setup)  # reports an unreachable unit before waiting for its lease
            session_error = session_error_of(self._state_dir / "devices", device, self.setup)
            with self._leased(key, unit, crew):
                try:
                    return calibrate(unit, reference, self.setup, budget_s=budget_s, session_error=session_error)
                except UnitError as error:
                    crew.say(f"calibrating again after a failure: {error}")
                unit.close()
                crew.pause(self._patience.backoff_s)
                return calibrate(unit, reference, self.setup, budget_s=budget_s, session_error=session_error)

        calibrations = self._on_each(self._units, work)
        used, left_out = agree(list(calibrations.values()))
        for name, reason in left_out.items():
            self._say(f"{name} is not used: {reason}")
        self._use(reference, used)
        return used

    def resume(self, reference: Reference, calibrations: Sequence[Calibration]) -> None:
        """Resume with the calibrations that `calibrate` returned in an earlier process.

        Raises:
            ValueError: no unit is the device of the calibrations, or the device now has other settings; the message
                names the difference.
            UnitError: no unit can be reached.
        """
        for calibration in calibrations:
            self._require_same_setup(calibration)
        by_unit = {c.unit: c for c in calibrations}
        for unit in self._units.values():
            if unit.name not in by_unit:
                self._say(f"{unit.name} is not used: this run was not calibrated on it")
        units = {key: unit for key, unit in self._units.items() if unit.name in by_unit}
        if not units:
            names = ", ".join(by_unit) or "no unit"
            raise ValueError(f"{self.name} must have a unit that this run was calibrated on ({names}), but has none")

        def work(key: str, unit: Unit, crew: Crew) -> Calibration:
            check_device(unit, by_unit[unit.name])
            return by_unit[unit.name]

        self._use(reference, list(self._on_each(units, work).values()))

    def measure(
        self,
        models: Mapping[int, bytes],
        *,
        runtime: str | None = None,
        budget_s: float = 3.0,
        interval: float = 0.01,
        fresh: bool = False,
        stop: threading.Event | None = None,
    ) -> Iterator[tuple[int, Latency | MeasurementError]]:
        """Yield the latency of each of `models` (number -> file) once it is measured, in any order; every number once.

        Args:
            runtime: runtime of the models, if not the reference's.
            fresh: re-measure cached latencies, replace them and report the change.
            stop: once it is set, running measurements are given up and nothing more is yielded.

        Raises:
            UnitError: no unit is left, or none worked for as long as the patience lasts; the message gives the
                reason for each. Models that were not yielded can be measured by another call.
        """
        assert self._reference is not None, "calibrate or resume comes first"
        numbers: dict[bytes, list[int]] = defaultdict(list)
        for number, model in models.items():
            numbers[model].append(number)
        order = Order(
            models={same[0]: model for model, same in numbers.items()},
            setup=dataclasses.replace(self.setup, runtime=runtime or self.setup.runtime),
            runtime="" if runtime in (None, self.setup.runtime) else self.runtime(runtime),
            reference=self._reference,
            budget_s=budget_s,
            interval=interval,
            fresh=fresh,
            lease_dir=self._state_dir / "leases",
            cache_dir=self._cache_dir,
        )
        spread = Spread(
            self.name, self._members, order, crew=self._new_crew(), patience=self._patience, streak=self._streak
        )
        with contextlib.closing(spread.outcomes(stop or threading.Event())) as outcomes:
            for number, outcome in outcomes:
                yield number, outcome
                if isinstance(outcome, Latency):
                    outcome = dataclasses.replace(outcome, source="cached", seconds=0.0)
                for twin in numbers[models[number]][1:]:
                    yield twin, outcome

    def overhear(self, text: str) -> None:
        """Pass on a line from a unit, in any thread."""
        if self._crew is not None:
            self._crew.say(text)

    def close(self) -> None:
        """Release all units. Never raises."""
        for unit in self._units.values():
            unit.close()

    def __enter__(self) -> "Device":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _require_same_setup(self, calibration: Calibration) -> None:
        """Raise ValueError if the entry's settings differ from those at the calibration."""
        then, now = calibration.setup.to_dict(), self.setup.to_dict()
        if isinstance(self._core, int) and self.setup.threads == 1 and calibration.pinned_core is not None:
            then, now = {**then, "core": calibration.pinned_core}, {**now, "core": self._core}
        if differing := [f"{name} {now[name]} instead of {then[name]}" for name in then if then[name] != now[name]]:
            raise ValueError(
                f"{self.name} must have the settings of this run's calibration, but got {', '.join(differing)}; "
                "restore them, or start another run"
            )

    def _new_crew(self) -> Crew:
        self._crew = Crew(self._say)
        return self._crew

    def _use(self, reference: Reference, calibrations: Sequence[Calibration]) -> None:
        used = {c.unit: c for c in calibrations}
        self._reference = reference
        self._members = [
            UnitWorker(unit, key, used[unit.name]) for key, unit in self._units.items() if unit.name in used
        ]

    def _on_each(
        self, units: Mapping[str, Unit], work: Callable[[str, Unit, Crew], Calibration]
    ) -> dict[str, Calibration]:
        """Return the result of `work` on each unit by name, run in parallel; a failure is reported immediately.

        Raises the first unit's error if no unit has a result.
        """
        crew = self._new_crew()
        for key, unit in units.items():
            crew.start(lambda key=key, unit=unit: crew.hand((unit.name, _outcome(work, key, unit, crew))))  # type: ignore[misc]
        outcomes: dict[str, Calibration | Exception] = {}
        try:
            while len(outcomes) < len(units):
                if (heard := crew.hear(0.1)) is not None:
                    name, outcome = heard
                    outcomes[name] = outcome
                    if isinstance(outcome, Exception) and len(units) > 1:
                        self._say(f"{name} is not used: {outcome}")
        finally:
            crew.end(self.close)
        order = [outcomes[unit.name] for unit in units.values()]
        calibrations = {o.unit: o for o in order if isinstance(o, Calibration)}
        if not calibrations:
            raise _together([o for o in order if isinstance(o, Exception)])
        return calibrations

    def _leased(self, key: str, unit: Unit, crew: Crew) -> AbstractContextManager[None]:
        return lease(self._state_dir / "leases", key, unit.name, say=crew.say, stop=crew.stop)


def _outcome(
    work: Callable[[str, Unit, Crew], Calibration], key: str, unit: Unit, crew: Crew
) -> Calibration | Exception:
    try:
        return work(key, unit, crew)
    except (UnitError, MeasurementError, ValueError) as error:
        return error


def _together(errors: Sequence[Exception]) -> Exception:
    """Return one error of the type of the first, with the messages of all units."""
    return type(errors[0])("; ".join(dict.fromkeys(str(error) for error in errors)))
