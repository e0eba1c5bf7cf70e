"""Devices of one and two units that fail: real processes, each behind a program that fails on demand."""

import contextlib
import json
import math
import os
import re
import subprocess
import sys
import threading

import pytest

from mnas.latency import protocol
from mnas.latency.devices import scripted
from mnas.latency.devices.registry import DeviceEntry
from mnas.latency.fleet import agreement, spread
from mnas.latency.fleet.lease import lease, lease_key
from mnas.latency.fleet.pool import Device
from mnas.latency.fleet.spread import Patience
from mnas.latency.latency import Latency, MeasurementError, UnitError
from mnas.latency.protocol import make_reference
from mnas.tflite.writer import graph_bytes
from mnas.zoo.architectures import named_arch
from tests.latency.faulty import KINDS, TURN_S, faulty_programs, faulty_unit, plan

SIZE = 32
QUICK = {"budget_s": 0.1, "interval": 0.5}
PATIENCE = Patience(away_s=60.0, backoff_s=0.05, cool_s=0.05, drift=math.inf)  # this machine may be busy; see `drift`


@pytest.fixture(scope="module")
def reference():
    return make_reference(named_arch("mnasnet-small@0.5"), "small", SIZE, 10)


@pytest.fixture(scope="module")
def models():
    return {n: graph_bytes(named_arch("mnasnet-small@0.5"), SIZE, 11 + n) for n in range(8)}


@pytest.fixture(scope="module", autouse=True)
def programs(tmp_path_factory):
    """Yield the socket of the process that units' programs are forked from."""
    with faulty_programs(tmp_path_factory.mktemp("programs")) as socket, pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            scripted, "TURN_S", TURN_S
        )  # as in the units; otherwise a turn that a busy machine cut short is rejected
        yield socket


@pytest.fixture(scope="module")
def calibrations(programs, reference, tmp_path_factory):
    """Return the calibrations of two good units, made once for all tests."""
    with contextlib.ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        patch.setattr(agreement, "AGREEMENT", 9)  # other programs may slow one of them; agreement has its own tests
        device, _ = open_two(stack, programs, tmp_path_factory.mktemp("calibration"))
        return device.calibrate(reference, budget_s=0.3)


@pytest.fixture(autouse=True)
def implausible(monkeypatch):
    monkeypatch.setattr(protocol, "IMPLAUSIBLE_DRIFT", 1e6)  # the tests set the drift
    monkeypatch.setattr(spread, "DISTURBED", 2)  # more than all rounds


@pytest.fixture
def drift(monkeypatch):
    """Limit the drift of pi/0 where drift is tested; not of the other unit, which a busy machine may slow down."""
    monkeypatch.setattr(
        Patience, "drifted", lambda self, found: found.unit == "pi/0" and not 1 / 5 <= 1 + found.drift <= 5
    )


def open_units(stack, programs, folder, names, patience=PATIENCE):
    addresses = tuple(f"shelf-{name[-1]}" for name in names)
    entry = DeviceEntry(name="pi", kind="ssh", address=addresses)
    units = [faulty_unit(name, folder / name.replace("/", "-"), programs) for name in names]
    said: list[str] = []
    device = Device(
        entry, units, say=said.append, state_dir=folder / "state", cache_dir=folder / "cache", patience=patience
    )
    return stack.enter_context(device), said


def open_two(stack, programs, folder):
    return open_units(stack, programs, folder, ["pi/0", "pi/1"])


@pytest.fixture
def two(programs, tmp_path, reference, calibrations):
    with contextlib.ExitStack() as stack:
        device, said = open_two(stack, programs, tmp_path)
        device.resume(reference, calibrations)
        yield device, said


@pytest.fixture
def one(programs, tmp_path, reference, calibrations):
    """Yield the device with its first unit alone."""
    with contextlib.ExitStack() as stack:
        device, said = open_units(stack, programs, tmp_path, ["pi/0"])
        device.resume(reference, calibrations)
        yield device, said


def first(models, count):
    return {number: models[number] for number in range(count)}


