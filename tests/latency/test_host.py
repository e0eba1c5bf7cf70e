"""Measuring real, small models on this machine. Nothing here holds for one speed of machine only."""

import dataclasses
import gc
import math
import os

import pytest

from mnas.latency import host
from mnas.latency.host import calibrate, check_device, device_fingerprint, make_reference, measure, steady
from mnas.latency.latency import Calibration, Latency, MeasurementError
from mnas.latency.statistics import MIN_ROUNDS, SETTLED_ROUNDS
from mnas.tflite.writer import graph_bytes
from mnas.zoo.architectures import named_arch

SIZE = 32
needs_pinning = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system does not pin threads")


@pytest.fixture(scope="module")
def small():
    return graph_bytes(named_arch("mnasnet-small@0.5"), SIZE, 10)


@pytest.fixture(scope="module")
def large():
    """The reference; its light companion is nearer to `small`."""
    return make_reference(named_arch("mobilenetv2/s8"), "mobilenetv2/s8", SIZE, 10)


@pytest.fixture(scope="module")
def tiny():
    return make_reference(named_arch("mnasnet-small@0.5"), "tiny", SIZE, 10)


@pytest.fixture(scope="module")
def calibration(large):
    return calibrate(large, budget_s=0.5)


def state():
    if not hasattr(os, "sched_getaffinity"):
        return gc.isenabled()
    return os.sched_getaffinity(0), os.sched_getscheduler(0), os.sched_getparam(0).sched_priority, gc.isenabled()


def test_a_measurement_is_positive_finite_and_inside_its_interval(small, large, calibration):
    before = state()
    latency = measure(small, large, calibration, budget_s=0.5)
    assert state() == before
    assert 0 < latency.low_ms <= latency.latency_ms <= latency.high_ms < math.inf
    assert 0 < latency.ratio_low <= latency.ratio <= latency.ratio_high
    assert latency.ratio < 1  # 0.6M against 88M MACs: on no machine is that slower
    assert latency.latency_ms == pytest.approx(latency.ratio * calibration.reference_ms)
    assert latency.rounds >= MIN_ROUNDS
    assert latency.against == "light"
    assert latency.runs >= 3 * latency.rounds  # a turn of at least two, and its first
    assert latency.raw_median_ms > 0
    assert latency.seconds > 0
    assert latency.stopped_by in ("interval", "budget")
    assert Latency.from_dict(latency.to_dict()) == latency


def test_a_wide_interval_stops_at_once_and_a_narrow_one_uses_the_budget(small, large, calibration):
    quick = measure(small, large, calibration, budget_s=60.0, interval=0.99)
    assert (quick.rounds, quick.stopped_by) == (SETTLED_ROUNDS, "interval")
    slow = measure(small, large, calibration, budget_s=0.05, interval=1e-6)
    assert (slow.rounds >= MIN_ROUNDS, slow.stopped_by) == (True, "budget")


def test_a_model_is_about_as_fast_as_itself(large, calibration):
    itself = measure(large.file, large, calibration, budget_s=0.5)
    assert itself.against == "reference"
    assert 0.5 < itself.ratio < 2
    light = measure(large.light_file, large, calibration, budget_s=0.5)
    assert light.against == "light"
    assert 0.5 < light.ratio / calibration.light_ratio < 2


def test_the_light_reference_is_the_same_model_narrower(large):
    arch = named_arch("mobilenetv2/s8")
    assert large.file == graph_bytes(arch, SIZE, 10)
    assert large.light_file == graph_bytes(arch.scale_width(0.35), SIZE, 10)
    narrow = make_reference(arch.scale_width(0.01), "narrow", SIZE, 10)  # 8 channels everywhere already
    assert narrow.light_file == narrow.file


def test_several_threads_are_not_pinned(small, tiny):
    calibration = calibrate(tiny, threads=2, budget_s=0.1)
    assert (calibration.threads, calibration.pinned_core, calibration.realtime) == (2, None, False)
    assert measure(small, tiny, calibration, budget_s=0.1).latency_ms > 0


def test_without_pinning_and_processor_time_measuring_works_as_well(small, tiny, monkeypatch):
    monkeypatch.delattr(os, "sched_setaffinity", raising=False)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(host.sys, "platform", "win32")
    calibration = calibrate(tiny, budget_s=0.1)
    assert (calibration.pinned_core, calibration.realtime) == (None, False)
    assert measure(small, tiny, calibration, budget_s=0.1).latency_ms > 0


