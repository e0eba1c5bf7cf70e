"""Read the operation that makes a model's output from an .onnx or .tflite file, without running or loading it."""

from collections.abc import Mapping, Set
from pathlib import Path
from typing import TypeVar

from mnas.foreign.onnx_file import fields
from mnas.formats import format_of
from mnas.predict.outputs import Kind
from mnas.readers import open_regular

Name = TypeVar("Name", bytes, int)
Operation = TypeVar("Operation", str, int)

_MOST_BYTES = 1_000_000_000
# operations that do not change the meaning of numbers
_ONNX_SAME = {
    "Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Cast", "Transpose", "QuantizeLinear", "DequantizeLinear",
}  # fmt: skip
_ONNX: dict[str, Kind] = {
    "Softmax": "softmax", "Sigmoid": "sigmoid", "HardSigmoid": "sigmoid", "LogSoftmax": "logits", "Gemm": "logits",
    "MatMul": "logits", "Conv": "logits", "Add": "logits", "GlobalAveragePool": "logits", "AveragePool": "logits",
    "ReduceMean": "logits", "QLinearMatMul": "logits", "QLinearConv": "logits", "QGemm": "logits",
    "QLinearSoftmax": "softmax", "QLinearSigmoid": "sigmoid",
}  # fmt: skip
_LITERT_SAME = {6, 22, 39, 43, 53, 70, 114}  # DEQUANTIZE, RESHAPE, TRANSPOSE, SQUEEZE, CAST, EXPAND_DIMS, QUANTIZE
_LITERT: dict[int, Kind] = {
    25: "softmax", 14: "sigmoid", 50: "logits", 9: "logits", 3: "logits", 0: "logits", 1: "logits", 40: "logits",
}  # fmt: skip  # SOFTMAX, LOGISTIC, LOG_SOFTMAX, FULLY_CONNECTED, CONV_2D, ADD, AVERAGE_POOL_2D, MEAN


def last_op(path: Path) -> Kind | None:
    """Return the kind of outputs by the file's last operation; None where that is inconclusive or unreadable."""
    readers = {"onnx": _onnx, "litert": _litert}
    row = format_of(path)
    read = None if row is None else readers.get(row.name)
    if read is None or path.stat().st_size > _MOST_BYTES:
        return None
    try:
        with open_regular(path) as file:
            return read(file.read())
    except Exception:  # the runtime reports a damaged file
        return None


def _onnx(file: bytes) -> Kind | None:
    whole = memoryview(file)
    graph = next(whole[a:b] for number, a, b in fields(whole) if number == 7)
    makers: dict[bytes, tuple[str, bytes]] = {}  # output -> operation, its first input
    outputs: list[bytes] = []
    for number, start, end in fields(graph):
        part = graph[start:end]
        if number == 1:
            texts = [(n, bytes(part[a:b])) for n, a, b in fields(part) if n in (1, 2, 4)]
            first = next((value for n, value in texts if n == 1), b"")
            kind = next((value for n, value in texts if n == 4), b"").decode()
            makers |= {value: (kind, first) for n, value in texts if n == 2}
        elif number == 12:
            outputs.append(next(bytes(part[a:b]) for n, a, b in fields(part) if n == 1))
    (name,) = outputs
    return _kind_behind(name, makers, _ONNX_SAME, _ONNX)


def _kind_behind(
    output: Name,
    makers: Mapping[Name, tuple[Operation, Name]],
    same: Set[Operation],
    kinds: Mapping[Operation, Kind],
) -> Kind | None:
    """Return the kind by the last operation before `output` that changes what its numbers mean.

    Args:
        makers: output -> operation that makes it, and that operation's first input.
        same: operations that do not change the meaning of numbers.
    """
    for _ in range(len(makers)):
        operation, first = makers[output]
        if operation not in same:
            return kinds.get(operation)
        output = first
    return None


def _litert(file: bytes) -> Kind | None:
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(file)
    graph = model.Subgraphs(0)
    makers: dict[int, tuple[int, int]] = {}
    for index in range(graph.OperatorsLength()):
        operator = graph.Operators(index)
        code = model.OperatorCodes(operator.OpcodeIndex())
        kind = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
        first = operator.Inputs(0) if operator.InputsLength() else -1
        makers |= {operator.Outputs(i): (kind, first) for i in range(operator.OutputsLength())}
    if graph.OutputsLength() != 1:
        return None
    return _kind_behind(graph.Outputs(0), makers, _LITERT_SAME, _LITERT)
