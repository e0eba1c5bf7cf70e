"""HARD_SWISH in int8 files: composed of operators that XNNPACK delegates, with the same function."""

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from same_function import assert_delegated, images, outputs, trained_like

from mnas.arch import Arch
from mnas.export.litert import litert_fp32, litert_int8
from mnas.metadata import ModelMetadata
from mnas.tflite.hardswish import without_hardswish
from mnas.tflite.runtime import run_tflite
from mnas.tflite.writer import graph_bytes, write_tflite

HARD = Arch(
    blocks=Arch.from_block_strings(
        "r2_k3_s22_e4_i8_o16_se0.25_semid_sehard_sehardswish,r1_a3_k5_s11_e2_o16_uib"
    ).blocks,
    stem_filters=8,
    stem_stride=1,
    activation="hardswish",
    head_filters=32,
    head_pooled=True,
    head_norm=False,
    dropout=0.0,
)


def operators(model: bytes) -> list[int]:
    parsed = schema.ModelT.InitFromObj(schema.Model.GetRootAs(model))
    return [parsed.operatorCodes[operator.opcodeIndex].builtinCode for operator in parsed.subgraphs[0].operators]


def test_the_composed_file_computes_the_same() -> None:
    network = trained_like(HARD, 5, 0)
    model = write_tflite(network, 33)
    composed = without_hardswish(model)
    count = operators(model).count(schema.BuiltinOperator.HARD_SWISH)
    assert count == 10  # stem, three in each of two mbconvs, two in the uib, head
    assert operators(composed).count(schema.BuiltinOperator.HARD_SWISH) == 0
    assert len(operators(composed)) == len(operators(model)) + 2 * count
    x = images(33, 1, 4)
    expected = outputs(network, x)
    assert np.abs(run_tflite(composed, x) - expected).max() <= 1e-4 * np.abs(expected).max()
    assert_delegated(composed)


def test_files_without_hardswish_stay_as_they_are() -> None:
    model = graph_bytes(Arch.from_block_strings("r1_k3_s22_e1_o16"), 32, 4)
    assert without_hardswish(model) is model


@pytest.mark.parametrize("integer_io", [False, True])
def test_int8_files_are_delegated_in_full(integer_io: bool) -> None:
    pytest.importorskip("ai_edge_quantizer")
    network = trained_like(HARD, 5, 0)
    info = ModelMetadata(arch=HARD, input_size=32, unnamed_classes=5)
    x = images(32, 2, 16)
    model = litert_int8(litert_fp32(network, info), x, integer_io=integer_io)
    assert schema.BuiltinOperator.HARD_SWISH not in operators(model)
    assert_delegated(model)
    if not integer_io:
        expected = outputs(network, x)
        assert np.abs(run_tflite(model, x) - expected).mean() <= 0.03 * np.abs(expected).max()