def every_candidate(models, kind):
    """Return a fault for every model except the reference."""
    return [{"kind": kind, "bytes": size, "times": 99} for size in sorted({len(m) for m in models.values()})]


def rounds_of(folder) -> int:
    return sum(log.read_text().split().count("open") for log in folder.glob("pi-*/log"))


def test_two_units_share_the_work_and_the_scale(programs, tmp_path, reference, models, calibrations):
    assert len(calibrations) == 2
    assert len({c.reference_ms for c in calibrations}) == 1
    scales = [c.unit_scale for c in calibrations]
    assert sum(scales) == pytest.approx(2)  # the median of two is their mean
    with contextlib.ExitStack() as stack:
        device, said = open_two(stack, programs, tmp_path)
        device.resume(reference, calibrations)
        assert device.reference_ms == calibrations[0].reference_ms
        found = dict(device.measure(first(models, 4), **QUICK))
    assert sorted(found) == [0, 1, 2, 3]
    assert {latency.unit for latency in found.values()} == {"pi/0", "pi/1"}
    assert {latency.source for latency in found.values()} == {"measured"}
    assert all(0.3 < latency.ratio < 3 for latency in found.values())  # the networks are nearly the same
    assert said == []
    assert rounds_of(tmp_path) == 4
    with contextlib.ExitStack() as stack:  # in a later process, where all are cached
        device, _ = open_two(stack, programs, tmp_path)
        device.resume(reference, calibrations)
        again = dict(device.measure(first(models, 4), **QUICK))
    assert rounds_of(tmp_path) == 4
    assert {latency.source for latency in again.values()} == {"cached"}
    assert [again[n].ratio for n in range(4)] == pytest.approx([found[n].ratio for n in range(4)])
    assert [again[n].latency_ms for n in range(4)] == pytest.approx([found[n].latency_ms for n in range(4)])


def test_the_same_graph_twice_is_measured_once(tmp_path, one, models):
    device, _ = one
    found = dict(device.measure({3: models[0], 7: models[0]}, **QUICK))
    assert found[3].ratio == found[7].ratio
    assert (found[3].source, found[7].source) == ("measured", "cached")
    assert rounds_of(tmp_path) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_costs_a_retry_and_never_a_wrong_number(tmp_path, one, models, monkeypatch, kind):
    device, said = one
    if kind == "hang":
        monkeypatch.setattr(scripted, "ROUND_TIMEOUT_S", 2.0)
    plan(tmp_path / "pi-0", {"kind": kind, "at": "open" if kind == "lose the file" else "round"})
    found = dict(device.measure(first(models, 1), **QUICK))
    assert 0.3 < found[0].ratio < 3
    assert found[0].source == "measured"
    assert re.fullmatch(r"retrying candidate 0 later: pi/0: .*", said[0])
    assert re.fullmatch(r"pi/0 works again after \d+ s", said[-1])
    expected = {
        "die": "the measuring process ended with status 9",
        "hang": "the measuring process did not answer within 2 s",
        "truncate": "unexpected answer",
        "garble": "unexpected answer",
        "nan": "unexpected answer",
        "other unit": "ms of inferences in a round of",
        "full": "No space left on device",
        "lose the file": "No such file",
    }
    assert expected.get(kind, "times must be positive and finite") in said[0]


def test_another_unit_retries_a_candidate_while_its_unit_is_away(tmp_path, two, models):
    device, said = two
    plan(tmp_path / "pi-0", {"kind": "die", "at": "open", "times": 1})
    found = dict(device.measure(first(models, 3), **QUICK))
    assert len(found) == 3
    assert all(isinstance(outcome, Latency) for outcome in found.values())
    assert "on another unit: pi/0: " in said[0]


