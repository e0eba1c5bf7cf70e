"""Measurements of real, small models on this machine; the assertions do not depend on its speed."""

import contextlib
import dataclasses
import math
import os

import pytest

from mnas.latency.devices.host import host_unit
from mnas.latency.latency import Calibration, Latency, MeasurementError, Setup
from mnas.latency.onboard.script import processor_of
from mnas.latency.protocol import calibrate, check_device, make_reference, measure
from mnas.latency.statistics import MIN_ROUNDS, SETTLED_ROUNDS
from mnas.tflite.writer import graph_bytes
from mnas.zoo.architectures import named_arch

SIZE = 32


@pytest.fixture(scope="module")
def unit():
    with contextlib.closing(host_unit()) as unit:
        yield unit


@pytest.fixture(scope="module")
def small():
    return graph_bytes(named_arch("mnasnet-small@0.5"), SIZE, 10)


@pytest.fixture(scope="module")
def large():
    """Return the reference; its light companion is nearer to `small`."""
    return make_reference(named_arch("mobilenetv2/s8"), "mobilenetv2/s8", SIZE, 10)


@pytest.fixture(scope="module")
def tiny():
    return make_reference(named_arch("mnasnet-small@0.5"), "tiny", SIZE, 10)


@pytest.fixture(scope="module")
def calibration(unit, large):
    return calibrate(unit, large, budget_s=0.5)


def test_a_measurement_is_positive_finite_and_inside_its_interval(unit, small, large, calibration):
    latency = measure(unit, small, large, calibration, budget_s=0.5)
    assert 0 < latency.low_ms <= latency.latency_ms <= latency.high_ms < math.inf
    assert 0 < latency.ratio_low <= latency.ratio <= latency.ratio_high
    assert latency.ratio < 1  # 0.6M against 88M MACs
    assert latency.latency_ms == pytest.approx(latency.ratio * calibration.reference_ms)
    assert latency.rounds >= MIN_ROUNDS
    assert latency.against == "light"
    assert latency.runs >= 3 * latency.rounds  # a turn of at least two, and its first
    assert latency.raw_median_ms > 0
    assert latency.seconds > 0
    assert latency.stopped_by in ("interval", "budget")
    assert -0.9 < latency.drift < 2
    assert 0 <= latency.disturbed <= 1
    assert (latency.unit, latency.source) == ("host", "measured")
    assert Latency.from_dict(latency.to_dict()) == latency


def test_a_wide_interval_stops_at_once_and_a_narrow_one_uses_the_budget(unit, small, large, calibration):
    quick = measure(unit, small, large, calibration, budget_s=60.0, interval=0.99)
    assert (quick.rounds, quick.stopped_by) == (SETTLED_ROUNDS, "interval")
    slow = measure(unit, small, large, calibration, budget_s=0.05, interval=1e-6)
    assert (slow.rounds >= MIN_ROUNDS, slow.stopped_by) == (True, "budget")


def test_a_model_is_about_as_fast_as_itself(unit, large, calibration):
    itself = measure(unit, large.file, large, calibration, budget_s=0.5)
    assert itself.against == "reference"
    assert 0.5 < itself.ratio < 2
    light = measure(unit, large.light_file, large, calibration, budget_s=0.5)
    assert light.against == "light"
    assert 0.5 < light.ratio / calibration.light_ratio < 2


def test_the_light_reference_is_the_same_model_narrower(large):
    arch = named_arch("mobilenetv2/s8")
    assert large.file == graph_bytes(arch, SIZE, 10)
    assert large.light_file == graph_bytes(arch.scale_width(0.35), SIZE, 10)
    narrow = make_reference(arch.scale_width(0.01), "narrow", SIZE, 10)  # 8 channels everywhere already
    assert narrow.light_file == narrow.file


def test_several_threads_are_not_pinned(unit, small, tiny):
    calibration = calibrate(unit, tiny, Setup(threads=2), budget_s=0.1)
    assert (calibration.threads, calibration.pinned_core, calibration.realtime) == (2, None, False)
    assert measure(unit, small, tiny, calibration, budget_s=0.1).latency_ms > 0


def test_calibration_names_device_core_and_interval(unit, calibration):
    assert 0 < calibration.low_ms <= calibration.reference_ms <= calibration.high_ms
    assert (calibration.reference, calibration.input_size, calibration.threads) == ("mobilenetv2/s8", SIZE, 1)
    assert calibration.device == unit.fingerprint(Setup())
    assert Calibration.from_dict(calibration.to_dict()) == calibration
    optional = {"board", "max_mhz"}  # not every machine reports them
    assert set(calibration.device) - optional == {"processor", "machine", "cores", "os", "runtime"}
    assert str(calibration.device["runtime"]).startswith("LiteRT 2.")
    if hasattr(os, "sched_getaffinity"):
        assert calibration.pinned_core in os.sched_getaffinity(0)


@pytest.mark.parametrize("cut", [0, 4, 8, 1000, -1000], ids=lambda n: f"cut at {n}")
def test_files_that_are_not_models_get_one_line(unit, small, large, calibration, cut):
    with pytest.raises(MeasurementError) as raised:
        measure(unit, small[:cut], large, calibration)
    assert "\n" not in str(raised.value)
    assert "litert" in str(raised.value).lower()


def test_other_files_get_one_line(unit, large, calibration):
    with pytest.raises(MeasurementError, match=r"a model must be a LiteRT file \(.tflite\), but got 108 bytes"):
        measure(unit, b"\x89PNG\r\n\x1a\n" + bytes(100), large, calibration)


def test_another_device_is_refused_with_what_differs(unit, small, large, calibration):
    elsewhere = dataclasses.replace(calibration, device={**calibration.device, "cores": 4096})
    with pytest.raises(ValueError, match=r"not the device of the calibration \(cores \d+ instead of 4096\)"):
        measure(unit, small, large, elsewhere)
    check_device(unit, calibration)


@pytest.mark.parametrize("budget_s", [0, -1, math.nan, math.inf])
def test_impossible_budgets_are_refused(unit, small, large, calibration, budget_s):
    with pytest.raises(ValueError, match="budget_s must be greater than 0"):
        measure(unit, small, large, calibration, budget_s=budget_s)
    with pytest.raises(ValueError, match="budget_s must be greater than 0"):
        calibrate(unit, large, budget_s=budget_s)


def test_impossible_intervals_threads_and_runtimes_are_refused(unit, small, large, calibration):
    with pytest.raises(ValueError, match="interval must be between 0 and 1"):
        measure(unit, small, large, calibration, interval=0)
    with pytest.raises(ValueError, match="threads must be"):
        Setup(threads=0)
    with pytest.raises(ValueError, match="runtime must be one of litert, litert-builtin, onnxruntime"):
        Setup(runtime="tensorrt")


def test_processors_of_boards_are_told_apart():
    pi = "processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd08\n\nHardware\t: BCM2835\nSerial\t: 10000000abcdef\n"
    assert processor_of(pi.replace("abcdef", "123456")) == processor_of(pi) == "0x41/0xd08"
    two = "model name\t: ARMv8 Processor rev 4 (v8l)\nCPU implementer\t: 0x41\nCPU part\t: {}\n"
    assert processor_of(two.format("0xd09") + two.format("0xd03") * 2) == "0x41/0xd03, 0x41/0xd09"
    assert processor_of("processor\t: 0\nmodel name\t: AMD EPYC: 9B14\n" * 2) == "AMD EPYC: 9B14"
    assert processor_of("") == ""