def test_calibration_names_device_core_and_interval(calibration):
    assert 0 < calibration.low_ms <= calibration.reference_ms <= calibration.high_ms
    assert (calibration.reference, calibration.input_size, calibration.threads) == ("mobilenetv2/s8", SIZE, 1)
    assert calibration.device == device_fingerprint()
    assert Calibration.from_dict(calibration.to_dict()) == calibration
    assert set(device_fingerprint()) == {"processor", "machine", "cores", "os", "runtime"}
    assert device_fingerprint()["runtime"].startswith("LiteRT 2.")


@needs_pinning
def test_the_thread_is_on_one_core_inside_and_where_it_was_afterwards():
    before, core = state(), max(os.sched_getaffinity(0))
    with steady(core):
        assert os.sched_getaffinity(0) == {core}
        assert not gc.isenabled()
    assert state() == before
    with pytest.raises(KeyError), steady(core):
        raise KeyError
    assert state() == before


@needs_pinning
def test_real_time_priority_is_left_out_where_it_is_not_allowed(monkeypatch):
    def refuse(*_):
        raise PermissionError

    before = state()
    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    with steady(max(os.sched_getaffinity(0))) as realtime:
        assert not realtime
    assert state() == before


@needs_pinning
def test_a_core_that_is_no_longer_ours_is_not_pinned_to():
    before = os.sched_getaffinity(0)
    with steady(max(before) + 1000):
        assert os.sched_getaffinity(0) == before


@needs_pinning
def test_a_failing_model_leaves_the_thread_as_it_was(large, calibration):
    before = state()
    with pytest.raises(ValueError, match="must be a LiteRT file"):
        measure(b"not a model", large, calibration)
    assert state() == before


@pytest.mark.parametrize("cut", [0, 4, 8, 1000, -1000], ids=lambda n: f"cut at {n}")
def test_files_that_are_no_models_get_one_line(small, large, calibration, cut):
    with pytest.raises((ValueError, MeasurementError)) as raised:
        measure(small[:cut], large, calibration)
    assert "\n" not in str(raised.value)
    assert "LiteRT" in str(raised.value)


def test_other_files_get_one_line(large, calibration):
    for file in (b"\x89PNG\r\n\x1a\n" + bytes(100), b"\x00\x00\x00\x00TFL3" + bytes(200), b"{}"):
        with pytest.raises(ValueError, match=r"a model must be a LiteRT file \(.tflite\), but .*") as raised:
            measure(file, large, calibration)
        assert "\n" not in str(raised.value)


def test_a_model_that_the_runtime_cannot_allocate_is_a_measurement_error(small, large, calibration, monkeypatch):
    class NoMemory(host.Interpreter):
        def allocate_tensors(self):
            raise RuntimeError("Failed to allocate\n memory for tensors")

    monkeypatch.setattr(host, "Interpreter", NoMemory)
    with pytest.raises(MeasurementError, match=r"^LiteRT cannot run the model: Failed to allocate memory for tensors$"):
        measure(small, large, calibration)


def test_a_clock_that_stands_still_is_a_measurement_error(small, large, calibration, monkeypatch):
    monkeypatch.setattr(host, "_clock", lambda threads: lambda: 7)
    with pytest.raises(MeasurementError, match="did not advance"):
        measure(small, large, calibration)


def test_another_device_is_refused_with_what_differs(small, large, calibration):
    elsewhere = dataclasses.replace(calibration, device={**calibration.device, "cores": 4096})
    with pytest.raises(ValueError, match=r"another device \(cores 4096 there, \d+ here\)"):
        measure(small, large, elsewhere)
    check_device(calibration)


@pytest.mark.parametrize("budget_s", [0, -1, math.nan, math.inf])
def test_impossible_budgets_are_refused(small, large, calibration, budget_s):
    with pytest.raises(ValueError, match="measuring budget must be more than 0 s"):
        measure(small, large, calibration, budget_s=budget_s)
    with pytest.raises(ValueError, match="measuring budget must be more than 0 s"):
        calibrate(large, budget_s=budget_s)


def test_impossible_intervals_and_threads_are_refused(small, large, calibration):
    with pytest.raises(ValueError, match="interval must be a share"):
        measure(small, large, calibration, interval=0)
    with pytest.raises(ValueError, match="threads must be"):
        calibrate(large, threads=0)
