"""Latencies of a table: ratios between models, and reasons instead of an end where one of them fails."""

import dataclasses
import functools

import pytest

from mnas.latency.fleet.pool import Device
from mnas.latency.latency import Calibration, Latency
from mnas.measure.result import ModelLatency
from mnas.paper.latency import PaperModel, measure_paper_models, ratio_between
from mnas.paper.settings import PaperSettings
from mnas.tflite.writer import graph_bytes
from mnas.zoo.architectures import named_arch

SMALL = graph_bytes(named_arch("mnasnet-small@0.35"), 32, 10)


@pytest.fixture
def own_folders(monkeypatch, tmp_path):
    for home in ("CACHE", "STATE", "CONFIG"):
        monkeypatch.setenv(f"XDG_{home}_HOME", str(tmp_path / home.lower()))
    monkeypatch.setattr(Device, "calibrate", functools.partialmethod(Device.calibrate, budget_s=0.1))


def no_package() -> bytes:
    raise ImportError("writing ONNX files needs onnx; pip install 'mnas[onnx]'")


def test_a_failure_is_a_reason(own_folders, monkeypatch) -> None:
    runtime = Device.runtime

    def without_onnxruntime(self: Device, name: str) -> str:
        if name == "onnxruntime":
            raise ValueError("onnxruntime is not on\n the device")
        return runtime(self, name)

    models = [
        PaperModel(name="small", files={"litert": lambda: SMALL, "onnxruntime": lambda: SMALL}),
        PaperModel(name="broken", files={"litert": lambda: b"no model", "onnxruntime": "not built"}),
        PaperModel(name="unwritten", files={"litert": no_package, "onnxruntime": no_package}),
    ]
    settings = PaperSettings(runtime="litert,onnxruntime", budget_s=0.1)
    monkeypatch.setattr(Device, "runtime", without_onnxruntime)
    steps: list[str] = []
    latencies = measure_paper_models(settings, models, 32, progress=steps.append, say=print)
    small = latencies.outcomes["small", "litert"]
    assert isinstance(small, ModelLatency)
    assert (small.size_bytes, small.calibration.input_size) == (len(SMALL), 32)
    assert small.calibration.reference == "mobilenetv2"
    assert "a model must be a LiteRT file" in latencies.outcomes["broken", "litert"]
    assert latencies.outcomes["unwritten", "litert"] == "writing ONNX files needs onnx; pip install 'mnas[onnx]'"
    for model in models:
        assert latencies.outcomes[model.name, "onnxruntime"] == "onnxruntime is not on the device"
    assert steps == [
        "calibrating with mobilenetv2 at 32 px in LiteRT",
        *(f"measuring {model.name} in LiteRT" for model in models),
    ]
    assert latencies.notes[-1].startswith("LiteRT ")


def of_ratio(value: float, low: float, high: float) -> ModelLatency:
    calibration = Calibration(
        reference="mobilenetv2",
        reference_ms=10.0,
        low_ms=9.0,
        high_ms=11.0,
        light_ratio=0.5,
        light_ratio_low=0.5,
        light_ratio_high=0.5,
        input_size=320,
        runtime="litert",
        threads=1,
        batch=1,
        unit="host",
        device={"processor": "one"},
        session_error=0.004,
        pinned_core=0,
        realtime=False,
    )
    latency = Latency(
        latency_ms=10 * value,
        low_ms=9 * value,
        high_ms=11 * value,
        ratio=value,
        ratio_low=low,
        ratio_high=high,
        against="reference",
        raw_median_ms=10 * value,
        runs=8,
        rounds=8,
        stopped_by="budget",
        seconds=1.0,
        drift=0.0,
        disturbed=0.0,
        peak_memory_bytes=None,
        energy_mj=None,
        unit="host",
        source="measured",
    )
    return ModelLatency(
        name="m",
        runtime="litert",
        int8=False,
        params=None,
        macs=None,
        size_bytes=1,
        latency=latency,
        calibration=calibration,
    )


def test_a_ratio_of_ratios() -> None:
    base = of_ratio(2.0, 2.0 / 1.03, 2.0 * 1.04)
    ratio = ratio_between(of_ratio(3.0, 3.0 / 1.03, 3.0 * 1.04), base)
    assert ratio.value == pytest.approx(1.5)
    assert ratio.low == pytest.approx(1.5 / 1.0501, rel=1e-3)  # exp(hypot(ln 1.03, ln 1.04))
    assert ratio.high == pytest.approx(1.5 * 1.0501, rel=1e-3)
    exact = of_ratio(2.0, 2.0, 2.0)
    assert ratio_between(exact, dataclasses.replace(exact, name="other")).value == 1
    itself = ratio_between(base, base)
    assert (itself.low, itself.value, itself.high) == (1, 1, 1)
