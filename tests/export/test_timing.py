"""Exported files timed against each other, each in its own runtime."""

import pytest
from foreign_models import onnx_model

from mnas.arch import Arch
from mnas.block import Block
from mnas.export.timing import TimedFile, speed, timed_file
from mnas.latency.latency import MeasurementError
from mnas.tflite.writer import graph_bytes

ARCH = Arch(blocks=(Block(op="sepconv", kernel=3, stride=2, filters=16),), stem_filters=16, head_filters=16)


@pytest.fixture(scope="module")
def reference():
    return TimedFile(graph_bytes(ARCH, 64, 4))


def test_files_are_timed_by_the_runtime_of_their_suffix(tmp_path, reference):
    path = tmp_path / "means.onnx"
    path.write_bytes(onnx_model())
    assert timed_file(path) == TimedFile(onnx_model(), "onnxruntime")
    found = speed(timed_file(path), reference, budget_s=0.1)
    assert 0 < found.low_ms <= found.latency_ms <= found.high_ms
    assert 0 < found.ratio_low <= found.ratio <= found.ratio_high
    assert found.reference_ms > 0


def test_a_wider_network_is_slower_than_the_reference_and_itself_is_the_unit(reference):
    wide = speed(TimedFile(graph_bytes(ARCH.scale_width(4), 64, 4)), reference, budget_s=0.1)
    assert wide.ratio > 1  # 10 times the arithmetic
    itself = speed(reference, reference, budget_s=0.1)
    assert (itself.ratio_low, itself.ratio, itself.ratio_high) == (1, 1, 1)


def test_a_file_that_cannot_be_run_gets_one_line(reference):
    with pytest.raises(MeasurementError, match="a model must be a LiteRT file"):
        speed(TimedFile(b"no model at all"), reference, budget_s=0.1)