def test_a_unit_that_fails_often_is_quarantined_and_the_other_continues(tmp_path, two, models):
    device, said = two
    plan(
        tmp_path / "pi-0",
        *every_candidate(models, "full"),
    )
    for _ in range(20):  # the good unit soon measures all of them
        found = dict(device.measure(models, **QUICK, fresh=True))
        assert sorted(found) == sorted(models)
        assert not [outcome for outcome in found.values() if isinstance(outcome, MeasurementError)], said
        assert {outcome.unit for outcome in found.values()} == {"pi/1"}
        if len(device.calibrations) == 1:
            break
    (reason,) = [line for line in said if "quarantined" in line]
    assert re.fullmatch(r"pi/0 is quarantined: 5 of its last 5 measurements failed; the last error: pi/0: .*", reason)
    assert [c.unit for c in device.calibrations] == ["pi/1"]


def test_a_model_that_fails_on_every_unit_is_given_up_and_the_others_are_measured(tmp_path, one):
    device, said = one
    small = {n: graph_bytes(named_arch("mnasnet-small@0.5"), SIZE, classes) for n, classes in enumerate((11, 200, 12))}
    plan(tmp_path / "pi-0", {"kind": "garble", "bytes": len(small[1]), "times": 99})
    found = dict(device.measure(small, **QUICK))
    assert isinstance(found[1], MeasurementError)
    assert str(found[1]).startswith(
        "failed 3 times on units that measure other candidates; the last error: pi/0: unexpected answer"
    )
    assert isinstance(found[0], Latency)
    assert isinstance(found[2], Latency)
    assert sum("works again" in line for line in said) >= 2


def test_a_model_that_crashes_its_runtime_is_given_up_once_the_reference_runs_again(tmp_path, one):
    device, said = one
    crashing, sound = (graph_bytes(named_arch("mnasnet-small@0.5"), SIZE, classes) for classes in (200, 12))
    plan(tmp_path / "pi-0", {"kind": "die", "bytes": len(crashing), "times": 99})
    found = dict(device.measure({0: crashing, 1: sound}, **QUICK))
    assert isinstance(found[0], MeasurementError)
    assert str(found[0]).startswith(
        "litert crashed on the model 2 times: pi/0: the measuring process ended with status 9"
    )
    assert isinstance(found[1], Latency)
    assert sum("works again" in line for line in said) == 1


def test_candidates_that_all_fail_are_the_devices_fault(tmp_path, one, models):
    device, _ = one
    plan(tmp_path / "pi-0", *every_candidate(models, "full"))
    outcomes = []
    with pytest.raises(
        UnitError,
        match=r"pi: 3 candidates in a row failed 3 times each, although the reference runs; .* No space left on device",
    ):
        outcomes.extend(device.measure(first(models, 5), **QUICK))
    assert len(outcomes) == 2


def test_a_model_is_at_fault_if_the_reference_runs(tmp_path, one, models):
    device, said = one
    found = dict(device.measure({0: b"no model", 1: models[1]}, **QUICK))
    assert isinstance(found[0], MeasurementError)
    assert "a model must be a LiteRT file" in str(found[0])
    assert isinstance(found[1], Latency)
    assert said == []


def test_measuring_stops_when_no_unit_works_and_loses_nothing(programs, tmp_path, reference, models, calibrations):
    patience = Patience(away_s=0.5, backoff_s=0.05, drift=math.inf)
    with contextlib.ExitStack() as stack:
        device, _ = open_units(stack, programs, tmp_path, ["pi/0"], patience)
        device.resume(reference, calibrations)
        found = dict(device.measure(first(models, 2), **QUICK))
        plan(tmp_path / "pi-0", {"kind": "full", "at": "open", "times": 999})
        with pytest.raises(UnitError, match=r"pi: no unit can measure: failing for \d s: pi/0: OSError: No space left"):
            dict(device.measure(first(models, 4), **QUICK))
        plan(tmp_path / "pi-0")  # plugged in again
        opened = rounds_of(tmp_path)
        found |= dict(device.measure(first(models, 4), **QUICK))
    assert sorted(found) == [0, 1, 2, 3]
    assert [found[n].source for n in range(4)] == ["cached", "cached", "measured", "measured"]
    assert rounds_of(tmp_path) == opened + 1 + 2  # the light reference, and two candidates


