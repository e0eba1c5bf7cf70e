"""A model with an operator that a runtime lacks: the error names the operator and the runtimes that have it."""

from pathlib import Path

import flatbuffers
import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema
from onnx import TensorProto, helper

from mnas.arch import Arch
from mnas.cli.main import run
from mnas.foreign.operators import explained
from mnas.foreign.session import ForeignSession
from mnas.tflite.runtime import run_tflite
from mnas.tflite.writer import graph_bytes

PLAIN = Arch.from_block_strings("r1_k3_s22_e1_o16")


def with_mean(path: Path, **changed: object) -> Path:
    """A file that mnas wrote, whose MEAN has another code or version."""
    model = graph_bytes(PLAIN, 32, 4)
    parsed = schema.ModelT.InitFromObj(schema.Model.GetRootAs(model))
    for operator in parsed.subgraphs[0].operators:
        code = parsed.operatorCodes[operator.opcodeIndex]
        if code.builtinCode == schema.BuiltinOperator.MEAN:
            for name, value in changed.items():
                setattr(code, name, value)
            if "customCode" in changed:
                code.builtinCode = schema.BuiltinOperator.CUSTOM
                code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
                operator.builtinOptionsType, operator.builtinOptions = 0, None
    builder = flatbuffers.Builder(len(model) + 4096)
    builder.Finish(parsed.Pack(builder), file_identifier=b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return path


def onnx_file(path: Path) -> Path:
    shape = ["image"], ["logits"]
    image, logits = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 8, 8]) for (name,) in shape)
    graph = helper.make_graph([helper.make_node("Erfinv", *shape, domain="my.ops")], "graph", [image], [logits])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("my.ops", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets), path)
    return path


FLEX = "LiteRT lacks operator FlexErf; a LiteRT with TensorFlow's operators (the Flex delegate) has it"
CUSTOM = "LiteRT lacks the custom operator Mine; only a LiteRT built with that operator has it"
VERSION = "this LiteRT lacks operator MEAN in version 99; a newer LiteRT or later has it"
ONNX = "ONNX Runtime lacks operator my.ops.Erfinv; only an ONNX Runtime with the library of my.ops has it"


@pytest.mark.parametrize(
    ("changed", "message"),
    [({"customCode": "FlexErf"}, FLEX), ({"customCode": "Mine"}, CUSTOM), ({"version": 99}, VERSION)],
)
def test_litert_names_the_operator(tmp_path: Path, changed: dict[str, object], message: str) -> None:
    path = with_mean(tmp_path / "model.tflite", **changed)
    with pytest.raises(ValueError, match="LiteRT cannot run") as error:
        run_tflite(path.read_bytes(), np.zeros((1, 32, 32, 3), np.float32))
    assert str(error.value).endswith(message)


def test_onnx_runtime_names_the_operator(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="ONNX Runtime cannot run") as error:
        ForeignSession("onnx", onnx_file(tmp_path / "model.onnx"), 1)
    assert str(error.value).endswith(ONNX)


def test_latency_names_the_operator(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path, message in (
        (with_mean(tmp_path / "model.tflite", customCode="Mine"), CUSTOM),
        (onnx_file(tmp_path / "model.onnx"), ONNX),
    ):
        assert run(["latency", str(path), "--budget-s", "0.1"]) == 2
        assert capsys.readouterr().err.strip().splitlines()[-1].endswith(message)


def test_an_old_runtime_without_hardswish() -> None:
    text = "Didn't find op for builtin opcode 'HARD_SWISH' version '1'. An older version might be supported"
    assert explained(text) == "this LiteRT lacks operator HARD_SWISH in version 1; TensorFlow 1.15 or later has it"
    lines = f"INFO: STARTING!\nERROR: {text}\n\nERROR: Registration failed.\n"
    assert explained(lines) == explained(text)
    assert explained("ERROR: out of memory") == "ERROR: out of memory"
    missing = "[method.cpp:700] Missing operator: [3] aten::erf.out\n"
    assert "this ExecuTorch lacks operator aten::erf.out" in explained(missing)