@pytest.mark.usefixtures("drift")
def test_a_drifting_unit_measures_again_once_and_is_then_quarantined(tmp_path, two, models):
    device, said = two
    plan(tmp_path / "pi-0", {"kind": "speed", "factor": 20, "times": 9999})
    found = dict(device.measure(first(models, 3), **QUICK))
    assert {outcome.unit for outcome in found.values()} == {"pi/1"}
    assert re.fullmatch(r"pi/0: measuring candidate \d again: the reference takes \d+.\d\d times .*", said[0])
    assert any(re.match(r"pi/0 is quarantined: .*, even when measured again", line) for line in said)


@pytest.mark.usefixtures("drift")
def test_a_unit_that_drifted_for_a_moment_is_measured_again_and_that_counts(tmp_path, one, models):
    device, said = one
    plan(tmp_path / "pi-0", {"kind": "speed", "factor": 0.05, "times": 8})  # one measurement has 8 rounds or more
    (found,) = dict(device.measure(first(models, 1), budget_s=0.001)).values()
    assert abs(math.log(1 + found.drift)) < math.log(5)
    assert re.fullmatch(r"pi/0: measuring candidate 0 again: the reference takes 0.\d\d times .*", said[0])
    assert len(said) == 1


@pytest.mark.usefixtures("drift")
def test_the_only_unit_is_waited_for_until_its_speed_is_back(tmp_path, one, models):
    device, said = one
    plan(tmp_path / "pi-0", {"kind": "speed", "factor": 20, "times": 24})  # twice a candidate, once the reference
    (found,) = dict(device.measure(first(models, 1), budget_s=0.001)).values()
    assert abs(math.log(1 + found.drift)) < math.log(5)
    assert [re.sub(r"[\d.]+ (times|s)\b", r"X \1", line)[:40] for line in said] == [
        "pi/0: measuring candidate 0 again: the r",
        "retrying candidate 0 later: pi/0: the re",
        "still failing: pi/0: the reference takes",
        "pi/0 works again after X s",
    ]


def test_a_disturbed_measurement_is_repeated_once_unless_its_interval_is_reached(one, models, monkeypatch):
    device, said = one
    monkeypatch.setattr(spread, "DISTURBED", -1)
    (reached,) = dict(device.measure(first(models, 1), budget_s=60, interval=0.9)).values()
    assert (reached.stopped_by, said) == ("interval", [])
    (found,) = dict(device.measure({1: models[1]}, budget_s=0.001)).values()
    assert found.stopped_by == "budget"
    (line,) = said
    assert re.fullmatch(r"pi/0: measuring candidate 1 again: \d+ % of its rounds were disturbed", line)


def test_a_unit_that_answers_as_another_device_is_quarantined(tmp_path, two, models):
    device, said = two
    plan(tmp_path / "pi-0", {"kind": "another", "at": "hello", "times": 99})
    device._members[0].unit._fingerprints.clear()  # like a unit that has never connected
    device._members[0].unit.close()
    found = dict(device.measure(first(models, 2), **QUICK))
    assert {outcome.unit for outcome in found.values()} == {"pi/1"}
    assert "pi/0 is quarantined: this is not the device of the calibration (processor" in said[0]


def test_units_that_cannot_be_used_are_reported_at_the_start(programs, tmp_path, reference, calibrations):
    with contextlib.ExitStack() as stack:
        device, said = open_units(stack, programs, tmp_path, ["pi/0", "pi/1", "pi/2"])
        plan(tmp_path / "pi-1", {"kind": "another", "at": "hello"})
        plan(tmp_path / "pi-2", {"kind": "die", "at": "hello", "times": 9})
        used = device.calibrate(reference, budget_s=0.1)
        assert [c.unit for c in used] == ["pi/0"]
        assert used[0].unit_scale == 1.0
        assert "pi/2 is not used: pi/2: the measuring process ended with status 9" in said
        assert any(
            line.startswith("pi/1 is not used: it is a different device from pi/0 (processor 'another'")
            for line in said
        )


def test_a_calibration_that_fails_is_made_again(programs, tmp_path, reference):
    with contextlib.ExitStack() as stack:
        device, said = open_units(stack, programs, tmp_path, ["pi/0"])
        plan(tmp_path / "pi-0", {"kind": "die"})
        assert len(device.calibrate(reference, budget_s=0.1)) == 1
        assert re.fullmatch(
            r"calibrating again after a failure: pi/0: the measuring process ended with status 9.*", said.pop()
        )
        plan(tmp_path / "pi-0", {"kind": "full", "times": 2})
        with pytest.raises(UnitError, match=r"pi/0: OSError: No space left on device"):
            device.calibrate(reference, budget_s=0.1)


def test_resuming_on_another_device_or_on_none_is_refused(programs, tmp_path, reference, calibrations):
    with contextlib.ExitStack() as stack:
        device, said = open_units(stack, programs, tmp_path, ["pi/0"])
        plan(tmp_path / "pi-0", {"kind": "another", "at": "hello"})
        with pytest.raises(ValueError, match=r"not the device of the calibration \(processor 'another' instead of "):
            device.resume(reference, calibrations)
        other, said = open_units(stack, programs, tmp_path, ["pi/2"])
        with pytest.raises(ValueError, match=r"must have a unit that this run was calibrated on \(pi/0, pi/1\)"):
            other.resume(reference, calibrations)
        assert said == ["pi/2 is not used: this run was not calibrated on it"]


def test_measuring_again_replaces_the_entry_and_reports_the_change(tmp_path, one, models):
    device, said = one
    before = dict(device.measure(first(models, 1), **QUICK))[0]
    after = dict(device.measure(first(models, 1), **QUICK, fresh=True))[0]
    assert (before.source, after.source) == ("measured", "measured")
    assert re.fullmatch(
        rf"re-measured candidate 0: ratio {before.ratio:.4f} .* on \d.*, {after.ratio:.4f} .* now: .*", said[-1]
    )
    assert dict(device.measure(first(models, 1), **QUICK))[0].ratio == pytest.approx(after.ratio)


def test_a_unit_that_another_process_measures_on_is_waited_for(tmp_path, one, models):
    device, said = one
    key = lease_key("ssh", "shelf-0")
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom mnas.latency.fleet.lease import lease\n"
        f"with lease(Path({str(tmp_path / 'state' / 'leases')!r}), {key!r}, 'pi/0', say=print):\n"
        "    print('held', flush=True)\n    sys.stdin.readline()\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    threading.Timer(0.8, holder.kill).start()  # the message about waiting comes after half a second
    found = dict(device.measure(first(models, 1), **QUICK))
    assert found[0].source == "measured"
    assert said == [line for line in said if line.startswith(f"waiting for pi/0, held by pid {holder.pid} (")]
    assert len(said) == 1
    holder.wait()


def test_a_caller_that_stops_early_leaves_no_thread_process_or_lease(tmp_path, one, models):
    device, _ = one
    threads = threading.active_count()
    outcomes = device.measure(models, **QUICK)
    next(outcomes)
    outcomes.close()
    device.close()
    assert threading.active_count() <= threads
    children = subprocess.run(["ps", "--ppid", str(os.getpid()), "-o", "args="], capture_output=True, text=True).stdout
    assert "client.py" not in children
    with lease(tmp_path / "state" / "leases", lease_key("ssh", "shelf-0"), "pi/0", say=print):
        pass


def test_a_cache_that_cannot_be_written_is_reported_once(tmp_path, one, models):
    device, said = one
    (tmp_path / "cache").touch()
    found = dict(device.measure(first(models, 2), **QUICK))
    assert {outcome.source for outcome in found.values()} == {"measured"}
    assert len([line for line in said if line.startswith("measurements cannot be cached in ")]) == 1


def test_a_damaged_entry_is_measured_again(tmp_path, one, models):
    device, _ = one
    dict(device.measure(first(models, 1), **QUICK))
    (entry,) = (tmp_path / "cache").iterdir()
    entry.write_text(entry.read_text()[:100])
    assert dict(device.measure(first(models, 1), **QUICK))[0].source == "measured"
    assert json.loads(entry.read_text())["latency"]["source"] == "measured"
